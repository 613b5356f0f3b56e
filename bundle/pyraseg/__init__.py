# SPDX-License-Identifier: Apache-2.0
"""Segmentation of medical images as a MONAI Bundle."""
