# SPDX-License-Identifier: Apache-2.0
"""Label a set of images one after the other: the most uncertain first, each with its corrections, time and file."""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import PyrasegError, read_csv, write_csv
from bundle.pyraseg.runtime import ClickModel, ClickSession, png_writer, seg_writer
from bundle.pyraseg_tools.click.places import label_file

#: Columns of the log: `image` stands for its name, which may be a patient's, see `key_of`.
COLUMNS = (
    *("image", "slices", "rows", "columns", "uncertainty", "clicks", "boxes", "taken_back", "seconds"),
    *("saved", "algorithm", "version"),
)
#: Seconds without anything being done that count at most: whoever takes a break does not label.
PAUSE = 60.0


@dataclass(eq=False)
class Task:
    """Hold one image of the set, and how far its labeling is.

    Attributes:
        name: of the image, see `find_inputs`.
        image: its path, or its DICOM files.
        uncertainty: of the automatic answer, in bits a pixel, see `ClickSession`.
        label: where its label lies, or will lie.
        is_done: whether it was saved.
        seconds: how long it was worked on.
        taken_back: corrections that were taken back.
    """

    name: str
    image: Any
    uncertainty: float
    label: Path
    is_done: bool = False
    seconds: float = 0.0
    taken_back: int = 0


def key_of(name: str) -> str:
    """Return what stands for an image's name in the log, which so names no patient: the start of its SHA-256.

    >>> key_of("case_01")
    '26fdedcd916e'
    """
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def by_uncertainty(
    model: ClickModel,
    items: Iterable[dict[str, Any]],
    labels: Path,
    *,
    options: dict[str, Any],
    failed: Callable[[str, Exception], None],
) -> list[Task]:
    """Return what there is to label, the images whose automatic answer is the most uncertain first.

    Args:
        model: that answers.
        items: of `find_inputs`.
        labels: folder of the labels; an image whose label is there is done.
        options: of every `ClickSession`.
        failed: is told what cannot be labeled, and why.
    """
    found = []
    for item in items:
        try:
            if "fault" in item:
                raise PyrasegError(item["fault"])
            session = ClickSession(model, item["image"], name=item["name"], **options)
        except Exception as error:
            failed(item["name"], error)
            continue
        label = label_file(labels, item["name"], is_dicom=bool(session.result().files))
        found.append(Task(item["name"], item["image"], session.uncertainty, label, label.is_file()))
    return sorted(found, key=lambda task: (-task.uncertainty, task.name))


@dataclass(eq=False)
class Labeling:
    """Label the images of a set, of which one is open.

    Args:
        model: that takes clicks.
        tasks: the images, in the order in which they are labeled.
        log: CSV with a row for each time that a label was saved.
        options: of every `ClickSession`.

    Attributes:
        session: of the image that is open.
        place: its number in `tasks`.
        is_saved: whether its label is as its session is.
    """

    model: ClickModel
    tasks: Sequence[Task]
    log: Path
    options: dict[str, Any] = field(default_factory=dict)
    session: ClickSession | None = None
    place: int = -1
    is_saved: bool = True
    _last: float = 0.0

    @property
    def first(self) -> int:
        """Return the number of the first image that is not labeled, or 0 where all are."""
        return next((number for number, task in enumerate(self.tasks) if not task.is_done), 0)

    @property
    def task(self) -> Task:
        """Return the image that is open."""
        return self.tasks[self.place]

    @property
    def opened(self) -> ClickSession:
        """Return the session of the image that is open.

        Raises:
            PyrasegError: none is.
        """
        if self.session is None:
            raise PyrasegError("No image is open.")
        return self.session

    def open(self, place: int) -> ClickSession:
        """Open an image with the automatic answer for it; what was not saved of another one is lost.

        Raises:
            PyrasegError: there is no such image, or it cannot be read any more.
        """
        if not 0 <= place < len(self.tasks):
            raise PyrasegError(f"There is no image {place + 1}: the set has {len(self.tasks)}.")
        self._count()
        task = self.tasks[place]
        self.session = ClickSession(self.model, task.image, name=task.name, **self.options)
        self.place, self.is_saved, self._last = place, task.is_done, time.monotonic()
        return self.session

    def refine(self, **correction: Any) -> list[int]:
        """Correct the image that is open, see `ClickSession.refine`."""
        changed = self.opened.refine(**correction)
        self.is_saved = False
        self._count()
        return changed

    def undo(self) -> list[int]:
        """Take the last correction of the image that is open back, see `ClickSession.undo`."""
        changed = self.opened.undo()
        if changed:
            self.task.taken_back += 1
            self.is_saved = False
        self._count()
        return changed

    def save(self) -> Path:
        """Write the label of the image that is open, as a DICOM SEG or a PNG, and a row of the log; return its file.

        Raises:
            PyrasegError: it cannot be written.
        """
        session, task = self.opened, self.task
        self._count()
        if session.result().files:
            write = seg_writer(self.model, algorithm_type="SEMIAUTOMATIC", ending=".dcm")
        else:
            write = png_writer(self.model.structures)
        path, *_ = write(session.result(), task.label.with_suffix(""))  # of regions, one each
        task.is_done = self.is_saved = True
        rows: list[dict[str, Any]] = list(read_csv(self.log, COLUMNS)) if self.log.is_file() else []
        slices, height, width = session.shape
        name, version = self.model.algorithm
        write_csv(
            self.log,
            COLUMNS,
            [
                *rows,
                {
                    **{"image": key_of(task.name), "slices": slices, "rows": height, "columns": width},
                    **{"uncertainty": task.uncertainty, "clicks": session.clicks, "boxes": session.boxes},
                    **{"taken_back": task.taken_back, "seconds": round(task.seconds, 1)},
                    **{"saved": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
                    **{"algorithm": name, "version": version},
                },
            ],
            digits=4,
        )
        return path

    def _count(self) -> None:
        """Add the time since the last thing that was done to that of the image, see `PAUSE`."""
        now = time.monotonic()
        if self.place >= 0:
            self.task.seconds += min(now - self._last, PAUSE)
        self._last = now
