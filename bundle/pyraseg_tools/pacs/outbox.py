# SPDX-License-Identifier: Apache-2.0
"""Keep what was made of a series until it has arrived, so that after a stop the same objects are sent, not new ones."""

import hashlib
import shutil
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom

from bundle.pyraseg.core import replacing


class Outbox:
    """A folder with a folder of DICOM objects for each series whose results are on their way.

    The names are hashes: a UID that came from elsewhere is no name of a file.

    Args:
        folder: it is made, and only the user can read in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def files(self, series_uid: str) -> list[Path]:
        """Return the objects of a series, sorted by name; none where there are none."""
        return sorted(self._place(series_uid).glob("*.dcm"))

    @contextmanager
    def filling(self, series_uid: str) -> Generator[Path]:
        """Yield an empty folder for the objects of a series; they replace earlier ones at the end, all or none."""
        self.remove(series_uid)
        with replacing(self._place(series_uid)) as folder:
            folder.mkdir(mode=0o700)
            yield folder

    def remove(self, series_uid: str) -> None:
        """Remove the objects of a series, if there are any."""
        if (place := self._place(series_uid)).exists():
            shutil.rmtree(place)

    def keep_only(self, series_uids: Iterable[str]) -> None:
        """Remove the objects of all other series, and what a killed process was writing."""
        kept = {self._place(uid) for uid in series_uids}
        for place in set(self.folder.iterdir()) - kept:
            shutil.rmtree(place)

    def _place(self, series_uid: str) -> Path:
        return self.folder / hashlib.sha256(series_uid.encode()).hexdigest()[:32]


def objects_of(files: Sequence[Path]) -> tuple[tuple[str, str], ...]:
    """Return series and SOP instance UID of DICOM files."""
    tags = ["SeriesInstanceUID", "SOPInstanceUID"]
    headers = [pydicom.dcmread(file, specific_tags=tags, stop_before_pixels=True) for file in files]
    return tuple((str(header.SeriesInstanceUID), str(header.SOPInstanceUID)) for header in headers)
