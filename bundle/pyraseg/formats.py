# SPDX-License-Identifier: Apache-2.0
"""What files of images are called; DICOM is told by content, since its files are called anything."""

NIFTI = (".nii", ".nii.gz")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
PHOTOGRAPH = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
