# SPDX-License-Identifier: Apache-2.0
"""Labeling images by clicks, in a page of this machine."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
