# SPDX-License-Identifier: Apache-2.0
"""DICOM images: which files are a series, where its voxels lie, and what its pixels mean."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
