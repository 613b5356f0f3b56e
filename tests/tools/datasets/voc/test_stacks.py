# SPDX-License-Identifier: Apache-2.0
"""What is read together, which label belongs to it, and what it is called."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.scan import find_series
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from bundle.pyraseg_tools.datasets.voc.stacks import KEYWORDS, Plan, plan_stacks, read_table
from tests.helpers.dicom_files import uid, write_image, write_series

PATIENT = dict.fromkeys(["PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "ReferringPhysicianName"], "")
PATIENT |= {"StudyDate": "20240101", "StudyTime": "120000", "SeriesNumber": 1, "SliceThickness": 1}
GRAY = np.zeros((2, 8, 6), np.int16)


def make_series(folder: Path, name: str, patient: str = "A") -> list[Path]:
    """Write a series of two slices with UIDs of its own."""
    uids = {
        "SeriesInstanceUID": uid(name),
        "StudyInstanceUID": uid("study", name),
        "FrameOfReferenceUID": uid("f", name),
    }
    return write_series(folder, GRAY, **uids, **PATIENT, PatientID=patient)


def make_seg(path: Path, images: list[Path]) -> Path:
    mask = np.ones(GRAY.shape, np.uint8)
    write_segmentation(path, mask, [pydicom.dcmread(file) for file in images], [SegmentClass.organ("liver")])
    return path


def plan(root: Path, **options: object) -> Plan:
    return plan_stacks(find_series(root, keywords=KEYWORDS), **options)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree of two patients' series, the first with a SEG that lies elsewhere."""
    make_seg(tmp_path / "labels.dcm", make_series(tmp_path / "x" / "ct", "one", "A"))
    make_series(tmp_path / "y" / "ct", "two", "B")
    return tmp_path


def test_a_seg_belongs_to_the_series_it_refers_to(tree):
    found = plan(tree)
    assert {stack.series_uid: stack.labels for stack in found.stacks} == {
        uid("one"): (tree / "labels.dcm",),
        uid("two"): (),
    }
    assert {stack.name for stack in found.stacks} == {"p0001_s01", "p0002_s01"}
    assert not any(stack.labels for stack in plan(tree, with_labels=False).stacks)


def test_a_seg_of_absent_images_is_told(tree, tmp_path):
    away = make_series(tmp_path.parent / f"{tmp_path.name}_away", "three")
    make_seg(tree / "orphan.dcm", away)
    assert plan(tree).orphans == (tree / "orphan.dcm",)


def test_two_segs_wait_for_a_choice(tree):
    make_seg(tree / "other.dcm", sorted((tree / "x" / "ct").iterdir()))
    (stack,) = [stack for stack in plan(tree).stacks if stack.series_uid == uid("one")]
    assert stack.labels == (tree / "labels.dcm", tree / "other.dcm")
    table = [{"series": "x/ct", "label": str(tree / "other.dcm")}]
    (stack,) = [stack for stack in plan(tree, table=table).stacks if stack.series_uid == uid("one")]
    assert stack.labels == (tree / "other.dcm",)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("../label.nii.gz", "y/label.nii.gz"),
        ("../../masks/{folder}.nii", "masks/ct.nii"),
        ("{stem}.nrrd", "y/ct/slice_000.nrrd"),
        ("../../{series_uid}/m.nii", f"{uid('two')}/m.nii"),
    ],
)
def test_a_pattern_finds_what_lies_by_the_series(tree, pattern, name):
    (tree / name).parent.mkdir(exist_ok=True)
    (tree / name).touch()
    (stack,) = [stack for stack in plan(tree, label_pattern=pattern).stacks if stack.series_uid == uid("two")]
    assert stack.labels == (tree / name,)


def test_a_pattern_that_is_none_is_refused(tree):
    with pytest.raises(PyrasegError, match=r"label pattern '\{patient\}.nii' may hold \{folder\}, \{stem\}"):
        plan(tree, label_pattern="{patient}.nii")


def test_projections_of_one_series_stand_alone(tmp_path):
    """A lateral and a frontal radiograph have no place in common and may differ in size."""
    shared = {"SeriesInstanceUID": uid("cr"), "Modality": "CR", "PatientID": "A"}
    for number in range(2):
        pixels = np.zeros((8 + number, 6), np.uint16)
        write_image(tmp_path / f"{number}.dcm", pixels, SOPInstanceUID=uid("cr", number), **shared)
    assert [stack.name for stack in plan(tmp_path).stacks] == ["p0001_s01", "p0001_s02"]
    (tmp_path / "1.png").touch()
    assert [stack.labels for stack in plan(tmp_path, label_pattern="{stem}.png").stacks] == [(), (tmp_path / "1.png",)]


@pytest.mark.parametrize("modality", ["XA", "MR"])
def test_a_concatenation_without_a_place_is_one_stack(tmp_path, modality):
    """Its parts are one image (PS3.3 C.7.6.16.1.3); what stands beside it in the series is another one."""
    for number in range(3):
        part = {"ConcatenationUID": uid("concatenation"), "InConcatenationNumber": number + 1} if number < 2 else {}
        write_image(tmp_path / f"{number}.dcm", np.zeros((2, 8, 6), np.uint16), SOPInstanceUID=uid("part", number),
                    Modality=modality, FrameOfReferenceUID=None, PatientID="A", **part)  # fmt: skip
    found = [tuple(file.name for file in stack.files) for stack in plan(tmp_path).stacks]
    assert sorted(found) == [("0.dcm", "1.dcm"), ("2.dcm",)]


# --- the table ---


def write_table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_table_says_patient_label_and_phase(tree, tmp_path):
    (tree / "y" / "l.nii").touch()
    rows = f"series,label,patient,select\nx/ct,,P7,\n{uid('two')},y/l.nii,P7,AcquisitionNumber=1\n"
    rows += f"{uid('two')},y/l.nii,P7,AcquisitionNumber=2; EchoTime=4.6\n"
    stacks = plan(tree, table=read_table(write_table(tmp_path / "t.csv", rows))).stacks
    assert [stack.name for stack in stacks] == ["p0001_s01", "p0001_s02", "p0001_s03"]  # one patient
    assert [stack.labels for stack in stacks] == [(), (tree / "y/l.nii",), (tree / "y/l.nii",)]
    assert stacks[2].select == {"AcquisitionNumber": "2", "EchoTime": "4.6"}


def test_a_series_is_named_as_people_call_it(tree, tmp_path):
    for file in (tree / "y" / "ct").iterdir():
        dataset = pydicom.dcmread(file)
        dataset.SeriesNumber, dataset.SeriesDescription = 12, "Portal venous"
        dataset.save_as(file)
    rows = "series,select,drawn_on\nportal*,EchoTime=2,frame_of_reference\n"
    first, second = plan(tree, table=read_table(write_table(tmp_path / "t.csv", rows)), select={"EchoTime": "1"}).stacks
    assert (first.select, first.drawn_on) == ({"EchoTime": "1"}, "")
    assert (second.series_uid, second.select, second.drawn_on) == (uid("two"), {"EchoTime": "2"}, "frame_of_reference")
    (chosen,) = plan(tree, series=["12"]).stacks
    assert chosen.series_uid == uid("two")
    with pytest.raises(PyrasegError, match="--series arterial means none of the series"):
        plan(tree, series=["arterial"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("series\nx/ct\n", "has the columns series"),
        ("series;label\nx/ct;l.nii\n", "has the columns series;label"),
        ("series,patientid\nx/ct,1\n", "has the columns series, patientid"),
        ("series,label\nx/ct,l.nii,more\n", "or a row with more or fewer"),
        ("series,label\nx/ct\n", "or a row with more or fewer"),
        ("series,label\nx/ct,l.nii\n", r"names the label .*l\.nii, which does not exist"),
        ("series,patient\nz/ct,1\n", "The table names 'z/ct', which is no series below"),
        ("series,select\nx/ct,AcquisitionNumber\n", "such as AcquisitionNumber=2"),
        ("series,drawn_on\nx/ct,study\n", "'study' under drawn_on; it can be series or frame_of_reference"),
        ("series,patient\n1,P\n", "'1', which is 2 series, name one by its UID"),
    ],
)
def test_refused_tables(tree, tmp_path, text, message):
    with pytest.raises(PyrasegError, match=message):
        plan(tree, table=read_table(write_table(tmp_path / "t.csv", text)))


def test_a_folder_of_several_series_is_not_clear(tree, tmp_path):
    for file in (tree / "y" / "ct").iterdir():
        file.rename(tree / "x" / "ct" / f"y{file.name}")
    with pytest.raises(PyrasegError, match="'x/ct', which is 2 series, name one by its UID"):
        plan(tree, table=[{"series": "x/ct", "patient": "1"}])


def test_no_table(tmp_path):
    with pytest.raises(PyrasegError, match=r"There is no file .*gone\.csv\. Write a table with 'series'"):
        read_table(tmp_path / "gone.csv")
