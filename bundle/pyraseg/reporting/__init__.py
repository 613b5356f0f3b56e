# SPDX-License-Identifier: Apache-2.0
"""The page that an evaluation leaves: figures, pictures and where they come from, in one file."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
