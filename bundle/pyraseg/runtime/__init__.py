# SPDX-License-Identifier: Apache-2.0
"""Segmentation with NumPy, pydicom, Pillow and ONNX Runtime alone: nothing here imports PyTorch or MONAI."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
