# SPDX-License-Identifier: Apache-2.0
"""An archive of phantom patients, some of whose series are broken in ways that archives have."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

from benchmarks.whole_series import write_thin_slices
from bundle.pyraseg_tools.datasets.phantom import phantom_case, write_series

#: One series in so many is broken.
BROKEN_EVERY = 20
#: Every so manieth slice of a phantom is kept.
THINNED = 3


def cut_short(files: list[Path]) -> None:
    """Let a transfer end in the pixels of a slice."""
    files[len(files) // 2].write_bytes(files[len(files) // 2].read_bytes()[:-500])


def other_size(files: list[Path]) -> None:
    """Give a slice other rows than the others have."""
    dataset = pydicom.dcmread(files[3])
    dataset.Rows, dataset.PixelData = dataset.Rows // 2, dataset.pixel_array[: dataset.Rows // 2].tobytes()
    dataset.save_as(files[3])


def two_at_a_place(files: list[Path]) -> None:
    """Put a slice of other pixels where another one lies."""
    dataset = pydicom.dcmread(files[2])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(
        entropy_srcs=[str(files[2].name)]
    )
    dataset.PixelData = (dataset.pixel_array + 7).astype(dataset.pixel_array.dtype).tobytes()
    dataset.save_as(files[2].with_name("again.dcm"))


def no_position(files: list[Path]) -> None:
    """Take the position of a slice away."""
    dataset = pydicom.dcmread(files[1])
    del dataset.ImagePositionPatient
    dataset.save_as(files[1])


def other_modality(files: list[Path]) -> None:
    """Make it MR, which the model is not for."""
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.Modality = "MR"
        dataset.save_as(file)


BREAKS: tuple[Callable[[list[Path]], None], ...] = (cut_short, other_size, two_at_a_place, no_position, other_modality)


def write_archive(folder: Path, count: int, *, size: int = 64) -> dict[str, list[str]]:
    """Write an archive, `PATIENT/ct` a series; return the UIDs of its series, "good" and by what is wrong with them.

    Args:
        folder: is made anew.
        count: of patients.
        size: pixels in a row.
    """
    shutil.rmtree(folder, ignore_errors=True)
    found: dict[str, list[str]] = {"good": []}
    broken = 0
    for number in range(count):
        seed, index = 2024 + number // 24, number % 24
        place = folder / f"{number:04d}" / "ct"
        case = phantom_case(seed, index, size=size)
        few = slice(None, None, THINNED)
        case = replace(case, hu=case.hu[few], positions=case.positions[few], slice_step=case.slice_step * THINNED)
        write_series(place, case, seed=seed, number=number + 1)
        files = [file for file in sorted(place.glob("*.dcm")) if "scout" not in file.name.lower()]
        uid = str(pydicom.dcmread(files[-1], stop_before_pixels=True).SeriesInstanceUID)
        is_due = (number + 1) // BROKEN_EVERY > broken
        if is_due and len(files) > 4:  # not one file with all frames
            breaks = BREAKS[broken % len(BREAKS)]
            breaks(files)
            found.setdefault(breaks.__name__, []).append(uid)
            broken += 1
        else:
            found["good"].append(uid)
    return found


def write_thin_archive(folder: Path, count: int) -> None:
    """Write series of 100 slices of 512 x 512, each of another patient: copies of one whose UIDs differ."""
    shutil.rmtree(folder, ignore_errors=True)
    write_thin_slices(folder / "0000")
    first = [pydicom.dcmread(file) for file in sorted((folder / "0000").glob("*.dcm"))]
    for number in range(1, count):
        place = folder / f"{number:04d}"
        place.mkdir()
        for position, dataset in enumerate(first):
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
                dataset[keyword].value = generate_uid(entropy_srcs=[keyword, str(number)])
            uid = generate_uid(entropy_srcs=["image", str(number), str(position)])
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
            dataset.save_as(place / f"{position:04d}.dcm")
