# SPDX-License-Identifier: Apache-2.0
"""Turn DICOM into the layout of Pascal VOC, and read it back."""
