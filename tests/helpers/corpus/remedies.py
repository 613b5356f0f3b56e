# SPDX-License-Identifier: Apache-2.0
"""Do literally what a message advises."""

import re
import shlex
import shutil
from pathlib import Path

import pydicom


def select(folder: Path, message: str, work: Path) -> list[tuple[object, dict]]:
    """Read with each `--select` that the message types."""
    advised = re.findall(r"--select ('(?:[^']|'\"'\"')*'|\S+)", message)
    assert advised, message
    return [(folder, {"select": shlex.split(text)[0].rstrip(",.")}) for text in advised]


def folder_each(folder: Path, message: str, work: Path) -> list[tuple[object, dict]]:
    """Give each series a folder of its own."""
    assert re.search(r"Give each a folder of its\s+own", message), message
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        series = pydicom.dcmread(file, stop_before_pixels=True).SeriesInstanceUID
        (work / series).mkdir(exist_ok=True)
        shutil.copy(file, work / series)
    return [(own, {}) for own in sorted(work.iterdir())]


def stack_each(folder: Path, message: str, work: Path) -> list[tuple[object, dict]]:
    """Give each stack a folder of its own: in the order of the image numbers, one begins where a place comes again."""
    assert "Move the files of one stack to a folder of their own" in message, message
    files = sorted(folder.iterdir(), key=lambda file: pydicom.dcmread(file, stop_before_pixels=True).InstanceNumber)
    stacks, seen = [], set()
    for file in files:
        place = tuple(pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient)
        if not stacks or place in seen:
            stacks.append(work / str(len(stacks)))
            stacks[-1].mkdir()
            seen.clear()
        seen.add(place)
        shutil.copy(file, stacks[-1])
    return [(own, {}) for own in stacks]


def file_alone(folder: Path, message: str, work: Path) -> list[tuple[object, dict]]:
    """Read each file alone."""
    assert "read one file alone" in message or "read each file alone" in message, message
    return [(file, {}) for file in sorted(folder.rglob("*")) if file.is_file()]


def remove_copies(folder: Path, message: str, work: Path) -> list[tuple[object, dict]]:
    """Remove files whose pixels and place another has."""
    assert "Remove the copies" in message, message
    seen = set()
    for file in sorted(folder.iterdir()):
        dataset = pydicom.dcmread(file)
        content = str(dataset.ImagePositionPatient), dataset.PixelData
        if content not in seen:
            seen.add(content)
            shutil.copy(file, work)
    return [(work, {})]
