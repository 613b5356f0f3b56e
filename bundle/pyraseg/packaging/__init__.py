# SPDX-License-Identifier: Apache-2.0
"""One task as one file to share: made from the repository, and checked before anything in it is run."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
