# SPDX-License-Identifier: Apache-2.0
"""Reading series, and refusing them, on real files written to disk."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
)

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.scan import find_series
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.dicom.voi import VoiWindow
from tests.helpers.dicom_files import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    item,
    make_image,
    save,
    uid,
    write_enhanced,
    write_image,
    write_series,
)

OBLIQUE = (0.6, 0.8, 0.0, 0.0, 0.0, -1.0)
STACK = np.random.default_rng(0).integers(-1000, 1000, (5, 32, 40), dtype=np.int16)


def refusal(path, **options):
    with pytest.raises(PyrasegError) as error:
        read_series(path, **options)
    message = str(error.value)
    assert "Secret" not in message
    assert "SECRET" not in message
    return message


# --- reading ---------------------------------------------------------------------------------------------------------


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
    assert not image.geometry.is_tilted
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
    assert image.padded == pytest.approx(3 / 20)
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
    assert geometry.is_tilted
    np.testing.assert_allclose(geometry.affine[:3, 2], [0, 1.5, 4])


def test_a_missing_slice_is_read_flagged_and_warned_of(tmp_path, caplog):
    write_series(tmp_path, STACK)[2].unlink()
    image = read_series(tmp_path)
    assert len(image.pixels) == 4
    assert not image.geometry.is_evenly_spaced
    assert "slice may be missing" in caplog.text
    assert "slice_001.dcm" in caplog.text


def test_images_without_position_stay_in_order(tmp_path):
    def number(k):
        return {"InstanceNumber": 3 - k, "ImagePositionPatient": None, "Modality": "CR"}

    write_series(tmp_path, STACK[:3], per_slice=number, PresentationIntentType="FOR PROCESSING")
    image = read_series(tmp_path)
    assert image.geometry is None
    assert image.for_processing
    np.testing.assert_array_equal(image.pixels, STACK[2::-1])


def test_color_is_rgb_of_8_bits(tmp_path):
    rgb = np.random.default_rng(1).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    attributes = {"Rows": 4, "Columns": 6, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    attributes |= {"NumberOfFrames": 2, "PlanarConfiguration": 0, "Modality": "US"}
    image = read_series(write_image(tmp_path / "a", rgb.tobytes(), **attributes))
    assert image.pixels.dtype == np.uint8
    np.testing.assert_array_equal(image.pixels, rgb)


def test_missing_uids_are_no_obstacle(tmp_path):
    none = dict.fromkeys(["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
    for folder in ("one", "two"):
        write_series(tmp_path / folder, STACK, per_slice=lambda k: none)
    scan = find_series(tmp_path)
    assert [(series.uid, series.has_uid, series.frames) for series in scan.series] == [
        ("no-uid:one:1", False, 5),
        ("no-uid:two:1", False, 5),
    ]
    image = read_series(tmp_path, series_uid="no-uid:two:1")
    assert image.series_uid == ""
    assert image.sop_instance_uids == ("",) * 5
    assert {file.parent.name for file in image.files} == {"two"}


def test_source_and_messages_hold_no_identity(tmp_path):
    write_series(tmp_path, STACK, ConvolutionKernel="B30f", BodyPartExamined="ABDOMEN", SliceThickness=3)
    image = read_series(tmp_path)
    assert image.source["ConvolutionKernel"] == "B30f"
    assert image.source["SliceThickness"] == 3.0
    assert "SECRET" not in str(image.source).upper()


# --- what lies beside the images -------------------------------------------------------------------------------------


def test_other_objects_are_skipped_and_counted(tmp_path):
    write_series(tmp_path, STACK)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "empty.dcm").write_bytes(b"")
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": list(CORONAL)}
    write_image(tmp_path / "scout.dcm", STACK[0], **scout)
    capture = {"SOPClassUID": SecondaryCaptureImageStorage, "SeriesInstanceUID": uid("dose")}
    write_image(tmp_path / "deep" / "dose.dcm", STACK[0], **capture)
    for modality in ("SR", "RTSTRUCT", "KO"):
        nothing = dict.fromkeys(["PixelData", "Rows", "Columns"])
        write_image(tmp_path / f"{modality}.dcm", STACK[0], Modality=modality, **nothing)
    write_image(tmp_path / "seg.dcm", STACK[0], Modality="SEG")
    write_image(tmp_path / "DICOMDIR", STACK[0], SOPClassUID=MediaStorageDirectoryStorage)
    scan = find_series(tmp_path)
    assert len(scan.series) == 1
    assert scan.skipped == {
        "not DICOM": 2,
        "localizer": 1,
        "screen capture": 1,
        "SR object": 1,
        "RTSTRUCT object": 1,
        "KO object": 1,
        "SEG object": 1,
        "DICOMDIR": 1,
    }
    assert [file.name for file in scan.skipped_files["screen capture"]] == ["dose.dcm"]
    np.testing.assert_array_equal(read_series(tmp_path).pixels, STACK)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_refuses_paths_without_images(tmp_path):
    assert "nowhere does not exist" in refusal(tmp_path / "nowhere")
    assert "empty folder" in refusal(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    write_image(tmp_path / "seg", STACK[0], Modality="SEG")
    assert "1 SEG object, 1 not DICOM" in refusal(tmp_path)


def test_refuses_several_series_without_a_choice(tmp_path):
    write_series(tmp_path / "a", STACK, SeriesInstanceUID="1.2.3")
    write_series(tmp_path / "b", STACK[:2], SeriesInstanceUID="1.2.4", SeriesDescription="Secret")
    message = refusal(tmp_path)
    assert "1.2.3 (CT, 5 slices of 32x40)" in message
    assert "1.2.4 (CT, 2 slices of 32x40)" in message
    assert "series_uid" in message
    assert len(read_series(tmp_path, series_uid="1.2.4").pixels) == 2
    assert "no series 1.2.5" in refusal(tmp_path, series_uid="1.2.5")


@pytest.mark.parametrize(
    ("keyword", "values", "wanted"),
    [
        ("AcquisitionNumber", (1, 2), 2),
        ("EchoTime", (4.6, 9.2), "9.2"),
        ("TemporalPositionIdentifier", (1, 2), 2.0),
        ("DiffusionBValue", (0.0, 800.0), 800),
        ("ContrastBolusAgent", (None, "AGENT"), "AGENT"),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]), ["ORIGINAL", "PRIMARY", "P"]),
    ],
)
def test_duplicate_positions_name_what_differs_and_select_chooses(tmp_path, keyword, values, wanted):
    for k, value in enumerate(values):
        own = {keyword: value, "ContentTime": f"10000{k}"}
        write_series(tmp_path, STACK + k, names=[f"{k}{i}" for i in range(5)], Modality="MR", **own)
    message = refusal(tmp_path)
    assert "10 slices lie in 5 places" in message
    assert "(00, 10 in the same one)" in message
    assert f"differ in {keyword}: " in message
    assert f"select={{'{keyword}'" in message
    np.testing.assert_array_equal(read_series(tmp_path, select={keyword: wanted}).pixels, STACK + 1)


def test_select_reaches_the_frames_of_an_enhanced_object(tmp_path):
    positions = [(0, 0, k // 2) for k in range(4)]
    path = write_enhanced(
        tmp_path / "a",
        STACK[:4],
        positions,
        per_frame=lambda k: {"FrameContentSequence": item(TemporalPositionIndex=k % 2 + 1)},
    )
    assert "differ in TemporalPositionIndex: 1 (2), 2 (2)" in refusal(path)
    image = read_series(path, select={"TemporalPositionIndex": 2})
    np.testing.assert_array_equal(image.pixels, STACK[[1, 3]])
    assert image.frame_numbers == (2, 4)


def test_select_that_finds_nothing_or_is_misspelt_is_refused(tmp_path):
    write_series(tmp_path, STACK, AcquisitionNumber=3)
    assert "no slice has AcquisitionNumber = 4. There are: 3 (5)" in refusal(tmp_path, select={"AcquisitionNumber": 4})
    assert "Did you mean AcquisitionNumber?" in refusal(tmp_path, select={"AquisitionNumber": 3})
    assert len(read_series(tmp_path, select={"ProtocolName": ""}).pixels) == 5  # any keyword, absent ones too


def test_refuses_the_same_slice_twice(tmp_path):
    files = write_series(tmp_path, STACK)
    (tmp_path / "copy.dcm").write_bytes(files[1].read_bytes())
    message = refusal(tmp_path)
    assert "copy.dcm, slice_001.dcm" in message
    assert "Remove the copies" in message


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
@pytest.mark.parametrize("lacking", [{2}, {0, 1, 2, 3, 4}])
def test_refuses_missing_positions(tmp_path, keyword, lacking):
    write_series(tmp_path, STACK, per_slice=lambda k: {keyword: None} if k in lacking else {})
    message = refusal(tmp_path)
    assert f"{len(lacking)} of 5 slices lack" in message
    assert keyword in message
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
    assert "slice_001.dcm: the pixel data cannot be decoded" in refusal(tmp_path / "size")
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


# --- the runtime shares this layer -----------------------------------------------------------------------------------


def test_the_layer_imports_numpy_and_pydicom_alone():
    code = (
        "import sys; import bundle.pyraseg.dicom.series; "
        "print([m for m in ('torch', 'monai', 'highdicom', 'scipy', 'nibabel') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_scan_reports_what_it_skips(tmp_path, caplog):
    write_series(tmp_path, STACK)
    (tmp_path / "notes.txt").write_text("not an image")
    with caplog.at_level(logging.INFO):
        read_series(tmp_path)
    assert "skipped 1 not DICOM" in caplog.text
