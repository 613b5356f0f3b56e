# SPDX-License-Identifier: Apache-2.0
"""The files of voxels that a header names are those that ITK reads, and what else it mentions is none."""

from pathlib import Path

import itk
import numpy as np
import pytest

from bundle.pyraseg.core import pixel_files

VOXELS = np.arange(8 * 6 * 5, dtype=np.uint8).reshape(5, 6, 8)
META = "ObjectType = Image\nNDims = 3\nDimSize = 8 6 5\n{}ElementType = MET_UCHAR\nElementDataFile = "
NRRD = "NRRD0004\n# data file: none.raw\n{}type: uint8\ndimension: 3\nsizes: 8 6 5\nencoding: raw\n"
SLICES = [f"a slice {number:02d}.raw" for number in range(5)]
LISTED = "".join(f"{name}\n" for name in SLICES)


@pytest.mark.parametrize(
    ("name", "text", "files"),
    [
        ("a.mhd", META + "all of it.raw\n", ["all of it.raw"]),
        ("a.mha", META.replace("=", ":") + "sub/../all of it.raw \n", ["sub/../all of it.raw"]),
        ("a.mhd", META.format("Comment = ElementDataFile = LOCAL\n{}") + "all of it.raw\n", ["all of it.raw"]),
        ("a.mhd", META.replace("\n", "\r\n") + "all of it.raw\r\n", ["all of it.raw"]),
        ("a.mhd", META + f"LIST\n{LISTED}", SLICES),
        ("a.mhd", META + f"LIST 2\n{LISTED}", SLICES),
        ("a.mhd", META + "a slice %02d.raw 0 4 1\n", SLICES),
        ("a.mhd", META + "n%d.raw\n", [f"n{number}.raw" for number in range(1, 6)]),
        ("a.nhdr", NRRD + "data file: all of it.raw\n", ["all of it.raw"]),
        ("a.nrrd", NRRD + "DataFile: all of it.raw\n\n", ["all of it.raw"]),
        ("a.nhdr", NRRD.format("# a\rdata file: all of it.raw\n"), ["all of it.raw"]),
        ("a.nhdr", NRRD + f"data file: LIST\n{LISTED}", SLICES),
        ("a.nhdr", NRRD + "data file: n%01d.raw 1 5 1 2\n", [f"n{number}.raw" for number in range(1, 6)]),
    ],
)
def test_files_that_a_header_names(tmp_path: Path, name: str, text: str, files: list[str]) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "all of it.raw").write_bytes(VOXELS.tobytes())
    for number, (one, plane) in enumerate(zip(SLICES, VOXELS, strict=True), 1):
        (tmp_path / one).write_bytes(plane.tobytes())
        (tmp_path / f"n{number}.raw").write_bytes(plane.tobytes())
    (tmp_path / name).write_text(text.replace("{}", ""), newline="")
    assert np.array_equal(itk.array_from_image(itk.imread(tmp_path / name)), VOXELS)
    assert pixel_files(tmp_path / name) == [tmp_path / file for file in files]
    for file in files:
        (tmp_path / file).unlink()
    with pytest.raises(RuntimeError):
        itk.imread(tmp_path / name)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("compressed", [False, True])
def test_none_where_the_voxels_follow(tmp_path: Path, suffix: str, compressed: bool) -> None:
    itk.imwrite(itk.image_from_array(VOXELS), tmp_path / f"a{suffix}", compression=compressed)
    assert pixel_files(tmp_path / f"a{suffix}") == []


@pytest.mark.parametrize("content", [b"", b"NRRD0004\ndata file:\n\n", b"ElementDataFile = %d.raw\n", bytes(99)])
def test_nothing_is_made_up(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mhd").write_bytes(content)
    assert len(pixel_files(tmp_path / "a.mhd")) == (1 if b"%d" in content else 0)
