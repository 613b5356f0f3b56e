# SPDX-License-Identifier: Apache-2.0
"""Public files from real scanners: orientation against a label, pairs of encodings, and files broken on purpose."""

import nibabel as nib
import numpy as np
import pydicom
import pytest

from bundle.pyraseg.dicom.luts import apply_modality_lut, apply_voi_lut, read_voi
from bundle.pyraseg.dicom.pixels import decode_frames
from bundle.pyraseg.dicom.series import read_series

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's about these files

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
LIVER = 5


def test_jpeg_2000_series_without_uids_lies_under_its_label(real_data):
    image = read_series(real_data / "ct_abdomen" / "dicom")
    assert image.pixels.shape == (20, 512, 512)
    assert (image.units, image.geometry.slice_spacing) == ("HU", pytest.approx(2.0))
    assert image.source["SliceThickness"] == 3.0
    assert image.series_uid == ""
    labels = nib.load(real_data / "ct_abdomen" / "labels.nii.gz")
    kji = np.stack(np.meshgrid(*map(np.arange, image.pixels.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    to_label = np.linalg.inv(labels.affine) @ LPS_TO_RAS @ image.geometry.affine
    index = np.rint(kji[:, ::-1] @ to_label[:3, :3].T + to_label[:3, 3]).astype(int)
    assert (index >= 0).all()
    assert (index < labels.shape).all()
    mapped = np.asarray(labels.dataobj)[tuple(index.T)].reshape(image.pixels.shape)
    liver = image.pixels[mapped == LIVER]
    assert liver.size > 10_000
    assert liver.std() < 30  # 95.8 with the slices reversed, 375 with y flipped


def test_padding_of_a_real_series(real_data):
    folder = real_data / "ct_liver_dicom_seg" / "ct-3slice"
    image = read_series(folder)
    stored = np.stack([pydicom.dcmread(file).pixel_array for file in image.files])
    assert image.padding == (stored == -2000).sum() == pytest.approx(0.213 * stored.size, rel=0.01)
    valid = stored != -2000
    np.testing.assert_array_equal(image.pixels[valid], stored[valid] - 1024.0)
    assert np.unique(image.pixels[~valid]).tolist() == [stored[valid].min() - 1024.0]
    assert image.geometry.slice_spacing == pytest.approx(1.0)
    assert image.source["SliceThickness"] == 1.25


def test_lut_modules_agree_with_pydicom(real_data):
    # Within what pydicom does right: 16-bit output.
    modality = pydicom.dcmread(real_data / "dicom_robustness" / "mlut_18.dcm")
    stored = decode_frames(modality)[0]
    np.testing.assert_array_equal(
        apply_modality_lut(stored, modality), pydicom.pixels.apply_modality_lut(stored, modality)
    )
    voi = pydicom.dcmread(real_data / "dicom_robustness" / "vlut_04.dcm")
    stored = decode_frames(voi)[0]
    expected = pydicom.pixels.apply_voi(stored, voi) / 65535
    np.testing.assert_allclose(apply_voi_lut(stored, read_voi(voi)[0]), expected, atol=1e-6)


def test_multi_frame_equals_its_single_frames(real_data):
    folder = real_data / "ct_liver_dicom_seg" / "23x38x3"
    frames, single = read_series(folder / "multiframe"), read_series(folder / "image")
    np.testing.assert_array_equal(frames.pixels, single.pixels)
    np.testing.assert_allclose(frames.geometry.affine, single.geometry.affine)
    assert frames.frame_numbers == (1, 2, 3)


def test_enhanced_object_without_functional_groups_is_no_volume(real_data):
    image = read_series(real_data / "dicom_robustness" / "emri_small.dcm")
    assert image.geometry is None
    assert image.pixels.shape == (10, 64, 64)


def test_monochrome1_is_reported_and_not_applied(real_data):
    file = real_data / "dicom_robustness" / "RG3_J2KR.dcm"
    image = read_series(file)
    assert image.inverted
    np.testing.assert_array_equal(image.pixels[0], pydicom.dcmread(file).pixel_array)


def test_oblique_series(real_data):
    geometry = read_series(real_data / "ct_rtstruct" / "oriented_data").geometry
    assert geometry.slice_spacing == pytest.approx(4.5, abs=1e-5)
    np.testing.assert_allclose(geometry.positions[-1], [122.0159697, -428.1596334, 38.0798058])
