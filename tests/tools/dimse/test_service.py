# SPDX-License-Identifier: Apache-2.0
"""From the first image that arrives to the result in the archive, with everything that may come in between."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest

from bundle.pyraseg_tools.dimse import Inbox, NodeArchive, Sender, attend
from bundle.pyraseg_tools.pacs import Journal, Outbox, Worker, sole_user
from bundle.pyraseg_tools.pacs.journal import Entry
from tests.helpers import dicom_files as files
from tests.helpers.dimse_nodes import Archive, free_port, send, until
from tests.helpers.pacs_series import small_series
from tests.tools.dimse.conftest import threshold, to

STUDY, SERIES = files.uid("study", "one"), files.uid("series", "one")


@dataclass
class Site:
    """Run the service until everything is done, and start again as a new process would."""

    work: Path
    archive: Archive
    commitments: object
    made: list[str] = field(default_factory=list)

    segmenter = staticmethod(threshold)

    def inbox(self) -> Inbox:
        return Inbox(self.work / "received")

    def run(self, inbox: Inbox | None = None, *, quiet: float = 0.2, model: str = "abc", **options: object) -> Journal:
        """Work off what is there; a destination that is away is tried again at once, at the fourth time no more."""
        inbox = inbox or self.inbox()

        def segment(images: list[Path], folder: Path, *, name: str) -> str:
            self.made.append(name)
            return self.segmenter(images, folder, name=name)

        with sole_user(self.work) as images:
            journal = Journal(self.work / "journal.json", model_hash=model)
            sender = Sender(to(self.archive), self.commitments, patience=0.5)
            outbox = Outbox(self.work / "outbox")
            worker = Worker(NodeArchive(inbox, sender), segment, journal, images=images, outbox=outbox)
            attend(inbox, worker, quiet=quiet, retry=0.2, once=True, **options)
        return journal

    def fill(self, paths: list[Path]) -> Inbox:
        """Put images into the inbox, as the listener does."""
        inbox = self.inbox()
        for path in paths:
            header = pydicom.dcmread(path)
            inbox.receive(path.read_bytes(), sop_class=header.SOPClassUID, instance=header.SOPInstanceUID)
        return inbox

    def left(self) -> list[Path]:
        """Return the files with images or results that lie there."""
        return [path for path in self.work.rglob("*.dcm") if path.is_file()]


@pytest.fixture
def site(archive, commitments, tmp_path) -> Site:
    return Site(tmp_path / "work", archive, commitments)


def test_a_study_comes_back_segmented_and_leaves_nothing(site, listening, tmp_path, caplog):
    sent = small_series(tmp_path, "one")
    inbox = site.inbox()
    port = listening(inbox=inbox)
    assert send(sent[:2], port) == [0, 0]
    service = threading.Thread(target=site.run, args=(inbox,), kwargs={"quiet": 1.5}, daemon=True)
    service.start()
    assert send(sent[2:], port) == [0]  # within the quiet time
    until(lambda: site.archive.stored)
    service.join(20)
    (seg,) = site.archive.stored
    (tmp_path / "alone").mkdir()
    threshold(sent, tmp_path / "alone", name="")
    assert seg.PixelData == pydicom.dcmread(tmp_path / "alone" / "series_seg.dcm").PixelData
    assert seg.StudyInstanceUID == STUDY and seg.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 3
    assert site.left() == [] and site.made == [SERIES]
    text = caplog.text + (site.work / "journal.json").read_text()
    assert f"3 images -> {seg.SOPInstanceUID}, stored by ARCHIVE (voxels: liver" in text
    image = pydicom.dcmread(sent[0])
    for secret in (str(image.PatientName), str(image.PatientID)):
        assert secret and secret not in text


def test_nothing_is_done_twice(site, tmp_path):
    sent = small_series(tmp_path, "one")
    for _ in range(2):  # a scanner sends again
        site.run(site.fill(sent))
        assert site.left() == []
    assert len(site.archive.stored) == 1
    site.run(site.fill(sent), model="another")
    assert len(site.archive.stored) == 2


@pytest.mark.slow
def test_an_archive_that_is_away_is_waited_for(site, tmp_path, caplog):
    """The result is made once, and lies there until it can go."""
    inbox = site.fill(small_series(tmp_path, "one"))
    site.archive = Archive(port=free_port())
    service = threading.Thread(target=site.run, args=(inbox,), daemon=True)
    service.start()
    until(lambda: caplog.text.count("Trying again in 0.2 s; nothing is lost.") >= 2)
    assert len(site.left()) == 3 + 1
    assert json.loads((site.work / "journal.json").read_text())["models"]["abc"][SERIES]["status"] == "storing"
    with site.archive.running(site.archive.port):
        service.join(20)
        assert len(site.archive.stored) == 1 and site.made == [SERIES] and site.left() == []


class Stop(BaseException):
    """End a run as no handler expects it."""


def stopping(function: Callable, when: Callable[..., bool] = lambda *_: True) -> Callable:
    """Return a function that does what it should, and then stops the run."""

    def run(*words: object, **options: object) -> None:
        function(*words, **options)
        if when(*words):
            raise Stop

    return run


def is_stored(journal: Journal, uid: str, entry: Entry) -> bool:
    return entry.status == "stored"


@pytest.mark.parametrize(
    ("owner", "name", "when"),
    [
        pytest.param(Site, "segmenter", lambda *_: True, marks=pytest.mark.slow),
        pytest.param(Journal, "__setitem__", lambda *_: True, marks=pytest.mark.slow),
        (Sender, "_store", lambda *_: True),
        pytest.param(Sender, "__call__", lambda *_: True, marks=pytest.mark.slow),
        (Journal, "__setitem__", is_stored),
        (Inbox, "remove", lambda *_: True),
    ],
)
def test_stopped_at_any_point(owner, name, when, site, tmp_path, monkeypatch):
    inbox = site.fill(small_series(tmp_path, "one"))
    with monkeypatch.context() as patch, pytest.raises(Stop):
        function = stopping(getattr(owner, name), when)
        patch.setattr(owner, name, staticmethod(function) if owner is Site else function)
        site.run(inbox)
    journal = site.run()
    assert len(set(site.archive.uids)) == 1  # whatever was sent again is the same object
    assert journal[SERIES].status == "stored" and journal[SERIES].objects[0][1] == site.archive.uids[0]
    assert site.left() == []
    assert len(site.made) == (2 if name == "segmenter" else 1)


def test_a_bad_series_stops_no_other_and_stays(site, tmp_path):
    bad = small_series(tmp_path, "bad", per_slice=lambda k: {"ImagePositionPatient": [0, 0, 0]})
    inbox = site.fill([*bad, *small_series(tmp_path, "one")])
    journal = site.run(inbox)
    assert journal[files.uid("series", "bad")].status == "failed" and journal[SERIES].status == "stored"
    assert len(site.left()) == 3  # of the bad one
    site.run()
    assert len(site.made) == 2  # it is not tried again
    site.run(keep="none")
    assert site.left() == []


def test_images_that_are_kept(site, tmp_path):
    sent = small_series(tmp_path, "one", slices=4)
    site.run(site.fill(sent[:3]), keep="all")
    assert len(site.left()) == 3
    site.run(keep="all")
    assert len(site.archive.stored) == 1
    site.run(site.fill(sent[3:]), keep="all")  # one more
    assert [len(one.ReferencedSeriesSequence[0].ReferencedInstanceSequence) for one in site.archive.stored] == [3, 4]


def test_images_that_come_too_late(site, tmp_path, caplog):
    """They are a part of a series, of which the others are gone: no result of its own, and not lost either."""
    sent = small_series(tmp_path, "one", slices=4)
    site.run(site.fill(sent[:3]))
    site.run(site.fill(sent[3:]))
    assert "1 images came after the series was segmented with 3" in caplog.text
    assert len(site.archive.stored) == 1 and len(site.left()) == 1
    site.run(site.fill(sent))
    assert len(site.archive.stored) == 2 and site.left() == []


def test_only_what_is_asked_for(site, tmp_path):
    inbox = site.fill([*small_series(tmp_path, "one"), *small_series(tmp_path, "mr", Modality="MR")])
    site.run(inbox, is_wanted=lambda one: one.modality == "CT")
    assert site.made == [SERIES] and site.left() == []


def test_several_objects_of_a_series_arrive_together_or_again(site, tmp_path):
    """A report refers to the segmentation by its UID: what is sent again is the same pair."""

    def two(images: list[Path], folder: Path, *, name: str) -> str:
        threshold(images, folder, name=name)
        other = pydicom.dcmread(folder / "series_seg.dcm")
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        other.save_as(folder / "series_other.dcm")
        return ""

    site.segmenter = two
    site.archive.status = 0xA700
    inbox = site.fill(small_series(tmp_path, "one"))
    service = threading.Thread(target=site.run, args=(inbox,), daemon=True)
    service.start()
    until(lambda: (site.work / "journal.json").exists())
    site.archive.status = 0
    service.join(20)
    entry = json.loads((site.work / "journal.json").read_text())["models"]["abc"][SERIES]
    assert sorted(site.archive.uids) == sorted(uid for _, uid in entry["objects"]) and len(site.archive.uids) == 2
    assert len(site.made) == 1
