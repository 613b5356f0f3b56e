# SPDX-License-Identifier: Apache-2.0
"""A folder of DICOM series, as a label server sees it change."""

import os

import numpy as np
import pydicom
import pytest

from bundle.pyraseg.dicom.source import read_sources
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from bundle.pyraseg_tools.monai_label import archives
from bundle.pyraseg_tools.monai_label.archives import FolderArchive
from tests.helpers import dicom_files as files


@pytest.fixture
def folder(tmp_path):
    files.write_series(tmp_path / "ct", np.zeros((3, 8, 8), np.int16), SliceThickness=1)
    return tmp_path


def segmentation(folder, path, **algorithm):
    mask = np.zeros((3, 8, 8), np.uint8)
    mask[1, 2:5, 2:5] = 1
    path.parent.mkdir(exist_ok=True)
    sources = read_sources(sorted((folder / "ct").iterdir()))
    write_segmentation(path, mask, sources, [SegmentClass.organ("liver")], **algorithm)
    return pydicom.dcmread(path)


def test_labels_are_told_wherever_they_lie_and_by_who_made_them(folder, tmp_path_factory):
    archive = FolderArchive(folder)
    (series,) = archive.series()
    assert (series.instances, archive.labels()) == (3, [])
    segmentation(folder, folder / "elsewhere.dcm", algorithm=("network", "1"))
    apart = tmp_path_factory.mktemp("apart")
    made = segmentation(folder, apart / "a.dcm", algorithm=("network", "1"), algorithm_type="SEMIAUTOMATIC")
    archive.store(made)
    assert sorted((label.automatic, label.references.series) for label in archive.labels()) == [
        (False, {series.uid}),
        (True, {series.uid}),
    ]
    kept = next(label for label in archive.labels() if not label.automatic)
    archive.fetch_label(kept, apart / "back.dcm")
    assert (apart / "back.dcm").read_bytes() == (folder / "labels" / f"{made.SOPInstanceUID}.dcm").read_bytes()


def test_a_submitted_label_costs_no_look_at_the_images_and_a_new_image_does(folder, tmp_path_factory, monkeypatch):
    looks, scan_files = [], archives.scan_files
    monkeypatch.setattr(
        archives, "scan_files", lambda *args, **options: looks.append(1) or scan_files(*args, **options)
    )
    archive = FolderArchive(folder)
    archive.series()
    archive.store(segmentation(folder, tmp_path_factory.mktemp("apart") / "a.dcm"))
    assert len(archive.labels()) == 1 and len(archive.series()) == 1 and len(looks) == 1
    (first, *_) = sorted((folder / "ct").iterdir())
    os.utime(first, ns=(0, 0))
    archive.series()
    assert len(looks) == 2
    first.unlink()
    assert archive.series()[0].instances == 2


@pytest.mark.parametrize(("wanted", "found"), [(["ven*"], ["1.2.3"]), (["7"], ["1.2.3"]), (["8"], []), ([], 2)])
def test_some_series_are_served(folder, wanted, found):
    about = {"SeriesInstanceUID": "1.2.3", "SeriesNumber": 7, "SeriesDescription": "Venous"}
    files.write_series(folder / "other", np.zeros((3, 8, 8), np.int16), **about)
    served = [series.uid for series in FolderArchive(folder, series=wanted).series()]
    assert served == found if wanted else len(served) == found


def test_series_that_share_a_uid_are_not_served(folder, caplog):
    """No client could tell them apart; other series are, and the log says which stand under one UID."""
    for patient in "AB":
        files.write_series(folder / patient, np.zeros((3, 8, 8), np.int16), PatientID=f"SECRET-{patient}",
                           SeriesInstanceUID=files.uid("shared"))  # fmt: skip
    (series,) = FolderArchive(folder).series()
    assert series.uid == files.uid("series")
    assert f"The series UID {files.uid('shared')} stands for 2 different series" in caplog.text
    assert "SECRET" not in caplog.text
