# SPDX-License-Identifier: Apache-2.0
"""Which image a label belongs to: one table of cases, which everything that asks answers alike.

The truth is the standard's (PS3.3 C.7.6.16.2.6, C.8.8.5, C.8.8.6, C.12.4): what each case expects is written beside it.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai.transforms import Compose, LoadImaged
from pydicom.dataset import Dataset

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.datalists.pairing import find_pairs
from bundle.pyraseg.dicom import find_series, read_series
from bundle.pyraseg.labels import ClassTable, ImageGrid, ImageUids, read_dicom_label, read_references
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from bundle.pyraseg.transforms import LabelReader, LoadLabeld
from bundle.pyraseg_tools.datasets.voc.stacks import KEYWORDS, plan_stacks
from bundle.pyraseg_tools.monai_label.archives import FolderArchive
from bundle.pyraseg_tools.pacs import RemoteSeries, label_of, labels_by_series
from tests.helpers.dicom_files import item, uid, write_series
from tests.helpers.structure_sets import write_structure_set

CLASSES = ["background", "liver"]
MASK = np.pad(np.ones((2, 3, 4), np.uint8), ((0, 0), (2, 3), (1, 3)))  # 2 slices of 8 x 8
SQUARE = np.array([[1, 1, 0], [5, 1, 0], [5, 5, 0], [1, 5, 0]], float)
PATIENT = dict.fromkeys(["PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "ReferringPhysicianName"], "")
PATIENT |= {"StudyDate": "20240101", "StudyTime": "120000", "SeriesNumber": 1, "SliceThickness": 1}


@dataclass(frozen=True)
class Case:
    """Hold what a label names, by the letters of the series a and b, "x" for one that is not there, and the truth.

    Attributes:
        instances: that frames or contours name.
        listed: instances that the object as a whole lists.
        series: that it names.
        frame: of reference: "a", "b", "x" or "".
        accepts: the series on which the label is read where it is given as theirs.
        finds: the series that it is found for among both.
        shared: whether both series lie in one frame of reference.
        lacks: UIDs that the series have not.
        kinds: of the label.
    """

    instances: str
    listed: str
    series: str
    frame: str
    accepts: str
    finds: str
    shared: bool = False
    lacks: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ("SEG", "RTSTRUCT")


CASES = {
    "everything": Case("a", "a", "a", "a", accepts="a", finds="a"),
    "instances alone": Case("a", "", "", "", accepts="a", finds="a", kinds=("RTSTRUCT",)),
    "instances and a frame": Case("a", "", "", "a", accepts="a", finds="a"),
    "listed instances": Case("", "a", "a", "a", accepts="a", finds="a"),
    "instances against the series": Case("a", "", "b", "a", accepts="a", finds="a", shared=True),
    "frames before the list": Case("a", "ab", "ab", "a", accepts="a", finds="a", shared=True),
    "series alone": Case("", "", "a", "", accepts="a", finds="a", kinds=("RTSTRUCT",)),
    "series and frame": Case("", "", "a", "a", accepts="ab", finds="a", shared=True),  # b as a that was exported anew
    "other images of the series": Case("x", "x", "a", "a", accepts="", finds=""),
    "a made-up frame": Case("a", "a", "a", "x", accepts="a", finds="a"),
    "a made-up frame, and the series": Case("", "", "a", "x", accepts="a", finds="a"),
    "a frame of one series": Case("", "", "", "a", accepts="a", finds="a"),
    "a frame of both": Case("", "", "", "a", accepts="ab", finds="", shared=True),
    "images elsewhere in the frame": Case("x", "x", "x", "a", accepts="", finds=""),
    "images elsewhere": Case("x", "x", "x", "x", accepts="", finds=""),
    "a frame elsewhere": Case("", "", "", "x", accepts="", finds=""),
    "nothing": Case("", "", "", "", accepts="ab", finds="", kinds=("RTSTRUCT",)),
    "two series": Case("ab", "ab", "ab", "a", accepts="ab", finds="ab", shared=True),
    "no instances to compare": Case("a", "a", "a", "a", accepts="a", finds="a", lacks=("SOPInstanceUID",)),
    "no frames to compare": Case("", "", "", "a", accepts="ab", finds="", lacks=("FrameOfReferenceUID",)),
    "no series to compare": Case("a", "a", "a", "a", accepts="a", finds="a", lacks=("SeriesInstanceUID",)),
}
TABLE = [
    pytest.param(case, kind, id=f"{name}, {kind}") for name, case in CASES.items() for kind in case.kinds
]  # fmt: skip


def frame_uid(name: str, case: Case) -> str:
    return uid("frame", "a" if case.shared and name == "b" else name)


def write_images(root: Path, case: Case) -> dict[str, Path]:
    """Write two series of the same place and size, and return their folders."""
    for name in "ab":
        uids = {"StudyInstanceUID": uid("study", name), "SeriesInstanceUID": uid("series", name)}
        uids |= {"FrameOfReferenceUID": frame_uid(name, case)} | dict.fromkeys(case.lacks)
        numbered = {} if "SOPInstanceUID" in case.lacks else {"per_slice": lambda k, n=name: own_uid(n, k)}
        write_series(root / name, np.zeros(MASK.shape, np.int16), **numbered, **uids, **PATIENT, PatientID=name)
    return {name: root / name for name in "ab"}


def own_uid(name: str, index: int) -> dict[str, str]:
    return {"SOPInstanceUID": uid("image", name, index)}


def references(names: str) -> list[Dataset]:
    return [
        item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID=uid("image", name, k))[0]
        for name in names
        for k in range(2)
    ]


def write_label(path: Path, case: Case, kind: str) -> Path:
    """Write a valid label of the two slices, and make it name what the case says."""
    if kind == "SEG":
        sources = [
            pydicom.dcmread(file)
            for file in write_series(
                path.parent / f".{path.name}", np.zeros(MASK.shape, np.int16), **PATIENT, PatientID="a"
            )
        ]
        write_segmentation(path, MASK, sources, [SegmentClass.organ("liver")])
        for file in (path.parent / f".{path.name}").iterdir():
            file.unlink()
        label = pydicom.dcmread(path)
        for frame in label.PerFrameFunctionalGroupsSequence:
            if case.instances:
                frame.DerivationImageSequence[0].SourceImageSequence = references(case.instances)
            else:
                del frame.DerivationImageSequence
        label.ReferencedSeriesSequence = [
            item(
                SeriesInstanceUID=uid("series", name), ReferencedInstanceSequence=references(name * bool(case.listed))
            )[0]
            for name in case.series
        ]
        label.FrameOfReferenceUID = frame_uid(case.frame, case) if case.frame else ""
        del label.SourceImageSequence
    else:
        contours = [SQUARE, SQUARE + np.array([0, 0, 1])]
        write_structure_set(path, {"liver": contours}, series_uid="", frame_of_reference_uid="")
        label = pydicom.dcmread(path)
        frame = label.ReferencedFrameOfReferenceSequence[0]
        frame.FrameOfReferenceUID = frame_uid(case.frame, case) if case.frame else ""
        label.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = frame.FrameOfReferenceUID
        frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence = [
            item(SeriesInstanceUID=uid("series", name), ContourImageSequence=references(name * bool(case.listed)))[0]
            for name in case.series
        ]
        if case.instances:
            for k, contour in enumerate(label.ROIContourSequence[0].ContourSequence):
                contour.ContourImageSequence = references(case.instances)[k::2]
    label.PatientID, label.StudyInstanceUID, label.SeriesInstanceUID = "a", uid("study", "a"), uid("label")
    label.save_as(path)
    return path


@pytest.fixture
def made(tmp_path: Path, case: Case, kind: str) -> tuple[dict[str, Path], Path]:
    """Return the folders of the two series, and the label."""
    return write_images(tmp_path, case), write_label(tmp_path / "label.dcm", case, kind)


@pytest.mark.parametrize(("case", "kind"), TABLE)
def test_a_label_that_is_given_as_that_of_an_image(made: tuple, case: Case) -> None:
    folders, label = made

    def by_function(folder: Path) -> np.ndarray:
        return read_dicom_label(label, ImageGrid.of(read_series(folder)), ClassTable(CLASSES)).transpose(2, 1, 0)

    def by_reader(folder: Path) -> np.ndarray:  # of the conversion to VOC
        return LabelReader(class_names=CLASSES).read(label, read_series(folder))

    def by_training(folder: Path) -> np.ndarray:
        reader = "bundle.pyraseg.transforms.MedicalImageReader"
        load = Compose(
            [LoadImaged("image", reader=reader, ensure_channel_first=True), LoadLabeld("label", class_names=CLASSES)]
        )
        return np.asarray(load({"image": str(folder), "label": str(label)})["label"])[0]

    for user in (by_function, by_reader, by_training):
        for name, folder in folders.items():
            if name in case.accepts:
                assert user(folder).any(), (user, name)
            else:
                with pytest.raises((PyrasegError, RuntimeError)) as refused:
                    user(folder)
                cause = refused.value if isinstance(refused.value, PyrasegError) else refused.value.__cause__
                assert isinstance(cause, PyrasegError) and "label.dcm" in str(cause) and "Give " in str(cause)


@pytest.mark.parametrize(("case", "kind"), TABLE)
def test_a_data_list_finds_the_image(made: tuple, case: Case, tmp_path: Path) -> None:
    if len(case.finds) == 1:
        assert [Path(found["image"]).name for found in find_pairs(tmp_path)[1]] == [case.finds]
    else:
        message = "refers to 2 of the series in the folder" if case.finds else "2 image series, but none with a label"
        with pytest.raises(PyrasegError, match=message):
            find_pairs(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "kind"), TABLE)
def test_a_conversion_to_voc_finds_the_image(made: tuple, case: Case, tmp_path: Path) -> None:
    plan = plan_stacks(find_series(tmp_path, keywords=KEYWORDS))
    assert "".join(sorted(stack.folder.name for stack in plan.stacks if stack.labels)) == case.finds
    assert (plan.orphans == ()) == bool(case.finds)


@pytest.mark.parametrize(("case", "kind"), [one for one in TABLE if one.values[1] == "SEG"])
def test_a_label_server_finds_the_image(made: tuple, case: Case, tmp_path: Path) -> None:
    archive = FolderArchive(tmp_path)
    found = labels_by_series(archive.series(), archive.labels())
    listed = "" if "SeriesInstanceUID" in case.lacks else "ab"  # it serves none that it could not call by a UID
    assert "".join(name for name in listed if found[uid("series", name)]) == "".join(sorted({*case.finds} & {*listed}))


@pytest.mark.parametrize(("case", "kind"), [one for one in TABLE if one.values[1] == "SEG"])
def test_a_pacs_tells_series_alone(made: tuple, case: Case) -> None:
    """A search for series names no instance: there the series that a label names decides."""
    label = label_of(pydicom.dcmread(made[1], stop_before_pixels=True))
    listed = [
        RemoteSeries("1", uid("series", n), "CT", 2, ImageUids(series=frozenset({uid("series", n)}))) for n in "ab"
    ]
    found = labels_by_series(listed, [label])
    assert "".join(name for name in "ab" if found[uid("series", name)]) == "".join(sorted({*case.series} - {"x"}))


@pytest.mark.slow
@pytest.mark.parametrize(("case", "kind"), TABLE)
def test_a_choice_of_series_lays_no_label_on_another_one(made: tuple, case: Case, kind: str, tmp_path: Path) -> None:
    """A label that belongs to a series which --series hides is found for none of those that it shows."""
    for series in find_series(tmp_path).series:
        name, chosen = series.files[0].parent.name, [series.uid]
        finds = "".join({*case.finds} & {name})
        plan = plan_stacks(find_series(tmp_path, keywords=KEYWORDS), series=chosen)
        assert [(stack.folder.name, bool(stack.labels)) for stack in plan.stacks] == [(name, bool(finds))]
        assert (plan.orphans == ()) == bool(case.finds)  # one of a hidden series is of a series, too
        if finds:
            assert [Path(found["image"]).name for found in find_pairs(tmp_path, series=chosen)[1]] == [name]
        else:
            with pytest.raises(PyrasegError, match="none with a label"):
                find_pairs(tmp_path, series=chosen)
        if kind == "SEG" and "SeriesInstanceUID" not in case.lacks:
            archive = FolderArchive(tmp_path, series=chosen)
            found = labels_by_series(archive.series(), archive.labels(), others=archive.others)
            assert {uid_: bool(labels) for uid_, labels in found.items()} == {uid("series", name): bool(finds)}


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
@pytest.mark.parametrize(("name", "accepts"), [("images elsewhere in the frame", "a"), ("images elsewhere", "")])
def test_a_label_of_other_images_in_the_same_frame(name: str, accepts: str, kind: str, tmp_path: Path) -> None:
    folders, label = write_images(tmp_path, CASES[name]), write_label(tmp_path / "label.dcm", CASES[name], kind)
    for series, folder in folders.items():
        grid = ImageGrid.of(read_series(folder))
        if series in accepts:
            assert read_dicom_label(label, grid, ClassTable(CLASSES), drawn_on="frame_of_reference").any()
        else:
            with pytest.raises(PyrasegError, match=r"lies in the frame of reference .*, its image in"):
                read_dicom_label(label, grid, ClassTable(CLASSES), drawn_on="frame_of_reference")


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_a_frame_of_reference_that_one_side_lacks_is_no_common_one(kind: str, tmp_path: Path) -> None:
    case = Case("x", "x", "x", "a", accepts="", finds="", lacks=("FrameOfReferenceUID",))
    folders, label = write_images(tmp_path, case), write_label(tmp_path / "label.dcm", case, kind)
    with pytest.raises(PyrasegError, match="No frame of reference that both name tells where the label lies"):
        read_dicom_label(
            label, ImageGrid.of(read_series(folders["a"])), ClassTable(CLASSES), drawn_on="frame_of_reference"
        )


def test_a_series_of_another_study_is_named_apart(tmp_path: Path) -> None:
    """PS3.3 C.12.4: what lies in other studies is in a sequence of its own."""
    label = pydicom.dcmread(write_label(tmp_path / "label.dcm", CASES["listed instances"], "SEG"))
    label.StudiesContainingOtherReferencedInstancesSequence = item(
        StudyInstanceUID=uid("study", "a"), ReferencedSeriesSequence=label.ReferencedSeriesSequence
    )
    before = read_references(tmp_path / "label.dcm")
    del label.ReferencedSeriesSequence
    label.save_as(tmp_path / "label.dcm")
    assert read_references(tmp_path / "label.dcm") == before
    assert before.series == {uid("series", "a")} and len(before.sop_instances) == 2


def test_regions_of_one_structure_set_on_two_series(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each ROI is read on its own images; one that a class means and lies elsewhere is refused."""
    folders = write_images(tmp_path, CASES["two series"])
    path = tmp_path / "label.dcm"
    write_structure_set(path, {"liver": [SQUARE], "other": [SQUARE]}, series_uid="", frame_of_reference_uid="")
    label = pydicom.dcmread(path)
    for roi, name in zip(label.ROIContourSequence, "ab", strict=True):
        roi.ContourSequence[0].ContourImageSequence = references(name)[:1]
    label.save_as(path)
    grids = {name: ImageGrid.of(read_series(folder)) for name, folder in folders.items()}
    table = ClassTable(CLASSES, {"background": ["other"]})
    with caplog.at_level(logging.WARNING):
        assert read_dicom_label(path, grids["a"], table).any()
    assert not caplog.records
    with pytest.raises(PyrasegError, match="was drawn on instances of another series"):
        read_dicom_label(path, grids["b"], table)
    with pytest.raises(PyrasegError, match="was drawn on instances of another series"):
        read_dicom_label(path, grids["a"], ClassTable(["background", "liver", "other"]))


def test_a_label_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "label.dcm").write_bytes(b"no label")
    with pytest.raises(PyrasegError, match=r"label\.dcm: the references of this label cannot be read"):
        read_references(tmp_path / "gone" / "label.dcm")
