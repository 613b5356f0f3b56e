# SPDX-License-Identifier: Apache-2.0
"""What is received lies on the disk whole, under names that lead nowhere else, and within limits."""

from pathlib import Path

import pydicom
import pytest

from bundle.pyraseg_tools.dimse import Inbox, Limits
from bundle.pyraseg_tools.dimse.inbox import Mismatch, NoRoom, NotUnderstood
from tests.helpers import dicom_files as files
from tests.helpers.pacs_series import small_series


def put(inbox: Inbox, file: Path) -> None:
    header = pydicom.dcmread(file)
    inbox.receive(file.read_bytes(), sop_class=str(header.SOPClassUID), instance=str(header.SOPInstanceUID))


def lying(inbox: Inbox) -> list[Path]:
    return [path for path in inbox.folder.rglob("*") if path.is_file()]


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return small_series(tmp_path, "one")


def test_it_is_there_byte_for_byte_and_for_the_user_alone(inbox, images):
    for file in images:
        put(inbox, file)
    (series,) = inbox.series(files.uid("study", "one"))
    assert (series.uid, series.modality, series.instances) == (files.uid("series", "one"), "CT", 3)
    assert sorted(file.read_bytes() for file in inbox.files(series)) == sorted(file.read_bytes() for file in images)
    assert all(path.stat().st_mode & 0o077 == 0 for path in [inbox.folder, *lying(inbox)])


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("uid", ["../../etc/cron", "1.2/../../3", "1.2\\3", "..", "1..2", "1." + "2" * 63, ""])
def test_no_name_is_made_of_what_is_no_uid(keyword, uid, inbox, images, tmp_path):
    image = pydicom.dcmread(images[0])
    with pydicom.config.disable_value_validation():
        image[keyword].value = uid
        image.save_as(tmp_path / "bad.dcm", enforce_file_format=False)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(NotUnderstood, match=f"its {keyword} is no UID"):
        inbox.receive((tmp_path / "bad.dcm").read_bytes(), sop_class=image.SOPClassUID, instance=uid)
    assert set(tmp_path.rglob("*")) == before


def test_another_object_than_was_named(inbox, images):
    image = pydicom.dcmread(images[0])
    for named in ({"instance": "1.2.3"}, {"sop_class": "1.2.3"}):
        said = {"sop_class": str(image.SOPClassUID), "instance": str(image.SOPInstanceUID), **named}
        with pytest.raises(Mismatch):
            inbox.receive(images[0].read_bytes(), **said)
    with pytest.raises(NotUnderstood):
        inbox.receive(b"no DICOM at all", sop_class="1.2", instance="1.3")
    assert not lying(inbox)


def test_limits_of_number_and_size(tmp_path, images):
    size = images[0].stat().st_size
    for limits in (Limits(objects=2), Limits(bytes=2 * size + 10)):
        inbox = Inbox(tmp_path / f"limited_{limits.objects}", limits)
        put(inbox, images[0])
        put(inbox, images[1])
        with pytest.raises(NoRoom, match="2 images"):
            put(inbox, images[2])
        (series,) = inbox.series(files.uid("study", "one"))
        inbox.remove(series)
        put(inbox, images[2])
        assert len(lying(inbox)) == 1


def test_what_a_killed_process_left(tmp_path, inbox, images):
    put(inbox, images[0])
    (file,) = lying(inbox)
    (file.parent / ".1.2.dcm.0123.tmp").write_bytes(b"half of it")
    again = Inbox(inbox.folder)
    assert lying(again) == [file]
    assert again.complete(0) == [files.uid("study", "one")] and again.complete(60) == []


def test_a_study_is_complete_after_a_quiet_time_and_not_removed_while_images_come(inbox, images):
    put(inbox, images[0])
    study = files.uid("study", "one")
    assert inbox.complete(60) == [] and inbox.complete(0) == [study] and not inbox.is_settled
    (before,) = inbox.series(study)
    put(inbox, images[0])  # sent again
    assert [one.instances for one in inbox.series(study)] == [1]
    put(inbox, images[1])
    inbox.remove(before)
    assert len(lying(inbox)) == 2
    inbox.postpone(study, 60, quiet=5)
    assert inbox.complete(5) == []
    inbox.close(study)
    assert inbox.complete(1e6) == [study]
    (now,) = inbox.series(study)
    inbox.remove(now)
    assert list(inbox.folder.iterdir()) == [] and inbox.is_settled
