# SPDX-License-Identifier: Apache-2.0
"""What files of images are called; DICOM is told by content, since its files are called anything."""

NIFTI = (".nii", ".nii.gz")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
PHOTOGRAPH = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def without_suffix(name: str) -> str:
    """Drop the suffix of an image format; other dots are part of a name, as in a UID.

    >>> without_suffix("1.2.840.nii.gz")
    '1.2.840'
    """
    suffixes = [suffix for suffix in (*NIFTI, *ITK, *PHOTOGRAPH, ".dcm") if name.lower().endswith(suffix)]
    return name[: -len(max(suffixes, key=len))] if suffixes else name
