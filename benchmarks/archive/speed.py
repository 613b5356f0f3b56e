# SPDX-License-Identifier: Apache-2.0
"""Time an archive of thin-sliced series: the runtime alone, one worker here, one and two workers of Ray.

All have one thread each, and take turns in one run. The runtime alone loads the model once and segments the series of a
folder one after the other, with what it writes; the start of Python and the loading are left out of all. Two such
processes, which know nothing of each other, show what two cores of the machine do at best.
"""

import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.archive.once import command
from benchmarks.archive.processes import resident, thirds, workers_of
from benchmarks.archive.study import write_thin_archive

SERIES, ROUNDS = 8, 3
WAYS = (
    "runtime alone",
    "one worker, in process",
    "one worker of Ray",
    "two runtimes alone",
    "two workers of Ray",
)
#: A program that segments a part of the series below a folder, and prints the seconds of each.
ALONE = """
import sys, time
from pathlib import Path
from bundle.pyraseg.core import keep_memory
from bundle.pyraseg.runtime import Model
from bundle.pyraseg_tools.pacs import RuntimeSegmenter
keep_memory()
images, model, results = map(Path, sys.argv[1:4])
part, parts = map(int, sys.argv[4:])
segmenter = RuntimeSegmenter(Model(model, threads=1), unlike="ignore")
for folder in sorted(images.iterdir())[part::parts]:
    began = time.monotonic()
    target = results / folder.name
    target.mkdir(parents=True)
    segmenter.find(sorted(folder.glob("*.dcm")), target, name=folder.name)
    print(time.monotonic() - began, flush=True)
"""


def alone(images: Path, model: Path, folder: Path, *, processes: int) -> float:
    """Return the series an hour of runtimes side by side, each all but its first."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", ALONE, str(images), str(model), str(folder)]
    running = [
        subprocess.Popen([*words, str(part), str(processes)], env=environment, stdout=subprocess.PIPE, text=True)
        for part in range(processes)
    ]
    told = [process.communicate()[0].split() for process in running]
    assert not any(process.returncode for process in running), "a runtime has failed"
    return sum(3600 / statistics.mean(map(float, seconds[1:])) for seconds in told)


def archived(images: Path, model: Path, folder: Path, *, workers: int, ray: bool) -> tuple[float, float, list[float]]:
    """Return the series an hour in the steady state and with the start, and the memory of the workers over time, MB.

    The steady state is from the first ends, one of each worker, to the last.
    """
    more = ("--address", "local") if ray else ()
    words = command(str(images), str(folder / "results"), model, folder / "work", *more, workers=workers)
    began = time.time()
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    memory = []
    while process.poll() is None:
        time.sleep(0.5)
        memory.append(sum(resident(one) for one in workers_of(process.pid) or [process.pid]))
    took = time.time() - began
    with closing(sqlite3.connect(folder / "work" / "journal.sqlite")) as connection:
        ends = sorted(end for (end,) in connection.execute("SELECT ended FROM series WHERE state = 'done'"))
    assert len(ends) == SERIES, f"{len(ends)} series are done"
    steady = 3600 * (len(ends) - workers) / (ends[-1] - ends[workers - 1])
    return steady, 3600 * len(ends) / took, memory


def measured(folder: Path, model: Path) -> dict[str, Any]:
    """Return what was measured, by what it was measured of."""
    images = folder / "thin"
    write_thin_archive(images, SERIES)
    found: dict[str, list[Any]] = {}
    for number in range(ROUNDS):
        for name in WAYS:
            own = folder / "run"
            shutil.rmtree(own, ignore_errors=True)
            own.mkdir()
            if "alone" in name:
                result: Any = {"series an hour": alone(images, model, own, processes=2 if "two" in name else 1)}
            else:
                steady, whole, memory = archived(
                    images, model, own, workers=2 if "two" in name else 1, ray="Ray" in name
                )
                result = {"series an hour": steady, "with the start": whole, "MB of workers": thirds(memory)}
            found.setdefault(name, []).append(result)
            print(number, name, json.dumps(result), flush=True)
    pace = {name: statistics.median(one["series an hour"] for one in runs) for name, runs in found.items()}
    ratios = {
        "two runtimes alone against one": _ratio(found, "two runtimes alone", "runtime alone"),
        "two workers against one of Ray": _ratio(found, "two workers of Ray", "one worker of Ray"),
        "runtime alone against one worker, in process": _ratio(found, "runtime alone", "one worker, in process"),
        "runtime alone against one worker of Ray": _ratio(found, "runtime alone", "one worker of Ray"),
        "two runtimes alone against two workers of Ray": _ratio(found, "two runtimes alone", "two workers of Ray"),
    }
    return {
        "series": SERIES,
        "images of each": 100,
        "series an hour, median": pace,
        "ratios, median": ratios,
        "runs": found,
    }


def _ratio(found: dict[str, list[Any]], one: str, other: str) -> float:
    """Return the median over rounds of the ratio of two in the same round."""
    pairs = zip(found[one], found[other], strict=True)
    return statistics.median(a["series an hour"] / b["series an hour"] for a, b in pairs)
