# SPDX-License-Identifier: Apache-2.0
"""Segment an archive while workers and drivers are killed and a store fails; count what came of it.

The archive is made by code. It goes the three ways: from a folder to a folder, from S3 to S3, from Orthanc to Orthanc.
What counts at the end, of each series: how many results there are, whether they are equal in every voxel to those of
`inferring`, and whether anything else lies in the target.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import requests

from benchmarks.archive.processes import resident, thirds, workers_of
from benchmarks.archive.servers import BUCKET, s3
from bundle.pyraseg_tools.archive import read_table
from tests.helpers.orthanc import PASSWORD, USER, running

#: Most series that are done between two kills; and seconds that pass then until the kill, at most.
BETWEEN, DELAY = {"worker": 9, "driver": 40}, 1.5


def command(source: str, target: str, model: Path, work: Path, *more: str, workers: int = 2) -> list[str]:
    """Return what is run."""
    options = ["--work-dir", str(work), "--workers", str(workers), "--unlike", "ignore", "--timeout", "300"]
    return [
        sys.executable,
        "-m",
        "bundle.pyraseg",
        "archive",
        source,
        "--to",
        target,
        "--model",
        str(model),
        *options,
        *more,
    ]


@dataclass
class Trial:
    """Hold what is killed in a run, and what was seen.

    Attributes:
        most: how many workers and drivers are killed.
        dice: of the moments.
        killed: so far.
        memory: of the driver and of its workers together, MB, each second.
    """

    most: Mapping[str, int]
    dice: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float]] = field(default_factory=list)

    def run(self, words: Sequence[str], environment: Mapping[str, str], work: Path) -> int:
        """Run a command until it ends by itself, and again where it was killed; return its exit code.

        What was listed once is not listed again: the table takes the place of the source.

        Args:
            words: the command.
            environment: of its process.
            work: its work folder; beside it is the log.
        """
        place, table = words.index("archive") + 1, work / "table.parquet"
        while True:
            if table.exists():
                words = [*words[:place], str(table), *words[place + 1 :]]
            with work.with_name("log.txt").open("a") as output:
                process = subprocess.Popen(words, env=environment, stdout=output, stderr=subprocess.STDOUT)
                if not self._killed(process, work / "journal.sqlite"):
                    return process.returncode

    def _killed(self, process: subprocess.Popen, journal: Path) -> bool:
        """Kill workers, and maybe the driver, which is said; else wait for its end."""
        looked = time.monotonic()
        due = {name: done_in(journal) + self.dice.randint(0, most) for name, most in BETWEEN.items()}
        while process.poll() is None:
            time.sleep(0.3)
            workers = workers_of(process.pid)
            if time.monotonic() - looked > 1:
                looked = time.monotonic()
                self.memory.append((resident(process.pid), sum(map(resident, workers))))
            done = done_in(journal)
            for name in ("worker", "driver"):
                found = [process.pid] if name == "driver" else workers
                if done < due[name] or self.killed[name] >= self.most[name] or not workers:
                    continue
                time.sleep(self.dice.uniform(0, DELAY))
                with suppress(ProcessLookupError):
                    os.kill(self.dice.choice(found), signal.SIGKILL)
                    self.killed[name] += 1
                    due[name] = done + self.dice.randint(0, BETWEEN[name])
                if name == "driver":
                    process.wait()
                    return True
        return False


def done_in(journal: Path) -> int:
    """Return how many series a journal has as done."""
    if not journal.exists():
        return 0
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=10)) as connection:
        try:
            return connection.execute("SELECT count(*) FROM series WHERE state = 'done'").fetchone()[0]
        except sqlite3.OperationalError:  # it has no table yet
            return 0


def expected(images: Path, options: Sequence[str], folder: Path) -> dict[str, dict[tuple[str, int], np.ndarray]]:
    """Return what `inferring` finds in each series that it can segment, by the series' UID; see `labels_of`.

    Args:
        images: all series.
        options: of `inferring`, its config files among them.
        folder: of its results, which are taken as they are where it exists.
    """
    if not folder.exists():
        words = ["inferring", *options, "--dataset_dir", str(images), "--output_dir", str(folder)]
        subprocess.run(
            [sys.executable, "-m", "monai.bundle", "run", *words, "--outputs", "seg", "--unlike", "ignore"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
    found = {}
    for path in folder.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        if dataset.Modality == "SEG":
            found[str(dataset.ReferencedSeriesSequence[0].SeriesInstanceUID)] = labels_of(dataset)
    return found


def labels_of(dataset: pydicom.Dataset) -> dict[tuple[str, int], np.ndarray]:
    """Return the class of each pixel of each source image of a SEG, by its SOP Instance UID and frame, by highdicom.

    An image without any class has no entry.
    """
    seg = hd.seg.Segmentation.from_dataset(dataset)
    found: dict[tuple[str, int], np.ndarray] = {}
    frames = seg.pixel_array if seg.pixel_array.ndim == 3 else seg.pixel_array[None]
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        key = str(source.ReferencedSOPInstanceUID), int(source.get("ReferencedFrameNumber") or 1)
        labels = found.setdefault(key, np.zeros(frame.shape, np.uint8))
        labels[frame > 0] = number
    return {key: labels for key, labels in found.items() if labels.any()}


def judged(
    results: Sequence[pydicom.Dataset],
    truths: Mapping[str, Mapping[str, Any]],
    good: Sequence[str],
    states: Mapping[str, str],
) -> dict[str, Any]:
    """Return what is right and wrong of the results in a target; `truths` are what `expected` returns, by name."""
    by_series: dict[str, list[pydicom.Dataset]] = {}
    for dataset in results:
        by_series.setdefault(str(dataset.ReferencedSeriesSequence[0].SeriesInstanceUID), []).append(dataset)
    one = [uid for uid in good if len(by_series.get(uid, [])) == 1]
    labels = {uid: labels_of(by_series[uid][0]) for uid in one}
    equal = {name: sum(are_equal(labels[uid], truth[uid]) for uid in one) for name, truth in truths.items()}
    return {
        "good series": len(good),
        "with one result": len(one),
        "with none": sum(uid not in by_series for uid in good),
        "with several": sum(len(by_series.get(uid, [])) > 1 for uid in good),
        **{f"equal in every voxel to {name}": count for name, count in equal.items()},
        "results of other series": sum(uid not in good for uid in by_series),
        "broken, named as failed or left out": sum(states.get(uid, "") != "done" for uid in states if uid not in good),
    }


def are_equal(one: Mapping, other: Mapping) -> bool:
    """Return whether two SEG say the same of every pixel."""
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


@dataclass(frozen=True)
class Way:
    """Hold a source and a target, and how the latter is looked at.

    Attributes:
        source, target: as the command takes them.
        more: other words of the command.
        environment: of its process.
        results: returns the objects in the target that are no images of the source.
        leftovers: returns how many others are there that are neither a result nor what belongs to one.
    """

    source: str
    target: str
    more: tuple[str, ...]
    environment: Mapping[str, str]
    results: Callable[[], list[pydicom.Dataset]]
    leftovers: Callable[[], int]
    counts: Counter[str]


@contextmanager
def by_folder(images: Path, folder: Path) -> Iterator[Way]:
    """Yield the way from a folder to a folder."""
    target = folder / "results"

    def results() -> list[pydicom.Dataset]:
        return [pydicom.dcmread(path) for path in sorted(target.rglob("*.dcm")) if not path.name.startswith(".")]

    def leftovers() -> int:
        files = [path for path in target.rglob("*") if path.is_file()]
        return sum(path.with_suffix(".dcm") not in files or path.name.startswith(".") for path in files)

    yield Way(str(images), str(target), (), os.environ, results, leftovers, Counter())


@contextmanager
def by_s3(images: Path, folder: Path, *, share: float) -> Iterator[Way]:
    """Yield the way from S3 to S3, where a share of all requests fails."""
    with s3(share) as (environment, client, counts):

        def put(path: Path) -> None:
            key = f"studies/{path.relative_to(images).as_posix()}"
            client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(put, sorted(images.rglob("*.dcm"))))

        def keys() -> list[str]:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="results/")
            return [item["Key"] for page in pages for item in page.get("Contents", [])]

        def results() -> list[pydicom.Dataset]:
            bodies = (
                client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys() if key.endswith(".dcm")
            )
            return [pydicom.dcmread(BytesIO(body)) for body in bodies]

        def leftovers() -> int:
            there = set(keys())
            return sum(f"{key.rpartition('.')[0]}.dcm" not in there for key in there)

        yield Way(f"s3://{BUCKET}/studies", f"s3://{BUCKET}/results", (), environment, results, leftovers, counts)


@contextmanager
def by_orthanc(images: Path, folder: Path) -> Iterator[Way]:
    """Yield the way from Orthanc to itself, over DICOMweb by TLS, with a password."""
    (folder / "orthanc").mkdir()
    with running(folder / "orthanc") as server:
        for file in sorted(images.rglob("*.dcm")):
            with suppress(requests.HTTPError):  # Orthanc takes no file that ends in its pixels
                server.add([file])

        def results() -> list[pydicom.Dataset]:
            found = server.instances(Modality="SEG")
            return [server.read(identifier, folder / "one.dcm") for identifier in found]

        environment = {**os.environ, "PYRASEG_PACS_USER": USER, "PYRASEG_PACS_PASSWORD": PASSWORD}
        more = ("--ca-bundle", str(server.ca_bundle))
        yield Way(server.url, server.url, more, environment, results, lambda: 0, Counter())


def states_of(work: Path) -> dict[str, str]:
    """Return the state of each series that the journal or the table of a run knows, by its UID."""
    found = {}
    for row in read_table(work / "table.parquet"):
        if row.skip and row.series:
            found[row.instance_uid] = "left out"
    with closing(sqlite3.connect(work / "journal.sqlite")) as connection:
        for uid, state in connection.execute("SELECT series, state FROM series"):
            found[uid.partition(":")[0]] = state
    return found


def tried(
    way: Way, model: Path, folder: Path, truths: Mapping[str, Mapping], good: Sequence[str], trial: Trial
) -> dict[str, Any]:
    """Run the command until nothing is missing, killing what is to be killed; return what came of it."""
    work = folder / "work"
    words = command(way.source, way.target, model, work, *way.more)
    began = time.monotonic()
    code = trial.run(words, way.environment, work)
    seconds = time.monotonic() - began
    began = time.monotonic()
    again = subprocess.run(words, env=way.environment, capture_output=True, text=True)
    told = [line for line in again.stdout.splitlines() if " series are in " in line]
    driver, workers = zip(*trial.memory, strict=True)
    return {
        **judged(way.results(), truths, good, states_of(work)),
        "half objects and strays": way.leftovers(),
        "workers killed": trial.killed["worker"],
        "drivers killed": trial.killed["driver"],
        **{f"store, {name}": count for name, count in way.counts.items()},
        "seconds": round(seconds, 1),
        "exit code": code,
        "MB of the driver in thirds of the run": thirds(list(driver)),
        "MB of the workers in thirds of the run": thirds(list(workers)),
        "a rerun says": told[-1].partition(" series are in")[0] if told else again.stderr[-200:],
        "seconds of the rerun": round(time.monotonic() - began, 1),
    }
