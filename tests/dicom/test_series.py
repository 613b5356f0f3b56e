# SPDX-License-Identifier: Apache-2.0
"""Series are read as their files have them: order, values, geometry."""

import subprocess
import sys

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
)

from bundle.pyraseg.dicom.luts import VoiWindow
from bundle.pyraseg.dicom.series import read_series
from tests.helpers.dicom_files import AXIAL, CORONAL, SAGITTAL, item, uid, write_enhanced, write_image, write_series

OBLIQUE = (0.6, 0.8, 0.0, 0.0, 0.0, -1.0)
STACK = np.random.default_rng(0).integers(-1000, 1000, (5, 32, 40), dtype=np.int16)


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, OBLIQUE, (-1, 0, 0, 0, -1, 0), (1, 0, 0, 0, -1, 0)])
def test_slices_are_sorted_by_position_not_by_name_or_number(tmp_path, orientation):
    names = ["e", "b.dcm", "zz", "a", "c.ima"]
    files = write_series(
        tmp_path,
        STACK,
        orientation=orientation,
        origin=(5, 6, 7),
        spacing=(0.5, 0.75),
        slice_step=2.5,
        names=names,
        per_slice=lambda k: {"InstanceNumber": 99 - k, "SliceThickness": 7, "GantryDetectorTilt": 12},
    )
    image = read_series(tmp_path)
    np.testing.assert_array_equal(image.pixels, STACK)
    assert image.pixels.dtype == np.float32
    assert image.files == tuple(files)
    assert image.frame_numbers == (1,) * 5
    assert image.sop_instance_uids == tuple(uid(tmp_path, name) for name in names)
    assert image.geometry.pixel_spacing == (0.5, 0.75)
    assert image.geometry.slice_spacing == pytest.approx(2.5)
    np.testing.assert_allclose(image.geometry.positions[0], [5, 6, 7])
    assert (image.modality, image.units, image.series_uid) == ("CT", "HU", uid("series"))


def test_reversed_acquisition_comes_back_along_the_normal(tmp_path):
    write_series(tmp_path, STACK, slice_step=-2.0)
    image = read_series(tmp_path)
    np.testing.assert_array_equal(image.pixels, STACK[::-1])
    assert image.geometry.slice_spacing == pytest.approx(2)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, JPEG2000Lossless])
def test_transfer_syntaxes(tmp_path, syntax):
    write_series(tmp_path, STACK, syntax=syntax)
    np.testing.assert_array_equal(read_series(tmp_path).pixels, STACK)


def test_files_without_preamble_and_meta_header(tmp_path):
    write_series(tmp_path, STACK, meta=False, names=["1", "2", "3", "4", "5"])
    np.testing.assert_array_equal(read_series(tmp_path).pixels, STACK)


def test_single_file(tmp_path):
    files = write_series(tmp_path, STACK)
    image = read_series(files[3])
    np.testing.assert_array_equal(image.pixels, STACK[3:4])
    assert image.geometry.slice_spacing is None


def test_rescale_and_windows_vary_by_slice(tmp_path):
    write_series(
        tmp_path,
        STACK,
        per_slice=lambda k: {"RescaleSlope": k + 1, "RescaleIntercept": -k, "WindowCenter": k, "WindowWidth": 10},
    )
    image = read_series(tmp_path)
    np.testing.assert_array_equal(image.pixels, [(k + 1.0) * STACK[k] - k for k in range(5)])
    assert image.voi == tuple((VoiWindow(k, 10),) for k in range(5))


def test_enhanced_frames_are_sorted_and_rescaled_one_by_one(tmp_path):
    heights = [4.0, 0.0, 8.0, 2.0, 6.0]
    path = write_enhanced(
        tmp_path / "enhanced",
        STACK,
        [(0, 0, z) for z in heights],
        spacing=(0.5, 0.75),
        per_frame=lambda k: {"PixelValueTransformationSequence": item(RescaleSlope=1, RescaleIntercept=100 * k)},
    )
    image = read_series(path)
    order = np.argsort(heights)
    np.testing.assert_array_equal(image.pixels, STACK[order] + 100.0 * order[:, None, None])
    assert image.frame_numbers == tuple(order + 1)
    assert set(image.files) == {path}
    assert image.geometry.pixel_spacing == (0.5, 0.75)
    assert image.geometry.slice_spacing == pytest.approx(2)


def test_frames_without_functional_groups_are_no_volume(tmp_path):
    path = write_image(tmp_path / "a", STACK, ImagePositionPatient=[0, 0, 0], Modality="MR")
    image = read_series(path)
    assert image.geometry is None
    np.testing.assert_array_equal(image.pixels, STACK)
    assert image.units == ""


def test_padding_takes_the_smallest_valid_value_of_the_series(tmp_path):
    stack = np.full((2, 2, 5), 500, np.int16)
    stack[0, 0, 0] = -2000
    stack[1, 0, :2] = -2000
    stack[1, 1, 1] = -900
    write_series(tmp_path, stack, RescaleIntercept=-24, PixelPaddingValue=-2000)
    image = read_series(tmp_path)
    assert image.padding == 3
    expected = np.where(stack == -2000, -900, stack) - 24.0
    np.testing.assert_array_equal(image.pixels, expected)


def test_polarity_is_reported_and_not_applied(tmp_path):
    write_series(tmp_path, STACK, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    image = read_series(tmp_path)
    assert image.inverted
    np.testing.assert_array_equal(image.pixels, STACK)


def test_a_conflict_of_polarity_is_warned_of_once(tmp_path, caplog):
    write_series(tmp_path, STACK, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="IDENTITY")
    assert not read_series(tmp_path).inverted
    assert caplog.text.count("contradicts") == 1


def test_tilt_is_kept_as_a_sheared_affine(tmp_path):
    write_series(tmp_path, STACK, slice_step=(0, 1.5, 4))
    geometry = read_series(tmp_path).geometry
    np.testing.assert_allclose(geometry.affine[:3, 2], [0, 1.5, 4])


def test_a_missing_slice_is_read_flagged_and_warned_of(tmp_path, caplog):
    write_series(tmp_path, STACK)[2].unlink()
    image = read_series(tmp_path)
    assert len(image.pixels) == 4
    assert not image.geometry.is_evenly_spaced
    assert "slice may be missing" in caplog.text
    assert "slice_001.dcm" in caplog.text


def test_color_is_rgb_of_8_bits(tmp_path):
    rgb = np.random.default_rng(1).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    attributes = {"Rows": 4, "Columns": 6, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    attributes |= {"NumberOfFrames": 2, "PlanarConfiguration": 0, "Modality": "US"}
    image = read_series(write_image(tmp_path / "a", rgb.tobytes(), **attributes))
    assert image.pixels.dtype == np.uint8
    np.testing.assert_array_equal(image.pixels, rgb)


def test_source_and_messages_hold_no_identity(tmp_path):
    write_series(tmp_path, STACK, ConvolutionKernel="B30f", BodyPartExamined="ABDOMEN", SliceThickness=3)
    image = read_series(tmp_path)
    assert image.source["ConvolutionKernel"] == "B30f"
    assert image.source["SliceThickness"] == 3.0
    assert "SECRET" not in str(image.source).upper()


def test_the_layer_imports_numpy_and_pydicom_alone():
    code = (
        "import sys; import bundle.pyraseg.dicom.series; "
        "print([m for m in ('torch', 'monai', 'highdicom', 'scipy', 'nibabel') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
