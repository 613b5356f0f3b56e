# SPDX-License-Identifier: Apache-2.0
"""Data lists: pairs of image and label, patients, duplicates, splits and leaks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
