# SPDX-License-Identifier: Apache-2.0
"""NIfTI as headers in the world say it: units, two places or none, axes without length, and what is no volume."""

import gzip
import logging
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor
from monai.transforms import LoadImaged, SpatialCrop

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.inference.writers.label_map import write_label_map
from bundle.pyraseg.transforms.nifti import read_nifti

READER = "bundle.pyraseg.transforms.MedicalImageReader"
VOXELS = np.arange(5 * 7 * 3, dtype=np.int16).reshape(5, 7, 3)
AFFINE = np.array([[0, -1.5, 0, 20], [2.0, 0, 0.5, -7], [0, 0, 3, 4], [0, 0, 0, 1]])  # turned and tilted
PLAIN = np.diag([-0.8, -0.8, 3, 1])


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return what the reader warned of since the test began."""
    caplog.set_level(logging.WARNING)
    return lambda: "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("bundle."))


def load(path: Path) -> MetaTensor:
    return LoadImaged("image", reader=READER, ensure_channel_first=True)({"image": str(path)})["image"]


def save(path: Path, change: Callable[[nib.Nifti1Header], None], voxels: np.ndarray = VOXELS, **kind: object) -> Path:
    """Write voxels under a header that `change` has changed."""
    header = nib.Nifti1Image(voxels, PLAIN, **kind).header
    change(header)
    nib.save(nib.Nifti1Image(voxels, None, header), path)
    return path


def forms(sform: np.ndarray | None, qform: np.ndarray | None, *, codes: tuple[int, int] = (1, 1)) -> Callable:
    def change(header: nib.Nifti1Header) -> None:
        header.set_qform(qform, 0 if qform is None else codes[1])
        header.set_sform(sform, 0 if sform is None else codes[0])

    return change


@pytest.mark.parametrize(("unit", "length"), [("meter", 1000), ("mm", 1), ("micron", 0.001), ("unknown", 1)])
def test_positions_are_in_mm_whatever_the_header_counts_in(
    tmp_path: Path, told: Callable, unit: str, length: float
) -> None:
    def change(header: nib.Nifti1Header) -> None:
        header.set_sform(np.diag([1 / length, 1 / length, 1 / length, 1]) @ AFFINE, 1)
        header["pixdim"][1:4] = np.linalg.norm(AFFINE[:3, :3], axis=0) / length
        header.set_xyzt_units(unit)

    image = load(save(tmp_path / "image.nii.gz", change))
    assert np.allclose(image.affine, AFFINE, rtol=1e-6)
    assert ("counts in" in told()) == (length != 1)


def test_an_unknown_unit_is_told(tmp_path: Path, told: Callable) -> None:
    path = save(tmp_path / "image.nii", lambda header: header.__setitem__("xyzt_units", 5))
    assert np.allclose(load(path).affine, PLAIN)
    assert "an unknown unit (code 5)" in told()


MOVED = PLAIN + np.pad([[5.0], [-6], [7]], ((0, 1), (3, 0)))
IDENTITY = np.diag([-1.0, -1, 1, 1])
FLIPPED = np.diag([0.8, -0.8, 3, 1])


@pytest.mark.parametrize(
    ("change", "expected", "words"),
    [
        (forms(MOVED, PLAIN), MOVED, "The sform was taken, as nibabel"),
        (forms(MOVED, PLAIN, codes=(4, 1)), MOVED, "disagree by up to 7.5 voxels"),  # 6 mm of 0.8
        (forms(FLIPPED, PLAIN), FLIPPED, "The sform was taken"),
        (forms(IDENTITY, MOVED), MOVED, "The qform was taken, for the sform has voxels of 1 x 1 x 1, not 0.8 x 0.8"),
        (forms(np.diag([0, 0, 0, 1.0]), MOVED), MOVED, "does not give every voxel a place"),
        (forms(np.full((4, 4), np.nan), MOVED), MOVED, "does not give every voxel a place"),
        (forms(None, MOVED), MOVED, ""),
        (forms(MOVED, None), MOVED, ""),
        (forms(PLAIN + 1e-4 * np.eye(4), PLAIN), PLAIN, ""),  # the rounding of another program
        (forms(None, None), np.diag([0.8, 0.8, 3, 1]), "does not say how it lies"),  # nifti1.h, method 1
    ],
)
def test_which_form_is_taken_is_told(
    tmp_path: Path, told: Callable, change: Callable, expected: np.ndarray, words: str
) -> None:
    image = load(save(tmp_path / "image.nii.gz", change))
    assert np.allclose(image.affine, expected, atol=1e-3)
    assert np.array_equal(image[0], VOXELS)
    assert words in told()
    assert bool(told()) == bool(words)


#: All fields of nifti1.h from which a position follows: sizes and handedness, units, and the two forms.
FIELDS = [
    "pixdim", "xyzt_units", "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "sform_code", "srow_x", "srow_y", "srow_z",
]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        forms(MOVED, PLAIN),
        forms(IDENTITY, MOVED),
        forms(None, None),
        forms(None, MOVED),
        lambda header: header.set_xyzt_units("micron"),
    ],
)
def test_a_label_map_lies_on_its_image_for_every_program(tmp_path: Path, change: Callable) -> None:
    """Whichever of qform, sform and units a viewer heeds: the fields are the image's."""
    path = save(tmp_path / "image.nii.gz", change)
    image = load(path)
    labels = MetaTensor((image > 50).to(dtype=image.dtype), meta=image.meta)
    written = write_label_map(labels, image, tmp_path / "labels")
    ours, theirs = nib.load(written).header, nib.load(path).header
    for name in FIELDS:
        assert np.array_equal(ours[name], theirs[name]), name
    again = load(written)
    assert np.allclose(again.affine, image.affine)
    assert np.array_equal(again[0], VOXELS > 50)


def test_a_cropped_label_map_has_an_affine_of_its_own(tmp_path: Path) -> None:
    image = load(save(tmp_path / "image.nii.gz", forms(MOVED, PLAIN)))
    cropped = SpatialCrop(roi_start=[2, 0, 0], roi_end=[5, 7, 3])(image)
    written = nib.load(write_label_map(cropped, cropped, tmp_path / "labels"))
    assert np.allclose(written.affine[:3, 3], MOVED[:3] @ [2, 0, 0, 1])
    assert written.shape == (3, 7, 3)


@pytest.mark.parametrize("extra", [(), (1,), (1, 1), (1, 1, 1)])
def test_axes_of_length_1_are_none(tmp_path: Path, extra: tuple) -> None:
    image = load(save(tmp_path / "image.nii.gz", lambda header: None, VOXELS.reshape(*VOXELS.shape, *extra)))
    assert np.array_equal(image[0], VOXELS)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
def test_a_plane_is_a_volume_of_one_slice(tmp_path: Path, shape: tuple) -> None:
    image = load(save(tmp_path / "image.nii.gz", forms(MOVED, None), VOXELS[..., 0].reshape(shape)))
    assert np.array_equal(image[0, ..., 0], VOXELS[..., 0])
    assert np.allclose(image.affine, MOVED)


def test_a_plane_without_thickness_lies_in_its_plane(tmp_path: Path) -> None:
    flat = AFFINE.copy()
    flat[:3, 2] = 0
    image = load(save(tmp_path / "image.nii.gz", forms(flat, None), VOXELS[..., 0]))
    assert np.allclose(image.affine[:3, 2], np.cross(AFFINE[:3, 0], AFFINE[:3, 1]) / 3)


@pytest.mark.parametrize(
    "stored",
    [
        VOXELS.astype(">i2"),
        VOXELS.astype(np.int64),
        VOXELS.astype(np.uint64),
        VOXELS.astype(np.float64),
        VOXELS.astype(np.uint8),
    ],
)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_types_orders_and_versions(tmp_path: Path, stored: np.ndarray, kind: type) -> None:
    header = kind.header_class(endianness=">") if stored.dtype.byteorder == ">" else None
    nib.save(kind(stored, AFFINE, header, dtype=stored.dtype), tmp_path / "image.nii.gz")
    image = load(tmp_path / "image.nii.gz")
    assert np.array_equal(image[0], VOXELS)
    assert np.allclose(image.affine, AFFINE)


def test_stored_numbers_are_scaled(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), PLAIN)
    image.header.set_slope_inter(2, -100)
    nib.save(image, tmp_path / "image.nii")
    assert np.array_equal(load(tmp_path / "image.nii")[0], 2 * np.arange(24).reshape(2, 3, 4) - 100)


RGB = np.zeros((5, 7, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("voxels", "words"),
    [
        (RGB, "holds colors"),
        (VOXELS.astype(np.complex64), "holds complex numbers"),
        (np.stack([VOXELS] * 4, axis=3), r"holds 4 volumes \(5 x 7 x 3 x 4 voxels\).* [Ss]ave the one to use"),
        (VOXELS.reshape(5, 7, 1, 1, 3), r"holds 3 volumes"),
        (VOXELS[..., :0], "holds no voxels: its size is 5 x 7 x 0"),
    ],
    ids=("rgb", "complex", "times", "vectors", "empty"),
)
def test_what_is_no_volume_is_refused_in_words(tmp_path: Path, voxels: np.ndarray, words: str) -> None:
    nib.save(nib.Nifti1Image(voxels, PLAIN), tmp_path / "image.nii.gz")
    with pytest.raises(PyrasegError, match=rf"image\.nii\.gz {words}"):
        load(tmp_path / "image.nii.gz")


def test_voxels_without_a_size_are_refused(tmp_path: Path) -> None:
    def change(header: nib.Nifti1Header) -> None:
        forms(None, None)(header)
        header["pixdim"][1:4] = np.nan, 1, 1

    with pytest.raises(
        PyrasegError, match=r"sizes in the header of .*image\.nii are nan x 1 x 1, .* Correct its header"
    ):
        load(save(tmp_path / "image.nii", change))


@pytest.mark.parametrize("form", ["qform", "sform", None])
@pytest.mark.parametrize("shape", [(5, 7, 3), (7, 1, 5), (5, 7, 1)])
def test_a_wrong_unit_is_refused(tmp_path: Path, form: str | None, shape: tuple) -> None:
    """Voxels of 0.8 mm under a header that counts in meters are 800 mm large: a grid that no memory holds."""

    def change(header: nib.Nifti1Header) -> None:
        forms(PLAIN if form == "sform" else None, PLAIN if form == "qform" else None)(header)
        header.set_xyzt_units("meter")

    path = save(tmp_path / "image.nii.gz", change, np.ones(shape, np.int16))
    with pytest.raises(
        PyrasegError, match=r"image\.nii\.gz has voxels of 800 x 800 x 3000 mm \(its header counts in meters\)"
    ):
        load(path)


def test_slices_far_apart_are_no_wrong_unit(tmp_path: Path) -> None:
    affine = np.diag([-0.8, -0.8, 150, 1])  # localizers
    nib.save(nib.Nifti1Image(VOXELS, affine), tmp_path / "image.nii")
    assert np.allclose(load(tmp_path / "image.nii").affine, affine)


def test_damaged_compression_is_refused(tmp_path: Path) -> None:
    """nibabel reads as many bytes as there are voxels, and so never comes to the checksum behind them."""
    random = np.random.default_rng(0)
    path = tmp_path / "image.nii.gz"
    nib.save(nib.Nifti1Image(random.normal(0, 50, (24, 24, 8)).astype(np.int16), PLAIN), path)
    whole = path.read_bytes()
    for place in random.integers(10, len(whole) - 8, 40):  # behind the header of gzip itself
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(PyrasegError, match=r"image\.nii\.gz is (damaged|incomplete)"):
            load(path)
    path.write_bytes(whole[:-20])
    with pytest.raises(PyrasegError, match="is incomplete: its compressed content ends too early"):
        load(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("zeros.nii.gz", lambda packed: packed + bytes(512)),
        ("garbage.nii.gz", lambda packed: packed + b"garbage" * 40),
        ("packed.nii", lambda packed: packed),
        ("plain.nii.gz", gzip.decompress),
        ("parts.nii.gz", lambda packed: b"".join(gzip.compress(part) for part in halves(gzip.decompress(packed)))),
    ],
)
def test_the_content_decides_and_not_the_name(tmp_path: Path, name: str, change: Callable) -> None:
    packed = gzip.compress(nib.Nifti1Image(VOXELS, PLAIN).to_bytes())
    (tmp_path / name).write_bytes(change(packed))
    assert np.array_equal(load(tmp_path / name)[0], VOXELS)


@pytest.mark.parametrize("piece", [1, 2, 3, 19, 50])
def test_parts_end_wherever_in_what_is_read_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr("bundle.pyraseg.transforms.nifti.PIECE", piece)
    content = nib.Nifti1Image(VOXELS, PLAIN).to_bytes()
    parts = [gzip.compress(content[start : start + 60]) for start in range(0, len(content), 60)]
    for rest in (b"", b"\x1f", bytes(5)):
        (tmp_path / "image.nii.gz").write_bytes(b"".join(parts) + rest)
        assert np.array_equal(load(tmp_path / "image.nii.gz")[0], VOXELS)
    (tmp_path / "image.nii.gz").write_bytes(b"".join(parts)[:-1])
    with pytest.raises(PyrasegError, match="is incomplete"):
        load(tmp_path / "image.nii.gz")


def test_reading_a_packed_volume_takes_one_copy_beside_it(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(0, 50, (128, 128, 40)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, PLAIN), tmp_path / "image.nii.gz")
    tracemalloc.start()
    read, _ = read_nifti(tmp_path / "image.nii.gz")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(read, voxels) and most < 2.5 * voxels.nbytes


def halves(content: bytes) -> tuple[bytes, bytes]:
    return content[:500], content[500:]


@pytest.mark.parametrize("kind", [nib.AnalyzeImage, nib.Nifti1Pair])
def test_half_of_a_pair_is_no_file_of_nifti(tmp_path: Path, kind: type) -> None:
    nib.save(kind(VOXELS, PLAIN), tmp_path / "image.hdr")
    (tmp_path / "image.hdr").rename(tmp_path / "image.nii")
    with pytest.raises(PyrasegError, match=r"image\.nii is no NIfTI"):
        load(tmp_path / "image.nii")
