# SPDX-License-Identifier: Apache-2.0
"""What a listing finds in a folder, a real store and a real PACS, and what it says of all else."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, DigitalXRayImageStorageForPresentation

from bundle.pyraseg.dicom import Purpose
from bundle.pyraseg_tools.archive import Access, FolderListing, Row, StoreListing, WebListing
from bundle.pyraseg_tools.archive.listing import HEAD
from tests.helpers import dicom_files as files
from tests.helpers.pacs_series import small_series
from tests.helpers.s3_server import BUCKET, Store
from tests.tools.archive.conftest import due

PIXELS = np.zeros((3, 20, 24), np.int16)
FLAT = np.zeros((20, 24), np.int16)


def reasons(rows: list[Row]) -> dict[str, str]:
    """Return why files and series are left out, by their first file."""
    return {row.files[0]: row.skip for row in rows if row.skip}


def upload(store: Store, root: Path, prefix: str = "studies") -> None:
    for file in sorted(root.rglob("*")):
        if file.is_file():
            store.add(f"{prefix}/{file.relative_to(root).as_posix()}", file.read_bytes())


def test_a_series_is_one_row_with_what_its_headers_say(tmp_path, listed):
    paths = small_series(tmp_path / "a" / "b", "one", BodyPartExamined="CHEST", SeriesDescription="Thorax 1.5")
    (row,) = listed(tmp_path / "a")
    images = [pydicom.dcmread(path) for path in paths]
    assert (row.study, row.series) == (images[0].StudyInstanceUID, images[0].SeriesInstanceUID)
    assert (row.modality, row.body_part, row.description) == ("CT", "CHEST", "Thorax 1.5")
    assert (row.rows, row.columns, row.images) == (20, 24, 3)
    assert row.bytes == sum(path.stat().st_size for path in paths)
    assert row.files == tuple(f"b/one/slice_00{number}.dcm" for number in range(3))
    assert row.source == str(tmp_path / "a") and row.skip == ""


def test_no_name_of_a_patient_is_in_the_table(tmp_path, listed):
    small_series(tmp_path / "a", "one", SeriesDescription="Secret Thorax SECRET-ID", StudyDescription="Secret")
    (row,) = listed(tmp_path / "a")
    assert "Thorax" in row.description and "secret" not in str(row).lower()
    content = (tmp_path / "table.parquet").read_bytes()
    assert b"Secret" not in content and b"SECRET" not in content


def test_a_series_in_two_folders_is_one_row_and_copies_count_once(tmp_path, listed):
    root = tmp_path / "a"
    paths = small_series(root, "one", slices=4)
    (whole,) = listed(root)
    (root / "two").mkdir()
    for path in paths[2:]:
        path.rename(root / "two" / path.name)
    shutil.copyfile(paths[0], root / "two" / "copy.dcm")
    (row,) = listed(root)
    assert row.id == whole.id and row.images == 4 and row.skip == ""
    assert {Path(file).parent.name for file in row.files} == {"one", "two"}
    assert row.bytes == sum((root / file).stat().st_size for file in row.files)


def test_two_patients_under_one_uid_are_two_series(tmp_path, listed):
    root = tmp_path / "a"
    small_series(root, "one")
    uids = {"SeriesInstanceUID": files.uid("series", "one"), "StudyInstanceUID": files.uid("study", "one")}
    small_series(root, "other", seed=1, PatientID="2", PatientName="B", **uids)
    rows = listed(root)
    assert {row.series for row in rows} == {f"{uids['SeriesInstanceUID']}:{number}" for number in (1, 2)}
    assert len({row.id for row in rows}) == 2 and len({row.instance_uid for row in rows}) == 1
    assert {Path(row.files[0]).parent.name for row in due(rows)} == {"one", "other"}


def test_a_copy_of_the_archive_has_the_same_ids(tmp_path, listed):
    for name in ("one", "two"):
        small_series(tmp_path / "a", name)
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "deeper")
    assert {row.id for row in listed(tmp_path / "a")} == {row.id for row in listed(tmp_path / "elsewhere")}


def test_forms_of_series(tmp_path, listed):
    """Multi-frame and lone images are series; what has phases, or lacks a place or a UID, is left out with a reason."""
    root = tmp_path / "a"
    own = {"StudyInstanceUID": files.uid("study", "forms")}
    positions = np.array([[0, 0, number] for number in range(3)], float)
    files.write_enhanced(root / "frames" / "a", PIXELS, positions, SeriesInstanceUID=files.uid("frames"), **own)
    for number, acquisition in enumerate((1, 2)):
        names = [f"{number}_{place}" for place in range(3)]
        phase = {"AcquisitionNumber": acquisition, "SeriesInstanceUID": files.uid("phases"), **own}
        files.write_series(root / "phases", PIXELS, names=names, **phase)
    for number in range(2):
        files.write_image(root / "loose" / f"{number}", FLAT, SeriesInstanceUID=files.uid("loose"), **own)
    files.write_series(root / "mr", PIXELS, Modality="MR", SeriesInstanceUID=files.uid("mr"), **own)
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        uids = {**own, "SeriesInstanceUID": files.uid(name), name: None}
        files.write_series(root / name, PIXELS, **uids)
    rows = listed(root)
    assert [(row.files[0], row.images) for row in due(rows)] == [("frames/a", 1)]
    found = reasons(rows)
    assert "2 of 2 slices lack ImagePositionPatient" in found["loose/0"]
    assert "--select AcquisitionNumber=1" in found["phases/0_0"]
    assert found["mr/slice_000.dcm"] == "its modality is MR, and the model is for CT"
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert found[f"{name}/slice_000.dcm"].startswith(f"its images have no {name}, and a result")


def test_one_of_several_phases_is_selected(tmp_path, listed, wanted):
    for number, acquisition in enumerate((1, 2)):
        names = [f"{number}_{place}" for place in range(3)]
        files.write_series(tmp_path / "a", PIXELS, names=names, AcquisitionNumber=acquisition)
    (row,) = listed(listing=FolderListing(tmp_path / "a", replace(wanted, select={"AcquisitionNumber": 2})))
    assert row.skip == "" and row.images == 6


def test_each_x_ray_and_each_view_of_a_series_is_a_row(tmp_path, listed, wanted):
    root, own = tmp_path / "a", {"StudyInstanceUID": files.uid("study", "x")}
    for number, side in enumerate("LR"):
        chest = {"Modality": "DX", "SOPClassUID": DigitalXRayImageStorageForPresentation}
        files.write_image(root / f"c{side}", FLAT, SeriesInstanceUID=files.uid("chest"), **chest, **own)
        view = {"ImageLaterality": side, "ViewPosition": "MLO", "InstanceNumber": number}
        view |= {"Modality": "MG", "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation}
        files.write_image(root / f"m{side}", FLAT, SeriesInstanceUID=files.uid("breast"), **view, **own)
    purpose = Purpose(modality=("DX", "MG"))
    rows = listed(listing=FolderListing(root, replace(wanted, purpose=purpose)))
    assert sorted(row.files for row in due(rows)) == [("cL",), ("cR",), ("mL",), ("mR",)]
    assert len({row.id for row in rows}) == 4 and len({row.instance_uid for row in rows}) == 2


def test_what_is_no_image_is_said_or_not_looked_at(tmp_path, listed, wanted):
    root = tmp_path / "a"
    small_series(root, "good")
    for folder in (".hidden", "results", "work"):
        small_series(root / folder, "not this")
    (root / "empty.dcm").touch()
    (root / "note.txt").write_text("no DICOM")
    (root / "broken.dcm").write_bytes((root / "good" / "slice_000.dcm").read_bytes()[:300])
    os.mkfifo(root / "fifo")
    (root / "loop").symlink_to(root)
    (root / "dangling.dcm").symlink_to(root / "gone")
    listing = FolderListing(root, wanted, leave_out=[root / "results", root / "work"])
    rows = listed(listing=listing)
    assert [row.files[0] for row in due(rows)] == ["good/slice_000.dcm"]
    told = {file: row.skip for row in rows for file in row.files if row.skip}
    assert told.pop("broken.dcm") in ("unreadable", "object without an image")
    assert told.pop("dangling.dcm") == "unreadable"
    assert told == {
        "empty.dcm": "not DICOM",
        "note.txt": "not DICOM",
        "loop": "link to a folder, not followed",
    }


def test_an_empty_folder_has_an_empty_table(tmp_path, listed):
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert listed(tmp_path / "a") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_said(tmp_path, listed):
    (closed := tmp_path / "a" / "closed").mkdir(parents=True, mode=0)
    assert [(row.files, row.skip) for row in listed(tmp_path / "a")] == [(("closed",), "folder that cannot be read")]
    closed.chmod(0o700)


def test_a_folder_that_goes_away_while_it_is_listed_is_said(tmp_path, wanted):
    class Leaving(FolderListing):
        def _rows(self, found):
            for row in super()._rows(found):
                shutil.rmtree(self.root / "two", ignore_errors=True)
                yield row

    for name in ("one", "two"):
        small_series(tmp_path / "a", name)
    first, *rest = Leaving(tmp_path / "a", wanted).rows()
    assert first.skip == "" and all(row.skip for row in rest)


def test_a_store_has_the_rows_of_the_folder(tmp_path, listed, wanted, store):
    root = tmp_path / "a"
    paths = small_series(root, "one", slices=4)
    small_series(root, "two", seed=1)
    files.write_series(root / "no uid", PIXELS, SeriesInstanceUID=None)
    (root / "three").mkdir()
    paths[3].rename(root / "three" / "x")
    large = {"ImageComments": "x" * 10000, "SeriesInstanceUID": files.uid("large"), "slices": 2}
    small_series(root, "large", **large, StudyComments="y" * (HEAD - 5000))
    (root / "note.txt").write_text("no DICOM")
    upload(store, root)
    upload(store, root / "two", "studies/results")
    folder = listed(root)
    address = f"s3://{BUCKET}/studies"
    rows = listed(listing=StoreListing(address, wanted, leave_out=[f"{address}/results"]))
    assert max(row.bytes / row.images for row in folder) > HEAD

    def known(row: Row) -> Row:
        return replace(row, source="", series="" if row.skip else row.series, digest="" if row.skip else row.digest)

    assert sorted(map(str, map(known, rows))) == sorted(map(str, map(known, folder)))
    assert {row.source for row in rows} == {address}


def test_a_pacs_has_the_series_of_the_folder(tmp_path, listed, wanted, pacs):
    root = tmp_path / "a"
    pacs.add([*small_series(root, "one", SeriesDescription="Secret Thorax"), *small_series(root, "two", seed=1)])
    pacs.add(small_series(root, "mr", Modality="MR"))
    folder = due(listed(root))
    client = Access(ca_bundle=pacs.ca_bundle).connect(pacs.url)
    every = listed(listing=WebListing(client, {}, wanted))
    (other,) = (row for row in every if row.skip)
    assert (other.modality, other.skip) == ("MR", "its modality is MR, and the model is for CT") and other.digest
    rows = listed(listing=WebListing(client, {"Modality": "CT"}, wanted))
    assert [row for row in every if row != other] == rows
    assert {row.id for row in rows} == {row.id for row in folder} and len(rows) == 2
    for keyword in ("study", "modality", "images"):
        assert sorted(getattr(row, keyword) for row in rows) == sorted(getattr(row, keyword) for row in folder)
    assert all(row.files == () and row.skip == "" and row.source == pacs.url for row in rows)
    assert "secret" not in str(rows).lower() and {row.description for row in rows} == {"*** Thorax", ""}


def test_two_studies_of_a_pacs_with_one_series_uid_are_two_rows(tmp_path, listed, wanted, pacs):
    uid = files.uid("series", "shared")
    for name in ("one", "two"):
        pacs.add(small_series(tmp_path / "a", name, SeriesInstanceUID=uid, PatientID=name))
    client = Access(ca_bundle=pacs.ca_bundle).connect(pacs.url)
    rows = listed(listing=WebListing(client, {"Modality": "CT"}, wanted))
    assert {row.study for row in rows} == {files.uid("study", "one"), files.uid("study", "two")}
