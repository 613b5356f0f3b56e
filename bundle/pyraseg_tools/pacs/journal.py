# SPDX-License-Identifier: Apache-2.0
"""Remember which series a model has done, so that nothing is done twice after a stop at any point."""

import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import PyrasegError, held, replacing

#: Format 1 had the one segmentation of a series where now its objects are.
FORMAT = 2


@dataclass(frozen=True)
class Entry:
    """What became of a series.

    Attributes:
        status: "storing", from before the results are sent until they have arrived; "stored"; "failed".
        instances: how many images the series had.
        objects: series and SOP instance UID of each result.
        reason: why it failed.
    """

    status: str
    instances: int
    objects: tuple[tuple[str, str], ...] = ()
    reason: str = ""


class Journal:
    """A file of what a model has done, by its hash and by the UIDs of the series; no name of a patient is in it.

    Args:
        path: JSON file; written whole at each change.
        model_hash: SHA-256 of the model. Another model begins anew.

    Raises:
        PyrasegError: the file is none that this class wrote.
    """

    def __init__(self, path: Path, *, model_hash: str) -> None:
        self.path = path
        self._models = _read(path)
        self._entries = self._models.setdefault(model_hash, {})

    def __getitem__(self, series_uid: str) -> Entry | None:
        item = self._entries.get(series_uid)
        fields: dict[str, Any] = {**item, "objects": tuple(map(tuple, item["objects"]))} if item else {}
        return Entry(**fields) if fields else None

    def __setitem__(self, series_uid: str, entry: Entry) -> None:
        self._entries[series_uid] = asdict(entry)
        with replacing(self.path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps({"format": FORMAT, "models": self._models}, indent=1), encoding="utf-8")

    def of_status(self, status: str) -> list[str]:
        """Return the UIDs of the series of a status."""
        return [uid for uid, item in self._entries.items() if item["status"] == status]

    def forget_failures(self) -> None:
        """Let what failed be tried again."""
        for series_uid in self.of_status("failed"):
            del self._entries[series_uid]


def _read(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] == 1:
            for item in (item for entries in content["models"].values() for item in entries.values()):
                item["objects"] = [one] if (one := item.pop("segmentation")) else []
            return content["models"]
        if content["format"] == FORMAT:
            return content["models"]
    except (ValueError, KeyError, TypeError) as error:
        raise PyrasegError(
            f"{path} is no journal of `pyraseg pacs`, or damaged. Move it away to start again."
        ) from error
    raise PyrasegError(f"{path} is of format {content['format']}, this program's is {FORMAT}. Move it away.")


@contextmanager
def sole_user(folder: Path) -> Generator[Path]:
    """Keep all others out of a folder, and yield an empty one within it for images of patients.

    Only the user can read in it. It is emptied at the end, or at the next start where a process was killed.

    Raises:
        PyrasegError: another worker is at work there, of this process or another.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    images = folder / "images"
    with held(folder, "worker"):
        if images.exists():
            shutil.rmtree(images)
        images.mkdir(mode=0o700)
        try:
            yield images
        finally:
            shutil.rmtree(images)
