# SPDX-License-Identifier: Apache-2.0
"""Images as they arrive, on the disk, until their study is complete and done."""

import io
import math
import re
import shutil
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from bundle.pyraseg.core import PyrasegError, replacing
from bundle.pyraseg.dicom import description_of
from bundle.pyraseg_tools.pacs import RemoteSeries

LONGEST_UID = 64
_LEVELS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_HEADER = ["SOPClassUID", *_LEVELS]
#: What tells of a series which it is.
_CALLED = ["Modality", "SeriesNumber", "SeriesDescription"]


#: Digits and dots (PS3.5 9.1); zeros in front of a component break the standard and are met with.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)


class NoRoom(PyrasegError):
    """No more images may lie here at the moment."""


class NotUnderstood(PyrasegError):
    """The header of an object cannot be read, or has no sound UIDs."""


class Mismatch(PyrasegError):
    """An object is another than its sender says."""


def require_uid(text: str, keyword: str) -> str:
    """Return a UID that a name of a file may be made of.

    Raises:
        NotUnderstood: it is none.

    >>> require_uid("1.2.840", "StudyInstanceUID")
    '1.2.840'
    """
    if len(text) > LONGEST_UID or not _UID.fullmatch(text):
        raise NotUnderstood(f"its {keyword} is no UID")
    return text


@dataclass(frozen=True)
class Limits:
    """Bound what callers may fill the disk and the memory with.

    Attributes:
        object_bytes: of one object; it is in memory while it is received.
        bytes: of all that lie here.
        objects: how many may lie here.
    """

    object_bytes: int = 2**30
    bytes: int = 50 * 2**30
    objects: int = 200_000


@dataclass
class _Study:
    """Hold what has arrived: files and their sizes by series and SOP instance UID, and when the last one came."""

    changed: float
    series: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    waiting: bool = True


class Inbox:
    """Keep received images in a folder, by study and series.

    An object is there whole or not at all, and what is there survives the process. Names of files are UIDs that were
    checked to be digits and dots.

    Args:
        folder: it is made, and only the user can read in it. What an earlier process left there has arrived now.
        limits: what may lie in it.
    """

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.folder = folder
        self.limits = limits or Limits()
        self._lock = threading.RLock()
        self._studies: dict[str, _Study] = {}
        self._count = self._bytes = 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in folder.glob("*/*/*"):
            if file.suffix == ".dcm" and not file.name.startswith("."):
                self._note(file.parts[-3], file.parts[-2], file.stem, file.stat().st_size)
            else:
                file.unlink()  # a killed process was writing it

    def receive(self, content: bytes, *, sop_class: str, instance: str) -> None:
        """Write an object, whole; the same one again replaces it.

        Args:
            content: of the file.
            sop_class, instance: UIDs that the request names.

        Raises:
            NotUnderstood: it has no header that can be read, or no sound UIDs.
            Mismatch: it is not what the request names.
            NoRoom: a limit is reached.
            DiskError: the disk takes no more.
        """
        try:
            header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True, specific_tags=list(_HEADER))
            found = {keyword: str(header.get(keyword) or "") for keyword in _HEADER}
        except Exception as error:  # Damaged files make pydicom raise nearly every type there is.
            raise NotUnderstood("its header cannot be read") from error
        study, series, own = (require_uid(found[keyword], keyword) for keyword in _LEVELS)
        if (found["SOPClassUID"], own) != (sop_class, instance):
            raise Mismatch("its SOP class or instance UID is another than the request names")
        with self._lock:
            if self._count >= self.limits.objects or self._bytes + len(content) > self.limits.bytes:
                raise NoRoom(
                    f"{self._count} images of {self._bytes / 2**30:.1f} GB lie here, and no more may: results are not "
                    "delivered, or what failed is kept"
                )
            with replacing(self.folder / study / series / f"{own}.dcm") as temporary:
                temporary.touch(mode=0o600)
                temporary.write_bytes(content)
            self._note(study, series, own, len(content))

    def complete(self, quiet: float) -> list[str]:
        """Return the UIDs of the studies that wait, and to which nothing came for so many seconds."""
        with self._lock:
            now = time.monotonic()
            return [uid for uid, study in self._studies.items() if study.waiting and now - study.changed >= quiet]

    def close(self, study_uid: str) -> None:
        """Let a study be complete at once: its sender says that it is."""
        with self._lock:
            if (study := self._studies.get(study_uid)) is not None:
                study.changed = -math.inf

    @property
    def is_settled(self) -> bool:
        """Return whether no study waits."""
        with self._lock:
            return not any(study.waiting for study in self._studies.values())

    def series(self, study_uid: str) -> list[RemoteSeries]:
        """Return the series of a study as they are now."""
        with self._lock:
            study = self._studies.get(study_uid)
            counts = {} if study is None else {uid: len(files) for uid, files in study.series.items()}
            return [self._described(study_uid, uid, count) for uid, count in sorted(counts.items())]

    def files(self, series: RemoteSeries) -> list[Path]:
        """Return the files of a series as they are now."""
        with self._lock:
            return [self.folder / series.study_uid / series.uid / f"{uid}.dcm" for uid in sorted(self._files(series))]

    def settle(self, study_uid: str, before: float) -> None:
        """Let a study wait no longer, unless something came to it since a moment of the monotonic clock."""
        with self._lock:
            if (study := self._studies.get(study_uid)) is not None and study.changed < before:
                study.waiting = False

    def postpone(self, study_uid: str, seconds: float, quiet: float) -> None:
        """Let a study be complete again in so many seconds."""
        with self._lock:
            if (study := self._studies.get(study_uid)) is not None:
                study.changed = max(study.changed, time.monotonic() + seconds - quiet)

    def remove(self, series: RemoteSeries) -> None:
        """Remove the images of a series, unless others have come since it was described."""
        with self._lock:
            if len(self._files(series)) != series.instances or series.study_uid not in self._studies:
                return
            shutil.rmtree(self.folder / series.study_uid / series.uid)
            study = self._studies[series.study_uid]
            sizes = study.series.pop(series.uid).values()
            self._count -= len(sizes)
            self._bytes -= sum(sizes)
            if not study.series:
                (self.folder / series.study_uid).rmdir()
                del self._studies[series.study_uid]

    def _files(self, series: RemoteSeries) -> dict[str, int]:
        study = self._studies.get(series.study_uid)
        return study.series.get(series.uid, {}) if study else {}

    def _note(self, study_uid: str, series_uid: str, instance_uid: str, size: int) -> None:
        study = self._studies.setdefault(study_uid, _Study(time.monotonic()))
        files = study.series[series_uid]
        self._count += instance_uid not in files
        self._bytes += size - files.get(instance_uid, 0)
        files[instance_uid] = size
        study.changed, study.waiting = time.monotonic(), True

    def _described(self, study_uid: str, uid: str, count: int) -> RemoteSeries:
        file = self.folder / study_uid / uid / f"{next(iter(self._studies[study_uid].series[uid]))}.dcm"
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_CALLED))
        called = {"number": str(header.get("SeriesNumber") or ""), "description": description_of(header)}
        return RemoteSeries(study_uid, uid, str(header.get("Modality") or ""), count, **called)
