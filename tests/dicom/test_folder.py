# SPDX-License-Identifier: Apache-2.0
"""What lies in real folders beside a clean series, as far as the tests of the parts do not have it already."""

import pickle

import numpy as np
import pydicom
import pytest
from pydicom.fileset import FileSet
from pydicom.uid import ComputedRadiographyImageStorage, UltrasoundImageStorage
from torch.utils.data import default_collate

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.scan import find_series
from bundle.pyraseg.dicom.series import SeriesStream, read_series
from bundle.pyraseg.dicom.source import read_sources
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from tests.helpers.dicom_files import write_image, write_series

STACK = np.random.default_rng(0).integers(-1000, 1000, (3, 8, 10), dtype=np.int16)


def test_a_medium_with_its_dicomdir(tmp_path):
    medium = FileSet()
    for file in write_series(
        tmp_path / "files", STACK, SeriesNumber=1, StudyID="1", StudyDate="20000101", StudyTime="120000"
    ):
        medium.add(file)
    medium.write(tmp_path / "medium")
    scan = find_series(tmp_path / "medium")
    assert scan.skipped == {"DICOMDIR": 1}
    np.testing.assert_array_equal(read_series(tmp_path / "medium").pixels, STACK)


@pytest.mark.parametrize("modality", ["SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "SEG", "REG"])
def test_objects_that_are_no_images(tmp_path, modality):
    write_series(tmp_path, STACK)
    write_image(tmp_path / "other", STACK[0], Modality=modality)
    assert find_series(tmp_path).skipped == {f"{modality} object": 1}
    assert len(read_series(tmp_path).pixels) == 3


def test_burned_in_annotation_is_warned_of(tmp_path, caplog):
    write_series(tmp_path / "clean", STACK, BurnedInAnnotation="NO")
    read_series(tmp_path / "clean")
    assert caplog.text == ""
    write_series(tmp_path / "burned", STACK, per_slice=lambda k: {"BurnedInAnnotation": "YES" if k == 2 else "NO"})
    read_series(tmp_path / "burned")
    assert caplog.text.count("text burned into its pixels") == 1
    assert "SECRET" not in caplog.text.upper()


@pytest.mark.parametrize(
    ("sop_class", "modality"), [(ComputedRadiographyImageStorage, "CR"), (UltrasoundImageStorage, "US")]
)
def test_a_projection_without_frame_of_reference_gets_a_seg_by_reference(tmp_path, sop_class, modality):
    path = write_image(
        tmp_path / "image", STACK[0], SOPClassUID=sop_class, Modality=modality, FrameOfReferenceUID=None,
        PatientBirthDate="", PatientSex="", AccessionNumber="", StudyDate="", StudyTime="", StudyID="",
        ReferringPhysicianName="",
    )  # fmt: skip
    image = read_series(path)
    assert image.geometry is None and image.frame_of_reference_uid == ""
    mask = (STACK[:1] > 0).astype(np.uint8)
    write_segmentation(tmp_path / "seg", mask, [pydicom.dcmread(path)], [SegmentClass.organ("lung")])
    written = pydicom.dcmread(tmp_path / "seg")
    np.testing.assert_array_equal(written.pixel_array.reshape(mask.shape), mask)
    (source,) = written.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence
    assert source.ReferencedSOPInstanceUID == image.sop_instance_uids[0]


def test_an_empty_character_set_hinders_no_seg(real_data, tmp_path, recwarn):
    sources = [pydicom.dcmread(file) for file in (real_data / "ct_liver_dicom_seg" / "ct-3slice").iterdir()]
    assert all("SpecificCharacterSet" in source and not source.SpecificCharacterSet for source in sources)
    mask = np.zeros((3, 512, 512), np.uint8)
    mask[1, 100:200, 50:60] = 1
    write_segmentation(tmp_path / "seg", mask, sources, [SegmentClass.organ("liver")])
    assert pydicom.dcmread(tmp_path / "seg").pixel_array.sum() == mask.sum()
    assert not any(str(source.PatientName) in str(notice.message) for notice in recwarn for source in sources)
    assert all("SpecificCharacterSet" in source for source in sources)  # they are left as they were


def test_a_series_without_uids_is_read_but_gets_no_seg(real_data, tmp_path):
    folder = real_data / "ct_abdomen" / "dicom"
    image = read_series(folder)
    assert image.sop_instance_uids == ("",) * 20
    sources = [pydicom.dcmread(file) for file in image.files]
    with pytest.raises(PyrasegError, match=r"no SOPClassUID, SOPInstanceUID.*copy of the series with generated UIDs"):
        write_segmentation(
            tmp_path / "seg", np.zeros(image.pixels.shape, np.uint8), sources, [SegmentClass.organ("liver")]
        )
    assert not (tmp_path / "seg").exists()


def test_what_was_found_is_read_without_a_second_header(tmp_path):
    """Also by another process or thread, and where a MONAI transform or torch hands the files on."""
    write_series(tmp_path, STACK, PatientName="A^B")
    (series,) = find_series(tmp_path).series
    found = pickle.loads(pickle.dumps(default_collate([{"files": series.found}])["files"]))
    found = [file for (file,) in found]
    assert found == [str(file) for file in series.files]
    assert not any("PatientName" in file.header for file in found)  # a scan reads no identity
    image = read_series(found)
    np.testing.assert_array_equal(image.pixels, read_series(tmp_path).pixels)
    kept = read_sources(image.found)
    assert [file.complete for file in image.found] == [True] * len(STACK)
    assert kept == read_sources(image.files) and kept[0].PatientName == "A^B"
    assert [dataset.file_meta for dataset in kept] == [dataset.file_meta for dataset in read_sources(image.files)]
    assert not read_series(tmp_path).found  # identities stay out of what is read for training


def test_a_selection_by_an_attribute_that_no_scan_keeps(tmp_path):
    write_series(tmp_path, STACK, ProtocolName="chest")
    (series,) = find_series(tmp_path).series
    assert len(read_series(series.found, select={"ProtocolName": "chest"}).pixels) == len(STACK)


@pytest.mark.parametrize("same_size", [True, False])
def test_a_file_that_was_replaced_in_between_is_refused(tmp_path, same_size):
    file = write_series(tmp_path, STACK)[1]
    (series,) = find_series(tmp_path).series
    pixels = STACK if same_size else STACK[:, :-1]
    write_series(tmp_path / "new", pixels + 1)[1].replace(file)
    with pytest.raises(PyrasegError, match="has changed since it was found"):
        read_series(series.found)
    with pytest.raises(PyrasegError, match="has changed since"):
        list(SeriesStream(series.found).slices())
