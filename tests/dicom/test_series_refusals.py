# SPDX-License-Identifier: Apache-2.0
"""Files that make no volume are refused, with the file and the attribute."""

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate

from bundle.pyraseg.dicom.scan import find_series
from bundle.pyraseg.dicom.series import SeriesStream, read_series
from tests.helpers.dicom_files import CORONAL, lut_item, make_image, refusal, save, write_image, write_series

STACK = np.random.default_rng(0).integers(-1000, 1000, (5, 32, 40), dtype=np.int16)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
@pytest.mark.parametrize("lacking", [{2}, {0, 1, 2, 3, 4}])
def test_refuses_missing_positions(tmp_path, keyword, lacking):
    write_series(tmp_path, STACK, per_slice=lambda k: {keyword: None} if k in lacking else {})
    message = refusal(tmp_path)
    assert f"{len(lacking)} of 5 slices lack {keyword} (slice" in message
    assert f"slice_{min(lacking):03d}.dcm" in message


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"ImageOrientationPatient": list(CORONAL)}, "orientations"),
        ({"PixelSpacing": [1, 2]}, "pixel spacings"),
        ({"FrameOfReferenceUID": "1.2.3.4"}, "frames of reference"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "polarities"),
    ],
)
def test_refuses_mixed_attributes(tmp_path, change, what):
    write_series(tmp_path, STACK, per_slice=lambda k: change if k == 3 else {})
    message = refusal(tmp_path)
    assert f"mixes {what}" in message
    assert "1 of 5, slice_003.dcm" in message


def test_refuses_mixed_sizes_and_color(tmp_path):
    write_series(tmp_path / "sizes", STACK)
    write_series(tmp_path / "sizes", STACK[:1, :16], names=["odd"], origin=(0, 0, 9))
    assert "mixes image sizes: 16x40 (1 of 6, odd); 32x40 (5 of 6" in refusal(tmp_path / "sizes")
    write_image(tmp_path / "color" / "gray", STACK[0])
    rgb = {
        "Rows": 32,
        "Columns": 40,
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
    }
    write_image(tmp_path / "color" / "rgb", bytes(32 * 40 * 3), **rgb)
    assert "gray and color" in refusal(tmp_path / "color")


def test_refuses_pixels_that_are_absent_undecodable_or_all_padding(tmp_path):
    write_series(tmp_path / "none", STACK, per_slice=lambda k: {"PixelData": None} if k == 1 else {})
    assert "slice_001.dcm: no pixel data" in refusal(tmp_path / "none")
    write_series(tmp_path / "size", STACK, per_slice=lambda k: {"PixelData": b"\0\0"} if k == 1 else {})
    assert "slice_001.dcm: the pixel data is 2558 bytes shorter" in refusal(tmp_path / "size")
    write_series(tmp_path / "padding", np.full((2, 4, 4), -2000, np.int16), PixelPaddingValue=-2000)
    assert "every pixel is padding" in refusal(tmp_path / "padding")


def test_refuses_a_file_cut_short(tmp_path):
    path = save(make_image(STACK[0]), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-500])
    assert "a.dcm" in refusal(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not orthonormal"),
        ({"ImagePositionPatient": [1, 2]}, "ImagePositionPatient is"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing is"),
    ],
)
def test_refuses_malformed_geometry(tmp_path, change, message):
    write_series(tmp_path, STACK, **change)
    refused = refusal(tmp_path)
    assert "slice_000.dcm" in refused
    assert message in refused


SLIDE, CONFOCAL = "1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.5.1.4.1.1.77.1.9"


@pytest.mark.parametrize("about", [{"SOPClassUID": SLIDE, "Modality": "SM"}, {"SOPClassUID": SLIDE, "Modality": "OT"},
                                   {"SOPClassUID": CONFOCAL, "Modality": "GM"}, {"Modality": "SM"}])  # fmt: skip
@pytest.mark.parametrize("levels", [1, 3])
def test_refuses_whole_slides_by_name(tmp_path, about, levels):
    tiles = {"Rows": 8, "Columns": 8, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    tiles |= {"PlanarConfiguration": 0, "FrameOfReferenceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", **about}
    for level in range(levels if about["Modality"] == "SM" else 1):
        write_image(tmp_path / f"{level}.dcm", bytes(8 * 8 * 3 * 4**level), NumberOfFrames=4**level, **tiles)
    message = refusal(tmp_path)
    assert "whole slide" in message
    assert "QuPath" in message
    assert len(find_series(tmp_path).series) == 1  # an input, whose reading fails


@pytest.mark.parametrize("syntax", ["100", "102", "104", "106"])
def test_refuses_videos_by_name(tmp_path, syntax):
    dataset = make_image(STACK, Modality="ES")
    dataset.PixelData = encapsulate([b"a stream of video" * 100])
    save(dataset, tmp_path / "a")
    written = pydicom.dcmread(tmp_path / "a")
    written.file_meta.TransferSyntaxUID = f"1.2.840.10008.1.2.4.{syntax}"
    written["PixelData"].is_undefined_length = True
    written.save_as(tmp_path / "a")
    assert "is a video (MPEG" in refusal(tmp_path)


@pytest.mark.parametrize("reader", [read_series, SeriesStream])
@pytest.mark.parametrize("lacking", ["RescaleSlope", "RescaleIntercept"])
def test_ct_that_states_no_scale_is_told_once(tmp_path, caplog, reader, lacking):
    write_series(tmp_path, STACK, per_slice=lambda k: {lacking: None} if k else {})
    reader(tmp_path)
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"{len(STACK) - 1} of {len(STACK)} slices" in told and "taken as Hounsfield units" in told


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("scale", [{"RescaleIntercept": -1024}, {"RescaleSlope": 2}])
def test_slices_of_which_only_some_are_scaled_are_refused(tmp_path, scale, modality):
    bare = {"RescaleSlope": None, "RescaleIntercept": None}
    write_series(tmp_path, STACK, per_slice=lambda k: scale if k else bare, Modality=modality)
    assert "slice_000.dcm) state no RescaleSlope or no RescaleIntercept" in refusal(tmp_path)


def test_other_images_need_no_scale_and_a_table_is_one(tmp_path, caplog):
    bare = {"RescaleSlope": None, "RescaleIntercept": None}
    write_series(tmp_path / "mr", STACK, **bare, Modality="MR")
    table = lut_item((2, 0, 16), [0, 1], ModalityLUTType="HU")
    write_series(tmp_path / "ct", STACK, **bare, ModalityLUTSequence=table)
    read_series(tmp_path / "mr")
    read_series(tmp_path / "ct")
    assert not caplog.records
