# SPDX-License-Identifier: Apache-2.0
"""What becomes of series on media, in archives and by anonymizers."""

from pathlib import Path

import pydicom
from pydicom.fileset import FileSet

from tests.helpers.corpus import remedies
from tests.helpers.corpus.ct import ct
from tests.helpers.corpus.form import Form, Stack, joined
from tests.helpers.corpus.writing import SIZE, numbers, planes, uid


def bare(folder: Path) -> list[Stack]:
    """Neither preamble, nor meta header, nor suffix."""
    return [ct(folder, meta=False, name=lambda k: f"I{k}")]


def unnamed(folder: Path) -> list[Stack]:
    """No UID at all."""
    return [
        ct(
            folder,
            per_slice=lambda k: dict.fromkeys(
                ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"]
            ),
            meta=False,
        )
    ]


def backwards(folder: Path) -> list[Stack]:
    """Names of files that run against the places."""
    return [ct(folder, name=lambda k: f"{90 - k}.dcm")]


def no_numbers(folder: Path) -> list[Stack]:
    return [ct(folder, per_slice=lambda k: {"InstanceNumber": None})]


def medium(folder: Path) -> list[Stack]:
    """A CD: files in folders by number, and a DICOMDIR that lists them."""
    where, stored = planes(), numbers()
    made = [
        ct(
            folder / "made" / f"S{part}",
            where[3 * part : 3 * part + 3],
            stored[3 * part : 3 * part + 3],
            first=1 + 3 * part,
            name=lambda k: f"I{k:05d}",
        )
        for part in range(2)
    ]
    (folder / "DICOM").mkdir()
    listed = FileSet()
    for file in sorted((folder / "made").rglob("I*")):
        listed.add(pydicom.dcmread(file))
        file.rename(folder / "DICOM" / f"{file.parent.name}_{file.name}")
    listed.write(folder / "medium")
    for file in (folder / "DICOM").iterdir():
        file.unlink()
    for part in (folder / "made").iterdir():
        part.rmdir()
    (folder / "made").rmdir()
    (folder / "DICOM").rmdir()
    return [joined(made)]


def stored_twice(folder: Path) -> list[Stack]:
    """The same images a second time, under other names."""
    stack = ct(folder)
    for file in list(folder.iterdir()):
        (folder / f"copy of {file.name}").write_bytes(file.read_bytes())
    return [stack]


def sent_twice(folder: Path) -> list[Stack]:
    """The same images a second time, with UIDs of their own."""
    stack = ct(folder)
    for file in list(folder.iterdir()):
        dataset = pydicom.dcmread(file)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid("again", file.name)
        dataset.save_as(folder / f"again_{file.name}")
    return [stack]


def one_uid_for_two(folder: Path) -> list[Stack]:
    """Two patients under one series UID, interleaved in one folder."""
    stacks = []
    for number in range(2):
        own = {"PatientID": f"SECRET-{number}", "StudyInstanceUID": uid("study", number)}
        where = planes(origin=(-40.0, -35.5, 100.25 + 1.5 * number))
        stacks.append(
            ct(
                folder,
                where,
                numbers(start=number),
                name=lambda k, n=number: f"{k}{n}",
                first=1 + SIZE[0] * number,
                **own,
            )
        )
    return stacks


def two_series(folder: Path) -> list[Stack]:
    """Two series in one folder: each is an input."""
    return [
        ct(
            folder,
            stored=numbers(start=number),
            SeriesInstanceUID=uid("series", number),
            name=lambda k, n=number: f"{n}_{k}",
        )
        for number in range(2)
    ]


def over_folders(folder: Path) -> list[Stack]:
    """Hundreds of images, a folder for some of each."""
    where, stored = planes(), numbers()
    parts = [
        ct(
            folder / str(part),
            where[part::2],
            stored[part::2],
            name=lambda k: f"{k}",
            per_slice=lambda k, part=part: {
                "InstanceNumber": 2 * k + part + 1,
                "SOPInstanceUID": uid("spread", k, part),
            },
        )
        for part in range(2)
    ]
    return [joined(parts)]


FORMS = [
    Form("No meta header, no suffix", "older archives", bare),
    Form("No UIDs", "converters", unnamed),
    Form("Names of files against the order", "all", backwards),
    Form("No image numbers", "anonymizers", no_numbers),
    Form("A medium with a DICOMDIR", "CDs", medium, happens="read; the DICOMDIR is left out"),
    Form("A series over folders", "CDs", over_folders),
    Form("Two series in a folder", "exports", two_series, happens="two inputs"),
    Form(
        "Two patients under one series UID",
        "anonymizers",
        one_uid_for_two,
        happens="two inputs, with a warning",
        warns="different series",
    ),
    Form("Images stored twice", "exports", stored_twice, happens="read once, with a warning", warns="once more"),
    Form(
        "Images sent twice, with other UIDs",
        "PACS",
        sent_twice,
        "refused: remove the copies",
        refused=("Remove the copies",),
        remedy=remedies.remove_copies,
    ),
]
