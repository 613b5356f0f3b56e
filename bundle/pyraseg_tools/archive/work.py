# SPDX-License-Identifier: Apache-2.0
"""Do one series after the other: look whether its result is there, fetch, segment, deliver."""

import json
import logging
import math
import os
import shutil
import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from bundle.pyraseg.core import DiskError, PyrasegError, describe, file_digest, is_out_of_memory, keep_memory
from bundle.pyraseg.runtime import Model
from bundle.pyraseg_tools.archive.outcome import AGAIN, DONE, FAILED, Outcome
from bundle.pyraseg_tools.archive.places import Access, Source, open_source, open_target, result_name
from bundle.pyraseg_tools.archive.table import Row
from bundle.pyraseg_tools.pacs import PacsError, RuntimeSegmenter, Unavailable

logger = logging.getLogger(__name__)

#: Stands for a series that is infinitely far from those of the training: JSON has no number for it.
FAR = 1e9


@dataclass(frozen=True)
class Job:
    """Hold what every worker of a run is told.

    Attributes:
        model: file of the ONNX model, on each machine at the same path.
        model_hash: its SHA-256; a worker whose file is another one does nothing.
        target: address of the results.
        images: folder for images in use, of each machine.
        access: to a PACS.
        select, refuse, unlike, seg_type: see `pacs.RuntimeSegmenter`.
        threads: of each worker.
    """

    model: Path
    model_hash: str
    target: str
    images: Path
    access: Access = field(default_factory=Access)
    select: dict[str, object] = field(default_factory=dict)
    refuse: tuple[str, ...] | None = None
    unlike: str = "warn"
    seg_type: str = "BINARY"
    threads: int = 1

    @property
    def key(self) -> str:
        """Return what stands for the model and for all else that makes another result of the same images."""
        if not self.select and self.seg_type == "BINARY":
            return self.model_hash
        chosen = sorted((name, str(value)) for name, value in self.select.items())
        return sha256(json.dumps([self.model_hash, chosen, self.seg_type]).encode()).hexdigest()


class SeriesWorker:
    """Hold a model in memory, and do series with it.

    Args:
        job: what is to be done with each.
        folder: of this process, for the images of one series at a time, see `scratch`.

    Raises:
        PyrasegError: the model is none, or another one; or there is no way to the target.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        keep_memory()
        logging.getLogger("pydicom").setLevel(logging.ERROR)  # its warnings quote values of headers
        if (found := file_digest(job.model)) != job.model_hash:
            raise PyrasegError(f"{job.model} on {socket.gethostname()} is another model ({found[:12]}). Copy it anew.")
        self.job, self.folder = job, folder
        self.segmenter = RuntimeSegmenter(
            Model(job.model, threads=job.threads),
            select=job.select,
            refuse=job.refuse,
            unlike=job.unlike,
            seg_type=job.seg_type,
        )
        self.target = open_target(job.target, job.access)
        self._sources: dict[str, Source] = {}

    def work(self, row: Row) -> Outcome:
        """Return what became of a series; nothing that happens to it is raised."""
        about = {"series": row.series, "images": row.images}
        try:
            return self._done(row, about)
        except (Unavailable, DiskError) as error:  # a disk that takes no more takes nothing of others either
            return Outcome(AGAIN, **about, reason=str(error), no_way=True)
        except PacsError as error:
            return Outcome(AGAIN, **about, reason=str(error))
        except Exception as error:
            mine = is_out_of_memory(error) or (isinstance(error, OSError) and not isinstance(error, PyrasegError))
            return Outcome(AGAIN if mine else FAILED, **about, reason=describe(error))

    def _done(self, row: Row, about: dict[str, Any]) -> Outcome:
        name = result_name(row, self.job.key)
        figures = self.target.find(name)
        if figures is not None:
            return Outcome(DONE, **about, name=name, **figures, found=True)
        seconds: dict[str, float] = {}
        with TemporaryDirectory(dir=self.folder) as folder:
            images, results, returned = (Path(folder, part) for part in ("images", "results", "returned"))
            for part in (images, results, returned):
                part.mkdir()
            with _timed(seconds, "fetching"):
                files = self._source(row.source).fetch(row, images)
            with _timed(seconds, "segmenting"):
                seed = f"{self.job.key} {row.digest}"
                found = self.segmenter.find(files, results, name=row.series, seed=seed)
            unlike = FAR if found.unlike is not None and math.isinf(found.unlike) else found.unlike
            figures = {"volumes": found.volumes, "unlike": unlike}
            with _timed(seconds, "delivering"):
                self.target.deliver(results / "series_seg.dcm", name, figures, returned)
        return Outcome(DONE, **about, name=name, **figures, seconds=seconds)

    def _source(self, url: str) -> Source:
        if url not in self._sources:
            self._sources[url] = open_source(url, self.job.access)
        return self._sources[url]


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Generator[None]:
    began = monotonic()
    yield
    seconds[name] = round(monotonic() - began, 3)


@contextmanager
def scratch(folder: Path) -> Generator[Path]:
    """Yield a folder of this process for images of patients, which only the user can read in.

    It is removed at the end; what killed processes of this machine have left beside it, at the start.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in folder.glob(f"{socket.gethostname()}-*"):
        number = left.name.rpartition("-")[2]
        if number.isdecimal() and not _runs(int(number)):
            shutil.rmtree(left, ignore_errors=True)  # another worker may be at it
    own = folder / f"{socket.gethostname()}-{os.getpid()}"
    own.mkdir(exist_ok=True, mode=0o700)
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _runs(process: int) -> bool:
    """Return whether a process of a number runs; on Windows, which has no harmless signal, it is said of all."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
