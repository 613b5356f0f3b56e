# SPDX-License-Identifier: Apache-2.0
"""A small synthetic CT study with labels, in real DICOM, for the default task and the tests."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
