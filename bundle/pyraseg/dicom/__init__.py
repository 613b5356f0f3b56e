# SPDX-License-Identifier: Apache-2.0
"""DICOM: pixels, geometry, series and segmentation objects."""
