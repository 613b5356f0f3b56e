# SPDX-License-Identifier: Apache-2.0
"""What a file is called without the suffix of its format; a UID stays whole."""

import pytest

from bundle.pyraseg.core.formats import without_suffix


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("liver.nii.gz", "liver"),
        ("a.b/Liver.v2.NII.GZ", "a.b/Liver.v2"),
        ("photo.JPEG", "photo"),
        ("x.seg.nrrd", "x.seg"),
        ("1.2.840.113619.dcm", "1.2.840.113619"),
        ("slice.IMA", "slice"),
        ("1.2.840.113619.4", "1.2.840.113619.4"),
        ("IM.0001", "IM.0001"),
        ("archive.gz", "archive.gz"),
        ("IM0001", "IM0001"),
        (".png", ".png"),
        ("folder/.nii.gz", "folder/.nii.gz"),
    ],
)
def test_suffixes_of_formats_alone_are_dropped(name: str, stem: str) -> None:
    assert without_suffix(name) == stem
