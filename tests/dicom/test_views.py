# SPDX-License-Identifier: Apache-2.0
"""The views of a study are inputs of their own, called by what they are."""

import numpy as np
import pytest
from pydicom.uid import (
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
)

from bundle.pyraseg.datalists.pairing import find_pairs
from bundle.pyraseg.dicom.scan import find_series
from bundle.pyraseg.dicom.series import SeriesStream, read_series
from bundle.pyraseg.dicom.source import read_sources
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from bundle.pyraseg.runtime.find import find_inputs
from bundle.pyraseg_tools.monai_label.archives import FolderArchive
from tests.helpers.dicom_files import (
    AXIAL,
    CORONAL,
    PATIENT,
    item,
    refusal,
    uid,
    write_enhanced,
    write_image,
    write_series,
)

RADIOGRAPH = {"Modality": "DX", "SOPClassUID": DigitalXRayImageStorageForPresentation, "FrameOfReferenceUID": None,
              **PATIENT}  # fmt: skip


def write_view(folder, name, rows=6, columns=8, **attributes):
    pixels = np.full((rows, columns), 100 + len(name), np.uint16)
    return write_image(folder / f"{name}.dcm", pixels, **{**RADIOGRAPH, "SOPInstanceUID": uid(name), **attributes})


def view_code(value):
    return {"ViewCodeSequence": item(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning="a view")}


MAMMOGRAM = {"Modality": "MG", "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation}
STUDIES = {
    "a chest": [({"ViewPosition": "PA"}, "PA"), ({"ViewPosition": "LL"}, "LL")],
    "a chest of other polarities and sizes": [
        ({"ViewPosition": "PA", "PhotometricInterpretation": "MONOCHROME1"}, "PA"),
        ({"ViewPosition": "LL", "rows": 9}, "LL"),
    ],
    "four mammograms": [
        ({**MAMMOGRAM, "ImageLaterality": side, "ViewPosition": view}, f"{side}_{view}")
        for side in "LR" for view in ("CC", "MLO")
    ],
    "mammograms by code": [
        ({**MAMMOGRAM, "ImageLaterality": "R", **view_code("399162004")}, "R_CC"),
        ({**MAMMOGRAM, "ImageLaterality": "L", **view_code("399368009")}, "L_MLO"),
    ],
    "computed radiographs by the way that rows run": [
        ({"Modality": "CR", "PatientOrientation": ["L", "F"]}, "frontal"),
        ({"Modality": "CR", "PatientOrientation": ["A", "F"]}, "lateral"),
    ],
    "hands": [({"Laterality": "L"}, "L"), ({"Laterality": "R"}, "R")],
    "a view with a space and a slash": [({"ViewPosition": "LL/ O"}, "LL-O"), ({"ViewPosition": "RAO"}, "RAO")],
    "radiographs that say nothing": [({}, ""), ({}, "")],
    "radiographs with a position": [
        ({"ViewPosition": view, "ImagePositionPatient": [0, 0, k], "ImageOrientationPatient": list(AXIAL),
          "PixelSpacing": [1, 1]}, view)
        for k, view in enumerate(["AP", "LAT"])
    ],
    "ultrasound": [({"Modality": "US"}, ""), ({"Modality": "US", "rows": 9}, "")],
    "photographs": [({"Modality": "XC"}, ""), ({"Modality": "XC", "Laterality": "L"}, "L")],
}  # fmt: skip


@pytest.mark.parametrize("study", STUDIES)
def test_each_view_is_an_input(tmp_path, study):
    views = STUDIES[study]
    files = [write_view(tmp_path / "in", f"{'ab'[k % 2]}{k}", **attributes) for k, (attributes, _) in enumerate(views)]
    items = find_inputs(tmp_path / "in")
    suffixes = [f"_{view}" * bool(view) for _, view in views]
    assert [item["name"] for item in items] == sorted(
        f"{file.stem}{suffix}" for file, suffix in zip(files, suffixes, strict=True)
    )
    by_file = {str(item["image"][0]): item["image"] for item in items}
    for file in files:
        alone = read_series(file)
        assert len(alone.pixels) == 1
        assert np.array_equal(read_series(by_file[str(file)]).pixels, alone.pixels)
        assert np.array_equal(list(SeriesStream(by_file[str(file)]).slices()), alone.pixels)


def test_the_folder_of_two_views_is_no_image_and_the_message_names_them(tmp_path):
    write_view(tmp_path, "a", ViewPosition="PA")
    write_view(tmp_path, "b", ViewPosition="LL")
    message = refusal(tmp_path)
    assert "2 series" in message
    assert "DX PA, 1 image" in message
    assert "DX LL, 1 image" in message
    named = find_series(tmp_path).series[1].uid
    assert read_series(tmp_path, series=named).files == (tmp_path / "b.dcm",)


def test_a_lone_view_is_called_as_its_file(tmp_path):
    write_view(tmp_path, "chest", ViewPosition="PA")
    assert [item["name"] for item in find_inputs(tmp_path)] == ["chest"]


def test_views_of_tomosynthesis_have_frames_of_their_own(tmp_path):
    pixels = np.zeros((3, 4, 5), np.uint16)
    for side, orientation in (("L", AXIAL), ("R", CORONAL)):
        about = {"Modality": "MG", "ImageLaterality": side, "ViewPosition": "CC", "SOPInstanceUID": uid(side)}
        normal = np.cross(orientation[:3], orientation[3:])
        write_enhanced(tmp_path / f"{side}.dcm", pixels, np.arange(3)[:, None] * normal, orientation=orientation,
                       **about, **PATIENT)  # fmt: skip
    assert [(series.view, series.frames) for series in find_series(tmp_path).series] == [("L_CC", 3), ("R_CC", 3)]
    for found in find_inputs(tmp_path):
        assert read_series(found["image"]).geometry.is_evenly_spaced


def test_slices_of_mammography_that_are_stored_as_ct_are_a_stack(tmp_path):
    write_series(tmp_path, np.zeros((4, 5, 6), np.int16), Modality="MG", SOPClassUID=CTImageStorage)
    assert read_series(tmp_path).pixels.shape == (4, 5, 6)


def test_a_concatenation_is_one_view(tmp_path):
    parts = {"Modality": "XA", "FrameOfReferenceUID": None, "ConcatenationUID": uid("concatenation")}
    for number in (1, 2):
        write_image(tmp_path / f"{number}.dcm", np.full((2, 4, 5), number, np.uint16), InConcatenationNumber=number,
                    SOPInstanceUID=uid(number), **parts)  # fmt: skip
    assert read_series(tmp_path).pixels.shape == (4, 4, 5)


def test_a_label_of_one_view_is_paired_with_it(tmp_path):
    for name, view in (("a", "PA"), ("b", "LL")):
        file = write_view(tmp_path, name, ViewPosition=view)
        mask = np.zeros((1, 6, 8), np.uint8)
        mask[0, 2, 3] = 1
        write_segmentation(tmp_path / f"{name}_seg.dcm", mask, read_sources([file]), [SegmentClass.organ("lung")])
    _, items = find_pairs(tmp_path)
    assert [(pair["patient"], pair["label"]) for pair in items] == [
        ("a.dcm_PA", str(tmp_path / "a_seg.dcm")), ("b.dcm_LL", str(tmp_path / "b_seg.dcm"))
    ]  # fmt: skip


def test_a_label_server_serves_each_view(tmp_path):
    for name, view in (("a", "PA"), ("b", "LL")):
        write_view(tmp_path / "studies", name, ViewPosition=view)
    archive = FolderArchive(tmp_path / "studies")
    served = archive.series()
    assert [one.uid for one in served] == [uid("a"), uid("b")]
    (tmp_path / "fetched").mkdir()
    archive.fetch(served[1], tmp_path / "fetched")
    assert read_series(tmp_path / "fetched").sop_instance_uids == (uid("b"),)
