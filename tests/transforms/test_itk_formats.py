# SPDX-License-Identifier: Apache-2.0
"""NRRD and MetaImage as headers in the world say it: units, spaces, planes, parts of a voxel, and pixels elsewhere."""

import re
import tracemalloc
from pathlib import Path

import itk
import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms.reader import MedicalImageReader

VOXELS = np.arange(5 * 7 * 3, dtype=np.int16).reshape(5, 7, 3)
NRRD = """NRRD0004
# made by a test
type: {type}
dimension: {dimension}
{space}sizes: {sizes}
space directions: {directions}
kinds: {kinds}
endian: little
encoding: raw
space origin: (7,8,9)
{more}
"""


def nrrd(path: Path, voxels: np.ndarray = VOXELS, **changes: object) -> Path:
    """Write a NRRD whose steps are 2, 3 and 4 along its axes."""
    fields = {
        "type": voxels.dtype.name,
        "dimension": voxels.ndim,
        "space": "space: left-posterior-superior\n",
        "sizes": " ".join(map(str, voxels.shape)),
        "directions": "(2,0,0) (0,3,0) (0,0,4)",
        "kinds": "domain domain domain",
        "more": "",
    }
    path.write_bytes(NRRD.format_map({**fields, **changes}).encode() + voxels.tobytes(order="F"))
    return path


def metaimage(path: Path, voxels: np.ndarray = VOXELS, **changes: object) -> Path:
    fields = {
        "NDims": voxels.ndim,
        "BinaryDataByteOrderMSB": False,
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "7 8 9",
        "ElementSpacing": "2 3 4",
        "DimSize": " ".join(map(str, voxels.shape)),
        "ElementType": {"int16": "MET_SHORT", "uint8": "MET_UCHAR"}[voxels.dtype.name],
        **changes,
        "ElementDataFile": changes.get("ElementDataFile", "LOCAL"),
    }
    text = "ObjectType = Image\n" + "".join(f"{key} = {value}\n" for key, value in fields.items())
    path.write_bytes(text.encode() + voxels.tobytes(order="F"))
    return path


def read(path: Path) -> tuple[np.ndarray, dict]:
    return MedicalImageReader().get_data([path])


@pytest.mark.parametrize(
    ("space", "signs"),
    [("left-posterior-superior", (-1, -1, 1)), ("RAS", (1, 1, 1)), ("left-anterior-superior", (-1, 1, 1))],
)
def test_spaces_of_the_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture, space: str, signs: tuple) -> None:
    values, meta = read(nrrd(tmp_path / "image.nrrd", space=f"space: {space}\n"))
    assert np.array_equal(values, VOXELS)
    assert np.allclose(meta["affine"][:3], np.diag(signs) @ [[2, 0, 0, 7], [0, 3, 0, 8], [0, 0, 4, 9]])
    assert meta["oriented"] and not caplog.text


@pytest.mark.parametrize("space", ["space: scanner-xyz\n", "space: 3D-left-handed\n", "space dimension: 3\n"])
def test_other_spaces_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, space: str) -> None:
    _, meta = read(nrrd(tmp_path / "image.nrrd", space=space))
    assert not meta["oriented"]
    assert "does not say how it lies in the patient" in caplog.text


@pytest.mark.parametrize(("unit", "length"), [("mm", 1), ("um", 0.001), ("microns", 0.001), ("cm", 10), ("m", 1000)])
def test_units_are_turned_into_mm(tmp_path: Path, caplog: pytest.LogCaptureFixture, unit: str, length: float) -> None:
    step = 0.01  # of the unit: 10 mm where it is a meter
    expected = length * np.array([[-2 * step, 0, 0, -7], [0, -3 * step, 0, -8], [0, 0, 4 * step, 9]])
    directions = f"({2 * step},0,0) (0,{3 * step},0) (0,0,{4 * step})"
    more = f'space units: "{unit}" "{unit}" "{unit}"\n'
    _, meta = read(nrrd(tmp_path / "image.nrrd", directions=directions, more=more))
    assert np.allclose(meta["affine"][:3], expected)
    assert (f"counts in {unit}" in caplog.text) == (length != 1)
    sizes = f"{2 * step} {3 * step} {4 * step}"
    _, meta = read(metaimage(tmp_path / "image.mha", DistanceUnits=unit, ElementSpacing=sizes))
    assert np.allclose(meta["affine"][:3], expected)


def test_a_wrong_unit_is_refused(tmp_path: Path) -> None:
    words = r"image\.{} has voxels of 2000 x 3000 x 4000 mm \(its header counts in m\)\."
    with pytest.raises(PyrasegError, match=words.format("nrrd")):
        read(nrrd(tmp_path / "image.nrrd", more='space units: "m" "m" "m"\n'))
    with pytest.raises(PyrasegError, match=words.format("mha")):
        read(metaimage(tmp_path / "image.mha", DistanceUnits="m"))


def test_an_unknown_unit_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, meta = read(nrrd(tmp_path / "image.nrrd", more='space units: "ell" "ell" "ell"\n'))
    assert np.allclose(np.diag(meta["affine"]), [-2, -3, 4, 1])
    assert "counts in ell, which was taken for mm" in caplog.text


def test_a_tilted_stack_is_a_shear(tmp_path: Path) -> None:
    sheared = [[-2, 0, 0, -7], [0, -3, -1, -8], [0, 0, 4, 9]]
    _, meta = read(nrrd(tmp_path / "image.nrrd", directions="(2,0,0) (0,3,0) (0,1,4)"))
    assert np.allclose(meta["affine"][:3], sheared)
    _, meta = read(metaimage(tmp_path / "image.mha", TransformMatrix="1 0 0 0 1 0 0 0.25 1"))
    assert np.allclose(meta["affine"][:3], sheared)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64])
def test_types(tmp_path: Path, kind: type) -> None:
    name = {"float32": "float", "float64": "double"}.get(np.dtype(kind).name, np.dtype(kind).name)
    assert np.array_equal(read(nrrd(tmp_path / "image.nrrd", VOXELS.astype(kind), type=name))[0], VOXELS)


def test_a_plane_is_a_volume_of_one_slice(tmp_path: Path) -> None:
    plane, flat = (
        VOXELS[..., 1],
        {"directions": "(2,0) (0,3)", "kinds": "domain domain", "space": "space dimension: 2\n"},
    )
    path = nrrd(tmp_path / "image.nrrd", plane, **flat)
    path.write_bytes(path.read_bytes().replace(b"(7,8,9)", b"(7,8)"))
    values, meta = read(path)
    assert np.array_equal(values[..., 0], plane)
    assert np.allclose(np.diag(meta["affine"]), [-2, -3, 1, 1])


def test_a_color_picture_keeps_its_channels(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (3, 5, 7, 1)).astype(np.uint8)
    values, meta = read(metaimage(tmp_path / "image.mha", rgb, NDims=3, DimSize="5 7 1", ElementNumberOfChannels=3))
    assert np.array_equal(values, np.moveaxis(rgb, 0, 3))
    assert meta["original_channel_dim"] == 3


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda p: metaimage(p, np.stack([VOXELS] * 2), NDims=3, DimSize="5 7 3", ElementNumberOfChannels=2),
         "holds 2 numbers in each voxel"),
        (lambda p: metaimage(p, np.stack([VOXELS] * 2, 3), ElementSpacing="2 3 4 1", Offset="0 0 0 0",
                             TransformMatrix="1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"), "holds 2 volumes"),
        (lambda p: metaimage(p, ElementDataFile="gone.raw"), "the file of its voxels, gone.raw, is not beside it"),
    ],
)  # fmt: skip
def test_what_is_no_volume_is_refused_in_words(tmp_path: Path, write: object, words: str) -> None:
    with pytest.raises(PyrasegError, match=words) as caught:
        read(write(tmp_path / "image.mha"))
    assert "image.mha" in str(caught.value)


def test_an_axis_of_vectors_is_refused_in_words(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "image.nrrd", np.stack([VOXELS] * 2), directions="none (2,0,0) (0,3,0) (0,0,4)",
                kinds="vector domain domain domain")  # fmt: skip
    with pytest.raises(PyrasegError, match="holds 2 numbers in each voxel"):
        read(path)
    path = nrrd(tmp_path / "image.nhdr", more="data file: gone.raw\n")
    with pytest.raises(PyrasegError, match=r"gone\.raw, is not beside it"):
        read(path)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".mhd"])
def test_damaged_compression_is_refused(tmp_path: Path, suffix: str) -> None:
    """ITK returns the voxels of a damaged MetaImage as if they were right."""
    random = np.random.default_rng(0)
    voxels = random.normal(0, 50, (8, 24, 24)).astype(np.int16)
    itk.imwrite(itk.image_from_array(voxels), str(tmp_path / f"image{suffix}"), compression=True)
    assert np.array_equal(read(tmp_path / f"image{suffix}")[0].T, voxels)
    pixels = tmp_path / ("image.zraw" if suffix == ".mhd" else f"image{suffix}")
    whole = pixels.read_bytes()
    for place in random.integers(len(whole) - 3000, len(whole) - 8, 20):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        pixels.write_bytes(damaged)
        with pytest.raises(PyrasegError, match=rf"{re.escape(pixels.name)} is (damaged|incomplete)"):
            read(tmp_path / f"image{suffix}")


@pytest.mark.parametrize("name", ["image.mha", "image.nrrd"])
def test_content_of_another_format_is_refused(tmp_path: Path, name: str) -> None:
    """HDF5, which ITK finds by its content, can hold the voxels of any other file."""
    itk.imwrite(itk.image_from_array(VOXELS), str(tmp_path / "image.h5"))
    (tmp_path / "image.h5").rename(tmp_path / name)
    with pytest.raises(PyrasegError, match=f"{name} is named as (NRRD|MetaImage), but its content is no"):
        read(tmp_path / name)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".mhd"])
def test_what_is_checked_of_a_file_is_not_kept(tmp_path: Path, suffix: str) -> None:
    voxels = np.random.default_rng(0).integers(-900, 900, (32, 96, 96)).astype(np.int16)
    path = tmp_path / f"image{suffix}"
    itk.imwrite(itk.image_from_array(voxels), str(path), compression=True)
    read(path)  # what is imported on first use is no part of it
    tracemalloc.start()
    assert np.array_equal(read(path)[0].T, voxels)
    _, most = tracemalloc.get_traced_memory()  # of ITK itself nothing is traced
    tracemalloc.stop()
    assert most < 2 * voxels.nbytes
