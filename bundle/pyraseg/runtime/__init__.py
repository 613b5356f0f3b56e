# SPDX-License-Identifier: Apache-2.0
"""Segmentation with NumPy, pydicom, Pillow and ONNX Runtime alone: nothing here imports PyTorch or MONAI."""
