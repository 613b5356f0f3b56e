# SPDX-License-Identifier: Apache-2.0
"""What becomes of results: whether people accept, amend or reject them, and what that says of a model over time."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
