# SPDX-License-Identifier: Apache-2.0
"""Label files: DICOM SEG and RT Structure Sets, names and codes of classes, and the grid of a label's image."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
