# SPDX-License-Identifier: Apache-2.0
"""Which layouts of folders are understood, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.collecting import collect_cases
from bundle.pyraseg.datalists.pairing import find_pairs
from bundle.pyraseg.dicom.found import as_file
from bundle.pyraseg.transforms.reader import MedicalImageReader
from tests.helpers.dicom_files import item, make_image, save, uid
from tests.helpers.reviews import write_by_highdicom, write_scan
from tests.helpers.series_with_seg import write_seg, write_study

RESULT = np.pad(np.ones((1, 3, 4), np.uint8), ((1, 1), (2, 3), (1, 3)))


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def pairs(folder: Path, **options: str) -> dict[str, tuple[str, str]]:
    """Return image and label, relative to the folder, by the name of the case."""
    items = find_pairs(folder, **options)[1]
    return {
        i["patient"]: tuple(Path(i[key]).relative_to(folder).as_posix() for key in ("image", "label")) for i in items
    }


# --- files ---


def test_isic_as_published(tmp_path):
    touch(tmp_path, "ISIC-2017_Training_Data/ISIC_0000001.jpg", "ISIC-2017_Training_Data/ISIC_0000001_superpixels.png")
    touch(tmp_path, "ISIC-2017_Training_Data/ISIC-2017_Training_Data_metadata.csv")
    touch(tmp_path, "ISIC-2017_Training_Part1_GroundTruth/ISIC_0000001_segmentation.png")
    assert find_pairs(tmp_path)[0] == "ISIC"
    assert pairs(tmp_path) == {
        "ISIC_0000001": (
            "ISIC-2017_Training_Data/ISIC_0000001.jpg",
            "ISIC-2017_Training_Part1_GroundTruth/ISIC_0000001_segmentation.png",
        )
    }


def test_isic_of_this_project(real_data):
    found = pairs(real_data / "dermoscopy_isic2017")
    assert len(found) == 2000
    assert found["ISIC_0000000"] == ("images/ISIC_0000000.jpg", "masks/ISIC_0000000_segmentation.png")


def test_isic_without_a_partner_is_told(tmp_path, caplog):
    touch(tmp_path, "a/ISIC_1.jpg", "a/ISIC_2.jpg", "b/ISIC_1_segmentation.png")
    assert list(pairs(tmp_path)) == ["ISIC_1"]
    assert "1 files" in caplog.text and "ISIC_2" in caplog.text


def test_isic_masks_alone_are_refused(tmp_path):
    touch(tmp_path, "b/ISIC_1_segmentation.png")
    with pytest.raises(PyrasegError, match=r"1 masks X_segmentation.png, but no image"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("labels", ["labels", "masks"])
def test_parallel_folders(tmp_path, labels):
    touch(tmp_path, "images/a.png", f"{labels}/a.png", "images/1.2.3.nii.gz", f"{labels}/1.2.3.nrrd")
    assert pairs(tmp_path) == {
        "a": ("images/a.png", f"{labels}/a.png"),
        "1.2.3": ("images/1.2.3.nii.gz", f"{labels}/1.2.3.nrrd"),
    }


def test_pascal_voc(tmp_path):
    touch(tmp_path, "JPEGImages/a.jpg", "JPEGImages/b.png", "SegmentationClass/a.png", "SegmentationClass/b.png")
    assert find_pairs(tmp_path)[0] == "Pascal VOC"
    assert pairs(tmp_path) == {
        "a": ("JPEGImages/a.jpg", "SegmentationClass/a.png"),
        "b": ("JPEGImages/b.png", "SegmentationClass/b.png"),
    }


def test_decathlon_as_published(tmp_path, caplog):
    touch(tmp_path, "imagesTr/spleen_2.nii.gz", "labelsTr/spleen_2.nii.gz", "imagesTs/spleen_1.nii.gz")
    touch(tmp_path, "imagesTr/._spleen_2.nii.gz")
    training = [{"image": "./imagesTr/spleen_2.nii.gz", "label": "./labelsTr/spleen_2.nii.gz"}]
    content = {"name": "Spleen", "training": training, "test": ["./imagesTs/spleen_1.nii.gz"]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert pairs(tmp_path) == {"spleen_2": ("imagesTr/spleen_2.nii.gz", "labelsTr/spleen_2.nii.gz")}
    assert "1 test images" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is no list of the Decathlon"),
        ('{"training": ["a.nii"]}', "is no list of the Decathlon"),
        ('{"training": []}', "lists no training pair"),
        ('{"training": [{"image": "a.nii", "label": "b.nii"}]}', r"a\.nii, which is absent or outside its folder"),
        ('{"training": [{"image": "../a.nii", "label": "b.nii"}]}', r"a\.nii, which is absent or outside its folder"),
    ],
)
def test_refused_decathlon_lists(tmp_path, content, message):
    touch(tmp_path, "a.nii")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "dataset.json").write_text(content)
    with pytest.raises(PyrasegError, match=message):
        find_pairs(tmp_path / "set")


def test_patterns_come_first(tmp_path):
    touch(tmp_path, "images/a.png", "labels/a.png", "labels2/a_x.png")
    found = pairs(tmp_path, image_pattern="images/{case}.png", label_pattern="labels2/{case}_x.png")
    assert found == {"a": ("images/a.png", "labels2/a_x.png")}


def test_one_pattern_is_not_enough(tmp_path):
    with pytest.raises(PyrasegError, match="belong together"):
        find_pairs(tmp_path, image_pattern="images/{case}")


def test_a_folder_of_another_layout_is_one_message(tmp_path):
    for names in ([], ["img/a.png", "gt/a.png"]):
        touch(tmp_path, *names)
        with pytest.raises(PyrasegError, match=r"none of the known layouts: .* Give an image pattern"):
            find_pairs(tmp_path)
    with pytest.raises(PyrasegError, match="There is no folder"):
        find_pairs(tmp_path / "none")


# --- DICOM ---


def write_structures(path: Path, source: Dataset, *, named: bool = True) -> None:
    series = item(SeriesInstanceUID=source.SeriesInstanceUID if named else "")
    frame = item(
        FrameOfReferenceUID=source.FrameOfReferenceUID,
        RTReferencedStudySequence=item(RTReferencedSeriesSequence=series) if named else [],
    )
    structures = make_image(
        np.zeros((1, 1), np.uint8), Modality="RTSTRUCT", SOPClassUID=RTStructureSetStorage, PixelData=None, Rows=None,
        Columns=None, FrameOfReferenceUID=None, ReferencedFrameOfReferenceSequence=frame,
        StructureSetROISequence=item(ROINumber=1, ROIName="liver"),
    )  # fmt: skip
    structures.SeriesInstanceUID = uid("structures", source.SeriesInstanceUID)
    save(structures, path)


def test_dicom_by_reference_wherever_the_labels_lie(tmp_path, caplog):
    first, second = write_study(tmp_path / "x/1", "one"), write_study(tmp_path / "x/2", "two")
    third = write_study(tmp_path / "y", "three")
    write_study(tmp_path / "unlabeled", "four")
    write_seg(tmp_path / "labels/b.dcm", first)
    write_structures(tmp_path / "labels/a.dcm", second[0])
    write_structures(tmp_path / "x/2/structures", third[0], named=False)  # by its frame of reference alone
    assert pairs(tmp_path) == {
        "x/1": ("x/1", "labels/b.dcm"),
        "x/2": ("x/2", "labels/a.dcm"),
        "y": ("y", "x/2/structures"),
    }
    assert "1 of 4 series" in caplog.text


def test_dicom_of_real_files(real_data):
    assert pairs(real_data / "ct_liver_dicom_seg/24x38x3") == {"image": ("image", "seg/label.seg")}
    with pytest.raises(PyrasegError, match=r"has 3 labels: .*invalid_reference_rt.dcm, .*rt.dcm"):
        find_pairs(real_data / "ct_rtstruct/mock_data")


def test_dicom_labels_of_other_images_are_told(tmp_path):
    write_study(tmp_path / "a", "one")
    write_seg(tmp_path / "b/seg.dcm", write_study(tmp_path / "elsewhere", "two"))
    for path in (tmp_path / "elsewhere").iterdir():
        path.unlink()
    with pytest.raises(PyrasegError, match="1 image series, but none with a label: 1 SEG or RTSTRUCT objects"):
        find_pairs(tmp_path)


def test_two_labels_for_one_series_are_refused(tmp_path):
    sources = write_study(tmp_path / "a", "one")
    write_seg(tmp_path / "first.dcm", sources)
    write_structures(tmp_path / "second.dcm", sources[0])
    with pytest.raises(PyrasegError, match=r"has 2 labels: .*first.dcm, .*second.dcm. Move all but one away"):
        find_pairs(tmp_path)


def test_a_correction_takes_the_place_of_the_result_that_it_corrects(tmp_path, caplog):
    """As they lie in an archive; a result that nobody has corrected is a label where somebody gives it as one."""
    scan = write_scan(tmp_path / "a")
    write_by_highdicom(tmp_path / "result.dcm", scan, RESULT)
    assert pairs(tmp_path) == {"a": ("a", "result.dcm")} and "left out" not in caplog.text
    write_by_highdicom(tmp_path / "correction.dcm", scan, RESULT, "SEMIAUTOMATIC")
    assert pairs(tmp_path) == {"a": ("a", "correction.dcm")}
    assert "1 segmentations that a program made alone are left out" in caplog.text
    write_by_highdicom(tmp_path / "second.dcm", scan, RESULT, "MANUAL")
    with pytest.raises(PyrasegError, match=r"has 2 labels: .*correction.dcm, .*second.dcm"):
        find_pairs(tmp_path)


def share_folder(root: Path, **other: object) -> list[Dataset]:
    """Write two series into one folder; return the slices of the first."""
    sources = write_study(root / "a", "one")
    for number, dataset in enumerate(write_study(root / "b", "two")):
        for keyword, value in other.items():
            setattr(dataset, keyword, value)
        dataset.save_as(root / "a" / f"other_{number}.dcm")
    shutil.rmtree(root / "b")
    return sources


def test_series_that_share_a_folder_are_told_by_their_uid(tmp_path):
    sources = share_folder(tmp_path)
    write_seg(tmp_path / "seg.dcm", sources)
    (written,) = collect_cases(tmp_path, threshold=0.9).items
    assert (written["image"], written["series"]) == (str(tmp_path / "a"), sources[0].SeriesInstanceUID)
    found = MedicalImageReader().get_data([as_file(written["image"])])[1]
    assert found["sop_instance_uids"] == tuple(source.SOPInstanceUID for source in sources)


def test_one_series_of_several_is_paired(tmp_path):
    own = {"SeriesNumber": 7, "SeriesDescription": "Portal", "FrameOfReferenceUID": uid("one", "FrameOfReferenceUID")}
    write_seg(tmp_path / "seg.dcm", share_folder(tmp_path, **own))
    refusal = "none with a label: 1 SEG or RTSTRUCT objects refer to other series"
    with pytest.raises(PyrasegError, match=refusal):
        find_pairs(tmp_path, series=["portal"])
    with pytest.raises(PyrasegError, match="--series arterial means none of the series"):
        find_pairs(tmp_path, series=["arterial"])
    (item,) = collect_cases(tmp_path, threshold=0.9, series="7", drawn_on="frame_of_reference").items
    assert (item["series"], item["drawn_on"]) == (uid("two", "SeriesInstanceUID"), "frame_of_reference")


def test_a_label_of_a_series_that_is_left_out_is_told_from_one_of_no_series(tmp_path, caplog):
    write_seg(tmp_path / "seg_1.dcm", write_study(tmp_path / "a", "one"))
    write_seg(tmp_path / "seg_2.dcm", write_study(tmp_path / "b", "two"))
    write_seg(tmp_path / "seg_3.dcm", write_study(tmp_path / "c", "three"))
    shutil.rmtree(tmp_path / "c")
    (item,) = find_pairs(tmp_path, series=[uid("one", "SeriesInstanceUID")])[1]
    assert item["label"] == str(tmp_path / "seg_1.dcm")
    told = [record.getMessage() for record in caplog.records]
    assert sum("refer to no series" in text and text.endswith("seg_3.dcm") for text in told) == 1
    assert sum("1 SEG or RTSTRUCT objects refer to series that --series leaves out" in t for t in told) == 1
    assert not any("no series" in text and "seg_2.dcm" in text for text in told)


def test_series_without_a_uid_that_share_a_folder_are_refused(tmp_path):
    sources = share_folder(tmp_path)
    write_structures(tmp_path / "labels/rt.dcm", sources[0], named=False)  # by its frame of reference alone
    for source in sources:
        del source.SeriesInstanceUID
        source.save_as(source.filename)
    with pytest.raises(PyrasegError, match="shares its folder with 1 other series"):
        find_pairs(tmp_path)
