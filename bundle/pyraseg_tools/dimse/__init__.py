# SPDX-License-Identifier: Apache-2.0
"""Take series from DICOM nodes, and send them results, by DIMSE (PS3.7)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
