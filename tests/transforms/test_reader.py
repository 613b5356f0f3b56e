# SPDX-License-Identifier: Apache-2.0
"""Every format through `LoadImaged` against the library that owns it, and refusals that no other reader overrules."""

from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged
from PIL import Image

from bundle.pyraseg.core.errors import PyrasegError, mendable
from tests.helpers.dicom_files import AXIAL, CORONAL, SAGITTAL, uid, write_enhanced, write_image, write_series

READER = "bundle.pyraseg.transforms.MedicalImageReader"
TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0], [0.48, 0.64, 0.6]])  # an exact rotation
ORIENTATIONS = {
    "axial": AXIAL,
    "rows flipped": (1, 0, 0, 0, -1, 0),
    "coronal": CORONAL,
    "sagittal": SAGITTAL,
    "oblique": (*TURN[:, 0], *TURN[:, 1]),
}
SERIES = {"spacing": (1.5, 0.75), "origin": (-20.0, 30.5, 100.25), "slice_step": 4.0}
NAMES = ["d.dcm", "a.dcm", "e.dcm", "b.dcm", "c.dcm"]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(-1000, 1000, (5, 7, 6), dtype=np.int16)  # slices, rows, columns


def load(path: object, **options: object) -> MetaTensor:
    return LoadImaged("image", reader=READER, ensure_channel_first=True, **options)({"image": path})["image"]


def itk_affine(image: itk.Image) -> np.ndarray:
    """Return the map from indices to RAS mm by ITK's definition: origin + direction * spacing * index, in LPS."""
    size = image.GetImageDimension()
    affine = np.eye(4)
    affine[:size, :size] = np.asarray(image.GetDirection()) * np.asarray(image.GetSpacing())
    affine[:size, 3] = image.GetOrigin()
    return LPS_TO_RAS @ affine


# --- DICOM ---


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_a_series_has_the_voxels_and_affine_that_gdcm_gives_it(tmp_path: Path, orientation: tuple) -> None:
    write_series(tmp_path, PIXELS, orientation=orientation, names=NAMES, **SERIES)
    image = load(str(tmp_path))
    # Pixel (row j, column i) of slice k, in the order in which the slices were placed along the normal.
    assert np.array_equal(image[0], PIXELS.transpose(2, 1, 0))
    series = itk.GDCMSeriesFileNames.New(Directory=str(tmp_path))
    theirs = itk.imread(list(series.GetFileNames(series.GetSeriesUIDs()[0])), itk.F)
    assert np.array_equal(image[0], itk.array_from_image(theirs).transpose(2, 1, 0))
    assert np.allclose(image.affine, itk_affine(theirs), atol=1e-5)


def test_metadata_follow_the_slices(tmp_path: Path) -> None:
    def own(k: int) -> dict:
        return {"WindowCenter": 10 * k, "WindowWidth": 100, "RescaleSlope": k + 1, "RescaleIntercept": -k}

    write_series(tmp_path, PIXELS, names=NAMES, per_slice=own, PhotometricInterpretation="MONOCHROME1", **SERIES)
    image = load(tmp_path)
    assert image.dtype.is_floating_point
    for k in range(5):
        assert np.array_equal(image[0, :, :, k], PIXELS[k].T * (k + 1.0) - k)
        assert image.meta["voi"][k][0]["center"] == 10 * k
    assert np.allclose(image.meta["slice_positions"], [[-20, 30.5, 100.25 + 4 * k] for k in range(5)])
    assert (image.meta["inverted"], image.meta["modality"], image.meta["units"]) == (True, "CT", "HU")
    assert image.meta["has_geometry"]


def test_tilted_and_uneven_stacks_keep_the_place_of_every_slice(tmp_path: Path) -> None:
    heights = np.array([0, 3, 7, 12, 13.0])
    positions = np.stack([0 * heights, 0.3 * heights, heights], axis=1)
    write_series(tmp_path, PIXELS, names=NAMES, per_slice=lambda k: {"ImagePositionPatient": list(positions[k])})
    image = load(tmp_path)
    assert np.array_equal(image[0], PIXELS.transpose(2, 1, 0))
    assert np.allclose(image.meta["slice_positions"], positions)
    last = LPS_TO_RAS @ image.affine.numpy() @ [0, 0, 4, 1]
    assert np.allclose(last[:3], positions[-1])


def test_files_a_list_of_them_and_frames(tmp_path: Path) -> None:
    files = write_series(tmp_path / "series", PIXELS, **SERIES)
    assert np.array_equal(load(files[2])[0, :, :, 0], PIXELS[2].T)
    chosen = load([str(files[3]), str(files[1])])
    assert np.array_equal(chosen[0], PIXELS[[1, 3]].transpose(2, 1, 0))
    assert chosen.affine[2, 2] == pytest.approx(8)
    order = np.array([2, 0, 4, 1, 3])
    positions = np.outer(order, [0, 0, 2.5])
    frames = load(write_enhanced(tmp_path / "enhanced", PIXELS[order], positions))
    assert np.array_equal(frames[0], PIXELS.transpose(2, 1, 0))


def test_color_frames_are_channels(tmp_path: Path) -> None:
    rgb = RNG.integers(0, 256, (7, 6, 3), dtype=np.uint8)
    color = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    write_image(tmp_path / "us.dcm", rgb.tobytes(), Rows=7, Columns=6, BitsAllocated=8, Modality="US", **color)
    assert np.array_equal(load(tmp_path / "us.dcm")[..., 0], rgb.transpose(2, 1, 0))


def test_a_projection_has_no_geometry_and_lies_as_displayed(tmp_path: Path) -> None:
    image = load(write_image(tmp_path / "cr.dcm", PIXELS[0], Modality="CR"))
    assert np.array_equal(image[0, :, :, 0], PIXELS[0].T)
    assert not image.meta["has_geometry"]
    assert "slice_positions" not in image.meta
    assert nib.aff2axcodes(image.affine.numpy())[:2] == ("L", "P")  # right and down on the screen


def test_arguments_choose_a_series_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "one", PIXELS[:2], SeriesInstanceUID=uid("one"))
    write_series(tmp_path / "two", PIXELS[2:4], SeriesInstanceUID=uid("two"))
    assert np.array_equal(load(tmp_path, series=uid("two"))[0], PIXELS[2:4].transpose(2, 1, 0))
    with pytest.raises(PyrasegError, match="no argument serie_uid"):
        load(tmp_path, serie_uid=uid("two"))


# --- other formats ---


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_is_as_nibabel_reads_it(tmp_path: Path, suffix: str) -> None:
    affine = nib.affines.from_matvec(TURN @ np.diag([-0.8, 1.5, 3]), [5, -6, 7])  # left-handed
    nib.save(nib.Nifti1Image(PIXELS, affine), tmp_path / f"image{suffix}")
    image = load(tmp_path / f"image{suffix}")
    assert np.array_equal(image[0], PIXELS)
    assert np.allclose(image.affine, affine, atol=1e-5)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
def test_nrrd_and_metaimage_are_as_itk_reads_them(tmp_path: Path, suffix: str) -> None:
    image = itk.image_from_array(PIXELS)
    image.SetDirection(TURN)
    image.SetSpacing([0.8, 1.5, 3])
    image.SetOrigin([5, -6, 7])
    itk.imwrite(image, str(tmp_path / f"image{suffix}"))
    loaded = load(tmp_path / f"image{suffix}")
    assert np.array_equal(loaded[0], PIXELS.transpose(2, 1, 0))
    assert np.allclose(loaded.affine, itk_affine(image), atol=1e-5)


GRAY = RNG.integers(0, 256, (7, 6), dtype=np.uint8)
RGB = RNG.integers(0, 256, (7, 6, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (7, 6, 1), dtype=np.uint8)
PALETTE = RNG.integers(0, 256, (256, 3), dtype=np.uint8)


def palette_image() -> Image.Image:
    image = Image.fromarray(GRAY, mode="P")
    image.putpalette(PALETTE.tobytes())
    return image


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("gray.png", Image.fromarray(GRAY), GRAY),
        ("rgb.png", Image.fromarray(RGB), RGB),
        ("rgba.png", Image.fromarray(np.concatenate([RGB, ALPHA], axis=2)), RGB),
        ("gray_alpha.png", Image.fromarray(np.concatenate([GRAY[..., None], ALPHA], axis=2)), GRAY),
        ("palette.png", palette_image(), PALETTE[GRAY]),
        ("bits.png", Image.fromarray(GRAY > 127), 255 * (GRAY > 127)),
        ("16_bit.png", Image.fromarray(GRAY.astype(np.uint16) * 257), GRAY * 257.0),
        ("float.tif", Image.fromarray(GRAY / np.float32(3) - 40), GRAY / np.float32(3) - 40),
        ("UPPER.PNG", Image.fromarray(GRAY), GRAY),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_photographs(tmp_path: Path, name: str, image: Image.Image, expected: np.ndarray) -> None:
    image.save(tmp_path / name)
    loaded = load(tmp_path / name)
    expected = expected[..., None] if expected.ndim == 2 else expected
    assert np.array_equal(loaded, np.transpose(expected, (2, 1, 0)))  # (C, W, H)


def test_jpeg(tmp_path: Path) -> None:
    row, column = np.mgrid[:40, :56]
    ramp = np.stack([3 * row, 4 * column, row + column], axis=2).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "photo.jpg", quality=98, subsampling=0)
    assert np.abs(load(tmp_path / "photo.jpg").numpy() - ramp.transpose(2, 1, 0)).max() <= 4


def test_options_of_photographs(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "gray.png")
    assert np.array_equal(load(tmp_path / "gray.png", rgb=True), np.stack([GRAY.T] * 3))
    Image.fromarray(GRAY.astype(np.uint16) * 257).save(tmp_path / "16_bit.png")
    with pytest.raises(PyrasegError, match=r"16_bit\.png cannot be read as an image: its pixels have more than 8 bits"):
        load(tmp_path / "16_bit.png", rgb=True)


def test_a_photograph_lies_as_viewers_show_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # the first row lies at the right, the first column at the top
    Image.fromarray(np.ascontiguousarray(RGB[:, ::-1].swapaxes(0, 1))).save(tmp_path / "turned.png", exif=exif)
    for options in ({}, {"rgb": True}):
        loaded = load(tmp_path / "turned.png", **options)
        assert np.array_equal(loaded, RGB.transpose(2, 1, 0))
        assert loaded.meta["spatial_shape"].tolist() == [6, 7]


# --- refusals ---


def cut(path: Path, size: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(size * len(data))])


def duplicate_positions(path: Path) -> None:
    write_series(path, PIXELS, per_slice=lambda k: {"ImagePositionPatient": [0, 0, 0]})


def text(path: Path) -> None:
    path.write_text("This is no image.\n" * 50)


def empty(path: Path) -> None:
    path.touch()


def truncated_photograph(path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
    cut(path, 0.6)


def truncated_nifti(path: Path) -> None:
    nib.save(nib.Nifti1Image(RNG.integers(0, 999, (20, 20, 20)).astype(np.int16), np.eye(4)), path)
    cut(path, 0.6)


def truncated_itk(path: Path) -> None:
    itk.imwrite(itk.image_from_array(RNG.integers(0, 999, (20, 20, 20)).astype(np.int16)), str(path))
    cut(path, 0.6)


def missing(path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("series", duplicate_positions),
        ("gone", missing),
        ("gone.png", missing),
        ("text.dcm", text),
        *[(f"text{suffix}", text) for suffix in (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".jpg")],
        *[(f"empty{suffix}", empty) for suffix in (".nii.gz", ".nii", ".nrrd", ".png")],
        *[(f"cut{suffix}", truncated_nifti) for suffix in (".nii.gz", ".nii")],
        *[(f"cut{suffix}", truncated_itk) for suffix in (".nrrd", ".mha")],
        *[(f"cut{suffix}", truncated_photograph) for suffix in (".png", ".jpg", ".tif")],
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_stops_the_chain_and_names_the_file(tmp_path: Path, name: str, make: object) -> None:
    make(tmp_path / name)
    chain = Compose([LoadImaged("image", reader=READER, ensure_channel_first=True)])
    with pytest.raises(RuntimeError) as caught:
        chain({"image": str(tmp_path / name)})
    named = "slice_000.dcm" if make is duplicate_positions else str(tmp_path / name)
    assert named in str(mendable(caught.value))


# --- values that are not finite ---


def float_files(folder: Path, values: np.ndarray) -> dict[str, Path]:
    """Write a volume (W, H, D), and its first slice as a picture, in every format that holds floating-point numbers."""
    files = {name: folder / f"scan.{name}" for name in ("nii.gz", "nrrd", "mha", "tif")}
    nib.save(nib.Nifti1Image(values, np.eye(4)), files["nii.gz"])
    for name in ("nrrd", "mha"):
        itk.imwrite(itk.image_from_array(np.ascontiguousarray(values.T)), str(files[name]))
    Image.fromarray(np.ascontiguousarray(values[..., 0].T)).save(files["tif"])
    return files


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha", "tif"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outside_the_field_of_view_they_are_padding(suffix: str, value: float, tmp_path: Path) -> None:
    clean = RNG.normal(size=(8, 9, 4)).astype(np.float32)
    values = clean.copy()
    values[:2] = value
    found = load(float_files(tmp_path, values)[suffix])
    valid, expected = (values[..., 0], clean[..., 0]) if suffix == "tif" else (values, clean)
    missing = ~np.isfinite(valid)
    assert np.array_equal(found[0], np.where(missing, expected[~missing].min(), expected))
    assert found.meta["padding"] == missing.sum()


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha", "tif"])
def test_inside_they_are_refused(suffix: str, tmp_path: Path) -> None:
    values = np.zeros((8, 9, 4), np.float32)
    values[3, 4, 0] = np.nan
    path = float_files(tmp_path, values)[suffix]
    with pytest.raises(PyrasegError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message and "1 of" in message and "column 3, row 4, slice 0" in message


def test_what_overflows_single_precision_is_infinite(tmp_path: Path) -> None:
    values = np.zeros((8, 9, 4))
    values[3, 4, 0] = 1e39
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(PyrasegError) as caught:
        load(tmp_path / "a.nii")
    assert "1 of 288 pixels" in str(caught.value)


@pytest.mark.parametrize(("slope", "factor"), [(np.nan, 1), (0.0, 1), (2.0, 2)])
def test_a_slope_that_is_none_scales_nothing(slope: float, factor: int, tmp_path: Path) -> None:
    image = nib.Nifti1Image(PIXELS.T, np.eye(4))
    nib.save(image, tmp_path / "a.nii")
    written = bytearray((tmp_path / "a.nii").read_bytes())
    written[112:120] = np.array([slope, 0], "<f4").tobytes()  # scl_slope and scl_inter
    (tmp_path / "a.nii").write_bytes(written)
    assert np.array_equal(load(tmp_path / "a.nii")[0], factor * PIXELS.T)


@pytest.mark.parametrize(("slope", "inter"), [(np.inf, 0), (-np.inf, 0), (1, np.nan), (1, np.inf)])
def test_a_scale_that_is_not_finite_is_refused(slope: float, inter: float, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(PIXELS.T, np.eye(4)), tmp_path / "a.nii")
    written = bytearray((tmp_path / "a.nii").read_bytes())
    written[112:120] = np.array([slope, inter], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(written)
    with pytest.raises(PyrasegError) as caught:
        load(tmp_path / "a.nii")
    assert f"{tmp_path / 'a.nii'} cannot be read as an image" in str(caught.value)


def test_float_pixels_of_dicom_follow_the_same_rule(tmp_path: Path) -> None:
    values = RNG.normal(size=(6, 7)).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    found = load(write_image(tmp_path / "a.dcm", values, FloatPixelPaddingValue=float(values[3, 3])))
    padding = ~np.isfinite(values) | (values == values[3, 3])
    assert found.meta["padding"] == 4
    assert np.array_equal(found[0, ..., 0].T, np.where(padding, values[~padding].min(), values))
    values[2, 2] = np.nan
    with pytest.raises(PyrasegError) as caught:
        load(write_image(tmp_path / "b.dcm", values))
    assert f"{tmp_path / 'b.dcm'} holds NaN" in str(caught.value)
    assert "column 2, row 2" in str(caught.value)
