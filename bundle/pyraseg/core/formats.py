# SPDX-License-Identifier: Apache-2.0
"""Formats of images: what their files are called; DICOM is told by content."""

NIFTI = (".nii", ".nii.gz")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
PHOTOGRAPH = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

DICOM = (".dcm", ".dicom", ".ima")


def without_suffix(name: str) -> str:
    """Drop the suffix of an image format from a name or path; other dots are part of a name, as in a UID.

    >>> without_suffix("scans/1.2.840.NII.gz"), without_suffix("1.2.840")
    ('scans/1.2.840', '1.2.840')
    """
    file = name.rpartition("/")[2].lower()
    suffixes = [one for one in (*NIFTI, *ITK, *PHOTOGRAPH, *DICOM) if file.endswith(one) and file != one]
    return name[: -len(max(suffixes, key=len))] if suffixes else name
