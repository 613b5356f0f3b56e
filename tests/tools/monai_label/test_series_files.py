# SPDX-License-Identifier: Apache-2.0
"""What clients get of a series, and what they send back, lie on its slices."""

import itk
import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import VLPhotographicImageStorage

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg_tools.monai_label.series_files import (
    SERIES,
    dicom_of,
    names_in,
    on_image,
    upright_copy,
    write_for_clients,
)
from tests.helpers import dicom_files as files

OBLIQUE = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0)


@pytest.fixture(params=["upright", "tilted"])
def series(tmp_path, request):
    pixels = np.random.default_rng(0).integers(-900, 900, (5, 6, 8)).astype(np.int16)
    step = {"slice_step": [0.3, 0.9, 3]} if request.param == "tilted" else {}
    files.write_series(tmp_path / "ct", pixels, orientation=OBLIQUE, **step)
    return read_series(tmp_path / "ct")


def test_nifti_holds_the_values_where_the_slices_lie(series, tmp_path):
    image = nibabel.load(write_for_clients(series, tmp_path / "1.2.3"))
    np.testing.assert_array_equal(image.get_fdata(), series.pixels.transpose(2, 1, 0))
    places = (image.affine @ [[0, 0], [0, 0], [0, 4], [1, 1]])[:3].T * [-1, -1, 1]
    np.testing.assert_allclose(places, series.geometry.positions[[0, -1]], atol=1e-4)


def test_itk_opens_it_with_its_voxel_sizes(series, tmp_path):
    """3D Slicer reads by ITK, which refuses axes that are not at right angles."""
    path = write_for_clients(series, tmp_path / "1.2.3")
    shown = itk.imread(path)
    np.testing.assert_array_equal(itk.array_from_image(shown), series.pixels)
    rows, columns = series.geometry.pixel_spacing
    np.testing.assert_allclose(shown.GetSpacing(), [columns, rows, series.geometry.gaps[0]], rtol=1e-5)
    np.testing.assert_allclose(shown.GetOrigin(), series.geometry.positions[0], atol=1e-4)


def test_a_label_on_it_comes_back_whatever_its_axes(series, tmp_path):
    truth = np.random.default_rng(1).integers(0, 3, series.pixels.shape).astype(np.uint8)
    image = nibabel.load(write_for_clients(series, tmp_path / "1.2.3"))
    label = nibabel.Nifti1Image(truth.transpose(2, 1, 0), image.affine)
    for number, orientation in enumerate([None, [[1, -1], [0, 1], [2, -1]], [[2, 1], [1, -1], [0, 1]]]):
        path = tmp_path / f"{number}.nii.gz"
        nibabel.save(label if orientation is None else label.as_reoriented(orientation), path)
        np.testing.assert_array_equal(on_image(path, series), truth)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, -1, 1e300])
def test_what_is_no_label_is_refused_and_not_rounded(series, tmp_path, value):
    image = nibabel.load(write_for_clients(series, tmp_path / "1.2.3"))
    nibabel.save(nibabel.Nifti1Image(np.full(image.shape, float(value)), image.affine), tmp_path / "label.nii")
    with pytest.raises(PyrasegError, match="not whole numbers" if np.isfinite(value) else "which is no class"):
        on_image(tmp_path / "label.nii", series)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz"])
def test_each_format_of_a_volume_is_read(series, tmp_path, suffix):
    truth = np.random.default_rng(1).integers(0, 3, series.pixels.shape).astype(np.uint8)
    label = itk.image_from_array(truth)
    label.CopyInformation(itk.imread(write_for_clients(series, tmp_path / "1.2.3")))
    itk.imwrite(label, tmp_path / f"label{suffix}")
    np.testing.assert_array_equal(on_image(tmp_path / f"label{suffix}", series), truth)


def test_a_photograph_is_a_png(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (6, 9, 3)).astype(np.uint8)
    dataset = files.make_image(
        picture.tobytes(), SOPClassUID=VLPhotographicImageStorage, Modality="XC", SamplesPerPixel=3,
        PhotometricInterpretation="RGB", PlanarConfiguration=0, Rows=6, Columns=9, FrameOfReferenceUID=None,
    )  # fmt: skip
    series = read_series(files.save(dataset, tmp_path / "photograph" / "1.dcm").parent)
    path = write_for_clients(series, tmp_path / "1.2.3")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    mask = (picture[..., 0] > 100).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(on_image(tmp_path / "mask.png", series), mask[None])


def test_our_bundles_read_the_dicom_files_beside_it(tmp_path):
    (tmp_path / f"1.2.3{SERIES}").mkdir()
    for suffix in (".nii.gz", ".png"):
        assert dicom_of(str(tmp_path / f"1.2.3{suffix}")) == str(tmp_path / f"1.2.3{SERIES}")
    assert dicom_of("elsewhere/1.2.3.nii.gz") == "elsewhere/1.2.3.nii.gz"


def test_a_photograph_that_is_stored_turned_is_served_upright(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 4, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6  # the first row lies at the right
    Image.fromarray(np.ascontiguousarray(pixels[:, ::-1].swapaxes(0, 1))).save(tmp_path / "a.v1.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "b.png")
    (tmp_path / "copies").mkdir()
    copy = upright_copy(tmp_path / "a.v1.png", tmp_path / "copies")
    with Image.open(copy) as shown:
        np.testing.assert_array_equal(np.asarray(shown), pixels)
        assert 274 not in shown.getexif()
    assert upright_copy(tmp_path / "a.v1.png", tmp_path / "copies") == copy
    for other in (tmp_path / "b.png", tmp_path / "gone.png", tmp_path / "a.nii.gz"):
        assert upright_copy(other, tmp_path / "copies") == other


def test_the_names_of_a_submitted_label_are_read_without_its_voxels(tmp_path):
    fields = "".join(
        f"Segment{number}_ID:=s{number}\nSegment{number}_Name:={name}\nSegment{number}_LabelValue:={value}\n"
        f"Segment{number}_Layer:=0\n"
        for number, (name, value) in enumerate([("liver", 3), ("lesion", 1)])
    )
    header = "NRRD0004\ntype: uint8\ndimension: 3\nspace: RAS\nsizes: 9 8 6\nencoding: raw\n" + fields + "\n"
    (tmp_path / "label.seg.nrrd").write_text(header)  # and none follow
    assert names_in(tmp_path / "label.seg.nrrd") == [{"name": "liver", "idx": 3}, {"name": "lesion", "idx": 1}]
    voxels = np.zeros((6, 8, 9), np.uint8)
    for name in ("label.nrrd", "label.mha"):
        itk.imwrite(itk.image_from_array(voxels), str(tmp_path / name))
        assert names_in(tmp_path / name) == []
