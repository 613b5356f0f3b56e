# SPDX-License-Identifier: Apache-2.0
"""Sequences lie on the grid of the first: values against a linear field, and against SimpleITK."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.transforms import LoadImaged

from bundle.pyraseg.core import PyrasegError, SequencePaths
from bundle.pyraseg.transforms import MedicalImageReader, Windowd
from tests.helpers.dicom_files import uid, write_series
from tests.helpers.sequence_study import FLAIR, SEQUENCES, T1, write_patient

NAMES = ["t1", "flair"]


def field(points: np.ndarray) -> np.ndarray:
    """Return a field that linear interpolation reproduces: whole numbers at whole and half millimeters."""
    return 1000 + 4 * points[..., 0] - 8 * points[..., 1] + 12 * points[..., 2]


def read(parts, sequences=NAMES, **options):
    reader = MedicalImageReader(sequences=sequences, **options)
    load = LoadImaged("image", reader=reader, ensure_channel_first=True, expanduser=False)
    return load({"image": SequencePaths(parts) if isinstance(parts, dict) else parts})["image"]


def write_field(folder, grid, *, positions=None, orientation=(1, 0, 0, 0, 1, 0), frame="frame", **attributes):
    """Write a DICOM series of the field: on a grid, or with slices at uneven heights above it."""
    row, column = np.reshape(orientation, (2, 3)).astype(float)
    normal = np.cross(row, column)
    heights = np.arange(grid.shape[0]) * grid.spacing[0] if positions is None else np.asarray(positions, float)
    corners = np.array(grid.origin) + heights[:, None] * normal
    rows, columns = np.arange(grid.shape[1]) * grid.spacing[1], np.arange(grid.shape[2]) * grid.spacing[2]
    points = corners[:, None, None] + rows[:, None, None] * column + columns[:, None] * row
    values = field(points)
    write_series(
        folder, np.rint(values * 10).astype(np.int16), orientation=orientation, spacing=grid.spacing[1:],
        per_slice=lambda index: {"ImagePositionPatient": corners[index].tolist(), "RescaleSlope": 0.1},
        SeriesInstanceUID=uid(folder), FrameOfReferenceUID=uid(frame), **attributes,
    )  # fmt: skip
    return points


def inside(points: np.ndarray, grid, *, margin: float) -> np.ndarray:
    """Return which points lie within the centers of the outer voxels of a grid, and a margin in voxels."""
    indices = (points - np.array(grid.origin)) / np.array(grid.spacing)[::-1]
    return ((indices >= -margin) & (indices <= np.array(grid.shape)[::-1] - 1 + margin)).all(axis=-1)


@pytest.mark.parametrize(
    "positions", [None, [0, 4, 6, 13, 18, 25], [25, 18, 13, 6, 4, 0]], ids=["even", "uneven", "uneven and upside down"]
)
def test_a_linear_field_is_the_same_on_the_first_grid(tmp_path, positions):
    points = write_field(tmp_path / "t1", T1)
    write_field(tmp_path / "flair", FLAIR, positions=positions)
    image = read({"t1": str(tmp_path / "t1"), "flair": str(tmp_path / "flair")})
    assert image.shape == (2, *T1.shape[::-1]) and image.dtype == torch.float32
    values = image.numpy().transpose(0, 3, 2, 1)
    np.testing.assert_allclose(values[0], field(points), atol=0.06)
    covered = inside(points, FLAIR, margin=0)
    assert 0.5 < covered.mean() < 1
    np.testing.assert_allclose(values[1][covered], field(points)[covered], atol=0.1)
    outside = ~inside(points, FLAIR, margin=0.5)
    assert outside.any() and set(values[1][outside]) == {values[1].min()}
    assert image.meta["other_sequences"][0]["padding"] == outside.sum()


def test_an_oblique_sequence_lies_where_it_was_taken(tmp_path):
    points = write_field(tmp_path / "t1", T1)
    turned = np.array([[0.8, 0.6, 0], [-0.48, 0.64, 0.6]])
    grid = FLAIR._replace(shape=(24, 60, 60), spacing=(2.0, 1.0, 1.0), origin=(-2.0, -36.0, -16.0))
    write_field(tmp_path / "flair", grid, orientation=turned.ravel())
    values = read({"t1": str(tmp_path / "t1"), "flair": str(tmp_path / "flair")}).numpy().transpose(0, 3, 2, 1)
    axes = np.stack([*turned, np.cross(*turned)])
    indices = (points - np.array(grid.origin)) @ axes.T / np.array(grid.spacing)[::-1]
    covered = ((indices >= 0) & (indices <= np.array(grid.shape)[::-1] - 1)).all(axis=-1)
    assert covered.mean() > 0.3
    np.testing.assert_allclose(values[1][covered], field(points)[covered], atol=0.1)


def test_values_are_those_of_simpleitk(tmp_path):
    random = np.random.default_rng(0)
    affines = np.diag([1.0, 1.0, 2.0, 1.0]), np.diag([-1.5, 1.2, 5.0, 1.0])
    affines[1][:3, 3] = [17.0, -3.0, -4.0]
    shapes = (20, 24, 16), (18, 26, 9)
    files = []
    for name, shape, affine in zip(NAMES, shapes, affines, strict=True):
        files.append(tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(random.normal(size=shape).astype(np.float32), affine), files[-1])
    found = read({name: str(file) for name, file in zip(NAMES, files, strict=True)}).numpy()
    first, moving = (SimpleITK.ReadImage(str(file), SimpleITK.sitkFloat32) for file in files)
    far = -1000.0
    expected = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(moving, first, SimpleITK.Transform(), SimpleITK.sitkLinear, far)
    ).transpose(2, 1, 0)
    covered = expected != far
    assert 0.5 < covered.mean() < 1
    np.testing.assert_allclose(found[1][covered], expected[covered], atol=1e-4)


def test_on_the_same_grid_nothing_is_interpolated(tmp_path):
    random = np.random.default_rng(0)
    values = [random.normal(size=(7, 6, 5)).astype(np.float32) for _ in NAMES]
    affine = np.array([[0.7, 0.1, 0, 3], [-0.1, 0.7, 0, 1], [0, 0, 3.3, 9], [0, 0, 0, 1]])
    for name, own in zip(NAMES, values, strict=True):
        nib.save(nib.Nifti1Image(own, affine), tmp_path / f"{name}.nii")
    image = read({name: str(tmp_path / f"{name}.nii") for name in NAMES})
    np.testing.assert_array_equal(image.numpy(), np.stack(values))
    assert "padding" not in image.meta["other_sequences"][0]


def test_the_metadata_are_those_of_the_first(tmp_path):
    write_patient(tmp_path, 0)
    image, alone = read(str(tmp_path), SEQUENCES), read(str(tmp_path / "t1"), None)
    for name in ("series_uid", "frame_of_reference_uid", "sop_instance_uids", "series_description", "files"):
        assert image.meta[name] == alone.meta[name]
    np.testing.assert_array_equal(image.affine, alone.affine)
    assert image.meta["sequences"] == ["t1", "flair"] and image.meta["missing_sequences"] == ""


def test_another_frame_of_reference_is_refused(tmp_path):
    write_patient(tmp_path, 0, frame="another")
    with pytest.raises(PyrasegError, match=r"flair of .* has another frame of reference .* Register the sequences"):
        MedicalImageReader(sequences=SEQUENCES).get_data([tmp_path])


def test_a_sequence_that_lies_elsewhere_is_refused(tmp_path):
    affine = np.eye(4)
    nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.float32), affine), tmp_path / "t1.nii")
    affine[0, 3] = 300
    nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.float32), affine), tmp_path / "flair.nii")
    with pytest.raises(PyrasegError, match=r"flair\.nii.* lies elsewhere than .*t1\.nii"):
        MedicalImageReader(sequences=NAMES).get_data([tmp_path])


def test_a_missing_sequence_is_named_or_black(tmp_path, caplog):
    write_patient(tmp_path, 0, flair=False)
    with pytest.raises(PyrasegError, match=r"lacks the sequence flair \(\*FLAIR\*\)"):
        MedicalImageReader(sequences=SEQUENCES).get_data([tmp_path])
    image = read(str(tmp_path), SEQUENCES, allow_missing=True)
    assert image.meta["missing_sequences"] == "flair" and "lacks the sequence flair" in caplog.text
    shown = Windowd("image", windows=[{"percentiles": [1, 99]}], output_range=(-1, 1))({"image": image})["image"]
    assert shown.shape[0] == 2 and shown[0].max() == 1 and (shown[1] == -1).all()


def test_the_first_sequence_is_never_missing(tmp_path):
    write_patient(tmp_path, 0, flair=False)
    with pytest.raises(PyrasegError, match=r"lacks the sequence flair .* Results refer to flair"):
        MedicalImageReader(sequences={"flair": "*FLAIR*", "t1": "T1*"}, allow_missing=True).get_data([tmp_path])


def test_each_sequence_goes_through_its_own_windows(tmp_path):
    for name, low in (("t1", 0), ("flair", 1000)):
        values = low + np.arange(100, dtype=np.float32).reshape(5, 5, 4)
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / f"{name}.nii")
    windows = {  # in any order
        "flair": [{"percentiles": [0, 100]}, {"center": 1000, "width": 2000, "function": "LINEAR_EXACT"}],
        "t1": [{"center": 50, "width": 100, "function": "LINEAR_EXACT"}],
    }
    image = read({name: str(tmp_path / f"{name}.nii") for name in NAMES})
    shown = Windowd("image", windows=windows)({"image": image})["image"].numpy()
    values = np.arange(100, dtype=np.float32).reshape(5, 5, 4)
    np.testing.assert_allclose(shown, [values / 100, values / 99, (values + 1000) / 2000], atol=1e-6)


def test_percentiles_leave_out_what_another_sequence_does_not_cover(tmp_path):
    write_field(tmp_path / "t1", T1)
    write_field(tmp_path / "flair", FLAIR)
    image = read({"t1": str(tmp_path / "t1"), "flair": str(tmp_path / "flair")})
    values = image[1].numpy()
    points = T1.points()
    own = values.transpose(2, 1, 0)[inside(points, FLAIR, margin=0.5)]
    low, high = np.percentile(own, [10, 90])
    shown = Windowd("image", windows=[{"percentiles": [10, 90]}])({"image": image})["image"][1].numpy()
    np.testing.assert_allclose(shown, np.clip((values - low) / (high - low), 0, 1), atol=2e-3)


@pytest.mark.parametrize(
    ("parts", "sequences", "words"),
    [
        ({"t1": "t1.nii", "flair": "t1.nii"}, None, "has the sequences t1, flair, and this model takes one image"),
        ("t1.nii", NAMES, "is one image, and the model takes the sequences t1, flair"),
        ({"t1": "t1.nii", "t2": "t1.nii"}, NAMES, "has a sequence t2, and the model takes t1, flair"),
    ],
)
def test_images_that_are_not_those_of_the_model(tmp_path, parts, sequences, words):
    nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.float32), np.eye(4)), tmp_path / "t1.nii")
    paths = {name: str(tmp_path / file) for name, file in parts.items()} if isinstance(parts, dict) else parts
    given = SequencePaths(paths) if isinstance(paths, dict) else str(tmp_path / paths)
    reader = MedicalImageReader(sequences=sequences)
    with pytest.raises(PyrasegError, match=words):
        reader.get_data(reader.read(given))


def test_windows_of_other_sequences_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.float32), np.eye(4)), tmp_path / "t1.nii")
    image = read({"t1": str(tmp_path / "t1.nii"), "flair": str(tmp_path / "t1.nii")})
    with pytest.raises(PyrasegError, match=r"given for the sequences t1, t2, and the image .* has t1, flair"):
        Windowd("image", windows={"t1": ["brain"], "t2": ["brain"]})({"image": image})
