# SPDX-License-Identifier: Apache-2.0
"""Objects about images whose headers break the standard: written all the same, and free of their faults."""

import logging
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.valuerep import validate_value

from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.dicom.sound import PATIENT_AND_STUDY, SERIES, UIDS, sound_sources, sound_uid, state_character_set
from bundle.pyraseg.dicom.source import read_sources
from bundle.pyraseg.labels.class_table import ClassTable
from bundle.pyraseg.labels.reading import read_dicom_label
from bundle.pyraseg.labels.references import ImageGrid
from bundle.pyraseg.labels.rtstruct_writer import write_structure_set
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from tests.helpers.dicom_files import save
from tests.helpers.faulty_series import FAULTS, SHAPE, faulty_enhanced, faulty_series
from tests.helpers.segmented_series import complaints

CLASSES = [SegmentClass.organ("liver"), SegmentClass.organ("spleen")]
NAMES = ["background", "liver", "spleen"]


def stored(fault: str, folder: Path, *, enhanced: bool = False, count: int = SHAPE[0]) -> Path:
    """Write a series with a fault, or as many of its images."""
    change, _ = FAULTS[fault]
    with pydicom.config.disable_value_validation():
        for k, dataset in enumerate([faulty_enhanced(change)] if enhanced else faulty_series(change)[:count]):
            save(dataset, folder / f"{k}.dcm")
    return folder


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_passes_and_the_log_names_it_without_its_value(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    sources = read_sources(sorted(stored(fault, tmp_path, count=2).iterdir()))
    headers = sound_sources(sources)
    for header in headers:
        state_character_set(header)
        for element in [header[name] for name in (*PATIENT_AND_STUDY, *SERIES, *UIDS) if name in header]:
            values = element.value if element.VM > 1 else [element.value]
            for value in values if element.value is not None else []:
                validate_value(element.VR, str(value), pydicom.config.RAISE)
                assert str(value).isprintable()
    named = FAULTS[fault][1]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == bool(named) and all(named in text for text in told)
    assert all(word not in text for text in told for word in ("Doe", "Jane", "Müller", "1953", "unknown", "FEMALE"))
    caplog.clear()
    assert sound_sources(headers) == headers and not caplog.records  # once mended is mended


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["sex of another list", "study UID with letters", "everything empty", "Japanese"])
def test_both_objects_of_a_faulty_series_are_valid_and_hold_the_mask(tmp_path: Path, fault: str) -> None:
    check(fault, tmp_path, enhanced=False)


@pytest.mark.slow
@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_both_objects_of_every_faulty_series(tmp_path: Path, fault: str, enhanced: bool) -> None:
    check(fault, tmp_path, enhanced=enhanced)


def check(fault: str, folder: Path, *, enhanced: bool) -> None:
    """Compare with what the objects say to dciodvfy, highdicom and our own reader."""
    image = read_series(stored(fault, folder / "in", enhanced=enhanced))
    mask = np.random.default_rng(0).integers(0, 3, SHAPE, dtype=np.uint8)
    sources, seg, structures = read_sources(image.files), folder / "seg.dcm", folder / "structures.dcm"
    write_segmentation(seg, mask, sources, CLASSES, frame_numbers=image.frame_numbers)
    write_structure_set(structures, mask, sources, image.geometry, NAMES[1:], frame_numbers=image.frame_numbers,
                        colors=[[255, 0, 0], [0, 255, 0]], algorithm=("Pyraseg", "1"))  # fmt: skip
    for path in (seg, structures):
        assert complaints(path) == []
        np.testing.assert_array_equal(read_dicom_label(path, ImageGrid.of(image), ClassTable(NAMES)), mask)
    theirs, uids = hd.seg.segread(seg), [sound_uid(uid) for uid in image.sop_instance_uids]
    options = {"combine_segments": True, "assert_missing_frames_are_empty": True}
    if not enhanced and len(set(uids)) < len(uids):
        return  # no program tells these images apart by their UID
    if enhanced:
        read = theirs.get_pixels_by_source_frame(uids[0], list(image.frame_numbers), **options)
    else:
        read = theirs.get_pixels_by_source_instance(uids, **options)
    np.testing.assert_array_equal(read, mask)


def test_what_is_plain_is_mended(tmp_path: Path) -> None:
    """As a person would read it."""
    meant = {
        "sex in lower case": ("PatientSex", "M"),
        "four groups of a name": ("PatientName", "a^b=c^d=e^f"),
        "seven components of a name": ("PatientName", "a^b^c^d^e"),
        "a name with a line break": ("PatientName", "Doe^Jane"),
        "dates with dots": ("StudyDate", "20200101"),
        "a time with colons": ("StudyTime", "112000.5"),
        "a time of nanoseconds": ("StudyTime", "112000.123456"),
        "a weight with a comma": ("PatientWeight", 72.5),
        "an age without zeros": ("PatientAge", "045Y"),
        "control characters": ("StudyDescription", "abc"),
        "UTF-8 that nobody states": ("PatientName", "Müller^Jörg"),
        "Latin-1 that nobody states": ("PatientName", "Müller^Jörg"),
        "a character set that is none": ("PatientName", "Müller^Jörg"),
        "Japanese": ("PatientName", "Yamada^Tarou=山田^太郎"),
        "Cyrillic": ("PatientName", "Люкс^Анна"),
    }
    for fault, (name, value) in meant.items():
        header = sound_sources(read_sources(sorted(stored(fault, tmp_path / fault, count=1).iterdir())))[0]
        state_character_set(header)
        save(header, tmp_path / "read.dcm")
        assert pydicom.dcmread(tmp_path / "read.dcm")[name].value == value, fault


def test_bytes_that_are_no_text_in_the_stated_character_set_are_read_as_they_were_meant(tmp_path: Path) -> None:
    def utf_8(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 192", "Mü^Jörg"

    path = save(faulty_series(utf_8)[0], tmp_path / "in.dcm")
    path.write_bytes(path.read_bytes().replace("ü".encode(), b"\xfcl").replace("ö".encode(), b"\xf6r"))
    (header,) = sound_sources(read_sources([path]))
    assert header.PatientName == "Mül^Jörrg"


def test_a_malformed_uid_of_images_leads_to_them_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = read_series(stored("series UID with a leading zero", tmp_path / "in"))
    mask = np.ones(SHAPE, np.uint8)
    write_segmentation(tmp_path / "seg.dcm", mask, read_sources(image.files), CLASSES)
    assert "--complete_headers true" in caplog.text and caplog.text.count("\n") == 1
    written = pydicom.dcmread(tmp_path / "seg.dcm").ReferencedSeriesSequence[0].SeriesInstanceUID
    assert written.is_valid and written == sound_uid(image.series_uid) != image.series_uid
    with caplog.at_level(logging.WARNING):
        read = read_dicom_label(tmp_path / "seg.dcm", ImageGrid.of(image), ClassTable(NAMES))
    np.testing.assert_array_equal(read, mask)
