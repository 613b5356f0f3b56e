# SPDX-License-Identifier: Apache-2.0
"""Formats of images: what their files are called; DICOM is told by content."""

import unicodedata
from collections.abc import Sequence

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


def names_in_files(names: Sequence[str]) -> list[str]:
    """Return what stands for each class in the name of a file of its own: "_" where there is no letter or digit.

    Where two classes would share a file, or `kidney` of an input `a_left` one with `left_kidney` of an input `a`, the
    names begin with the number of the class, from 1 on, and have no "_".

    >>> names_in_files(["left kidney", "right kidney"]), names_in_files(["left kidney", "left_kidney"])
    (['left_kidney', 'right_kidney'], ['1-left-kidney', '2-left-kidney'])
    """
    plain = ["".join(c if c.isalnum() or c in "-_" else "_" for c in name) for name in names]
    keys = [unicodedata.normalize("NFC", name).casefold() for name in plain]  # a disk may ignore capitals
    alike = len(set(keys)) < len(keys) or any(one.endswith(f"_{other}") for one in keys for other in keys)
    return [f"{number}-{name.replace('_', '-')}" for number, name in enumerate(plain, 1)] if alike else plain
