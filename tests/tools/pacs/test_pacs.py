# SPDX-License-Identifier: Apache-2.0
"""`pyraseg pacs` against a real Orthanc: what it stores, and what it does after a stop at any point."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import highdicom as hd
import numpy as np
import pydicom
import pytest
from monai.transforms import Compose, LoadImaged

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.transforms.label import LoadLabeld
from bundle.pyraseg.transforms.reader import MedicalImageReader
from bundle.pyraseg_tools.commands.pacs import main
from bundle.pyraseg_tools.datasets.phantom.cases import phantom_case
from bundle.pyraseg_tools.datasets.phantom.dicom_writer import write_series as write_phantom
from bundle.pyraseg_tools.pacs import transfer, worker
from tests.helpers import dicom_files as files
from tests.helpers.holder import another
from tests.helpers.orthanc import PASSWORD
from tests.helpers.pacs_series import small_series
from tests.helpers.some import some_slow

ROOT = Path(__file__).resolve().parents[3]
COMBINED = {"combine_segments": True, "ignore_spatial_locations": True, "assert_missing_frames_are_empty": True}
PHANTOMS = {"plain": 0, "oblique": 2, "tilted": 4, "multi-frame": 6, "JPEG 2000": 8}


def phantom(folder: Path, number: int) -> list[Path]:
    write_phantom(folder, phantom_case(1, number, size=36), seed=1, number=number)
    return list(folder.iterdir())


def journal(tmp_path: Path) -> dict[str, dict]:
    """Return what is remembered, by series UID."""
    (entries,) = json.loads((tmp_path / "work" / "journal.json").read_text())["models"].values()
    return entries


@pytest.mark.parametrize("name", some_slow(PHANTOMS, ("plain", "oblique")))
def test_what_is_stored(name, pacs, model, arguments, tmp_path, capsys):
    sources = phantom(tmp_path / "source", PHANTOMS[name])
    pacs.add(sources)
    main(arguments())
    assert "1 of 1 series are segmented in the PACS" in capsys.readouterr().out

    (identifier,) = pacs.instances(Modality="SEG")
    pacs.read(identifier, tmp_path / "seg.dcm")
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    images = [pydicom.dcmread(file) for file in sources]
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert seg[keyword].value == images[0][keyword].value
    (reference,) = seg.ReferencedSeriesSequence
    assert reference.SeriesInstanceUID == images[0].SeriesInstanceUID != seg.SeriesInstanceUID
    assert seg.SegmentationType == "BINARY" and list(seg.segment_numbers) == [1, 2]
    for number, label, code in ((1, "liver", "10200004"), (2, "spleen", "78961009")):
        segment = seg.get_segment_description(number)
        assert segment.segment_label == label
        assert segment.segmented_property_type == hd.sr.CodedConcept(code, "SCT", label.capitalize())
        assert segment.segmented_property_category.value == "91723000"
        assert segment.algorithm_identification.version == "1.2.3, weights 0123456789ab"

    truth = model.truth(str(tmp_path / "source"))  # the bundle's own inference in PyTorch, along the normal
    assert len(np.unique(truth)) == 3
    if name == "multi-frame":
        groups = images[0].PerFrameFunctionalGroupsSequence
        positions = {k + 1: group.PlanePositionSequence[0].ImagePositionPatient for k, group in enumerate(groups)}
        uid = images[0].SOPInstanceUID
        options = {"source_sop_instance_uid": uid, "source_frame_numbers": sorted(positions)}
        stored = seg.get_pixels_by_source_frame(**options, **COMBINED)
    else:
        normal = np.cross(*np.reshape(images[0].ImageOrientationPatient, (2, 3)))
        images.sort(key=lambda image: float(normal @ image.ImagePositionPatient))
        positions = {image.SOPInstanceUID: image.ImagePositionPatient for image in images}
        stored = seg.get_pixels_by_source_instance(list(positions), **COMBINED)
    assert stored.shape == truth.shape and (stored == truth).mean() >= 0.999
    for group in seg.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        key = source.ReferencedFrameNumber if name == "multi-frame" else source.ReferencedSOPInstanceUID
        np.testing.assert_allclose(group.PlanePositionSequence[0].ImagePositionPatient, positions[key], atol=1e-4)

    load = Compose(
        [
            LoadImaged("image", reader=MedicalImageReader(), ensure_channel_first=True),
            LoadLabeld("label", class_names=["background", "liver", "spleen"]),
        ]
    )
    item = load({"image": str(tmp_path / "source"), "label": str(tmp_path / "seg.dcm")})
    assert np.array_equal(item["label"][0].numpy().transpose(2, 1, 0), stored)


def test_nothing_found_and_nothing_named(pacs, arguments, tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.setattr("bundle.pyraseg.runtime.model.Model.classes", lambda *_: np.zeros((20, 24), np.uint8))
    pacs.add(small_series(tmp_path, "one"))
    main(arguments())
    assert len(pacs.instances(Modality="SEG")) == 1
    said = capsys.readouterr()
    (written,) = (file.read_text() for file in (tmp_path / "work").rglob("*") if file.is_file())
    assert "read back equal (voxels: liver 0, spleen 0)" in caplog.text
    for secret in ("Secret", "SECRET-ID", PASSWORD):
        assert secret not in said.out + said.err + caplog.text + written


def test_some_of_the_series_that_are_found(pacs, arguments, tmp_path, capsys):
    """The PACS cannot be asked for descriptions with * in the middle or for numbers of several: the program looks."""
    for number, phase in enumerate(("Arterial 1.5", "Portal 1.5", "Portal 5")):
        own = {"SeriesNumber": number + 2, "SeriesDescription": phase}
        pacs.add(small_series(tmp_path, f"s{number}", **own))
    for series, count in (("PORTAL*", 2), ("3", 1), ("2; *l 5", 2), (files.uid("series", "s0"), 1), ("5", 0), ("", 3)):
        main(arguments("--dry-run", "--series", series))
        assert f"{count} of {count} series would be segmented" in capsys.readouterr().out


def test_done_once(pacs, arguments, tmp_path, capsys):
    pacs.add(small_series(tmp_path, "one"))
    main(arguments("--dry-run"))
    assert not pacs.instances(Modality="SEG") and not (tmp_path / "work").exists()
    main(arguments())
    main(arguments("--once"))
    main(arguments("--dry-run"))
    assert "0 of 1 series would be segmented" in capsys.readouterr().out
    assert len(pacs.instances(Modality="SEG")) == 1
    pacs.add(small_series(tmp_path, "one", slices=4))  # a slice has come
    main(arguments())
    assert len(pacs.instances(Modality="SEG")) == 2


def test_killed_half_way(pacs, arguments, tmp_path):
    for name in ("one", "two", "three"):
        pacs.add(small_series(tmp_path, name))
    command = [sys.executable, "-u", "-m", "bundle.pyraseg", "pacs", *arguments()]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert "[1/3]" in process.stdout.readline()
        process.kill()
    assert "stored" in {entry["status"] for entry in journal(tmp_path).values()}
    main(arguments())
    assert {entry["status"] for entry in journal(tmp_path).values()} == {"stored"}
    assert not (tmp_path / "work" / "images").exists()
    for name in ("one", "two", "three"):
        assert len(pacs.instances(Modality="SEG", StudyInstanceUID=files.uid("study", name))) == 1


@pytest.mark.parametrize("moment", ["store", "require_same"])
def test_stopped_around_the_storage(moment, pacs, arguments, tmp_path, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    pacs.add(small_series(tmp_path, "one"))
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="Stopped"):
        patch.setattr(transfer, moment, stop)
        main(arguments())
    assert len(pacs.instances(Modality="SEG")) == (moment == "require_same")
    main(arguments())
    assert len(pacs.instances(Modality="SEG")) == 1
    (entry,) = journal(tmp_path).values()
    assert entry["status"] == "stored"


def test_a_bad_series_stops_no_other(pacs, arguments, tmp_path, capsys):
    for name in ("one", "two"):
        pacs.add(small_series(tmp_path, name))
    bad = small_series(
        tmp_path, "bad", ImagePositionPatient=[0, 0, 0], per_slice=lambda k: {"ImagePositionPatient": [0, 0, 0]}
    )
    pacs.add(bad)
    with pytest.raises(PyrasegError, match="1 series are not"):
        main(arguments())
    assert len(pacs.instances(Modality="SEG")) == 2
    entry = journal(tmp_path)[files.uid("series", "bad")]
    assert entry["status"] == "failed" and "3 slices lie in 1 places" in entry["reason"]
    capsys.readouterr()
    main(arguments("--dry-run"))
    assert "0 of 3 series would be segmented" in capsys.readouterr().out
    with pytest.raises(PyrasegError, match="1 series are not"):
        main(arguments("--retry-failed"))
    assert len(pacs.instances(Modality="SEG")) == 2


def test_a_full_disk_is_no_fault_of_the_series(pacs, arguments, tmp_path, caplog, limit_files):
    sources = small_series(tmp_path, "one")
    pacs.add(sources)
    limit_files(max(file.stat().st_size for file in sources) + 500)  # the segmentation is larger
    with pytest.raises(PyrasegError, match="1 series are not"):
        main(arguments())
    limit_files(-1)
    assert "not segmented this time, Nothing can be written to" in caplog.text
    main(arguments())  # it is tried again without being asked to
    assert journal(tmp_path)[files.uid("series", "one")]["status"] == "stored"


def test_only_what_the_filters_name(pacs, arguments, tmp_path):
    pacs.add(small_series(tmp_path, "old", StudyDate="20200101"))
    pacs.add(small_series(tmp_path, "new", StudyDate="20260102"))
    pacs.add(small_series(tmp_path, "mr", StudyDate="20260102", Modality="MR"))
    main(arguments("--filter", "Modality=CT", "StudyDate=20260101-"))
    assert set(journal(tmp_path)) == {files.uid("series", "new")}
    uids = [f"{level}InstanceUID={files.uid(level.lower(), 'old')}" for level in ("Study", "Series")]
    main(arguments("--filter", *uids))
    assert set(journal(tmp_path)) == {files.uid("series", "new"), files.uid("series", "old")}


def test_watching_waits_until_a_series_is_whole(pacs, arguments, tmp_path, monkeypatch):
    """The second half of the images comes after the first look."""
    paths = small_series(tmp_path, "one", slices=4)
    counts = []

    def meanwhile(seconds: float) -> None:
        assert seconds == 7
        counts.append(len(pacs.instances(Modality="SEG")))
        pacs.add(paths[2:])
        if len(counts) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(worker, "time", SimpleNamespace(sleep=meanwhile))
    pacs.add(paths[:2])
    with pytest.raises(SystemExit, match="Stopped"):
        main(arguments("--watch", "7"))
    assert counts == [0, 0, 1]
    (entry,) = journal(tmp_path).values()
    assert entry["instances"] == 4


def test_two_at_once(pacs, arguments, tmp_path):
    with another(tmp_path / "work", work="worker"), pytest.raises(PyrasegError, match="Another worker writes to"):
        main(arguments())


def test_a_damaged_journal(pacs, arguments, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "journal.json").write_text("[]")
    with pytest.raises(PyrasegError, match="Move it away"):
        main(arguments())
