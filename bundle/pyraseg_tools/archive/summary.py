# SPDX-License-Identifier: Apache-2.0
"""A page that shows what was found in an archive, what failed, and what took long."""

import heapq
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np

from bundle.pyraseg.core import write_text
from bundle.pyraseg.reporting import render_page
from bundle.pyraseg_tools.archive.journal import outcomes
from bundle.pyraseg_tools.archive.outcome import AGAIN, DONE, FAILED, Outcome
from bundle.pyraseg_tools.archive.table import read_table

#: Rows of a table of the page at most; the journal has all.
NAMED = 20
#: Seconds without the end of a series after which a run counts as over; where series take long, ten of their medians.
PAUSE = 600.0
#: Percentiles of volumes and seconds that are shown.
PERCENTILES = (5, 25, 50, 75, 95)


@dataclass
class _Figures:
    """Hold what is counted over the series of a model; of each volume and time 8 bytes a series."""

    states: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=lambda: {FAILED: Counter(), AGAIN: Counter()})
    example: dict[str, str] = field(default_factory=dict)
    volumes: dict[str, array] = field(default_factory=dict)
    empty: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, array] = field(default_factory=dict)
    slowest: list[tuple[float, str, int]] = field(default_factory=list)
    unlike: list[tuple[float, str]] = field(default_factory=list)
    looked_at: int = 0
    unlike_count: int = 0
    found: int = 0
    images: int = 0
    ends: array = field(default_factory=lambda: array("d"))

    def add(self, ended: float, outcome: Outcome) -> None:
        self.states[outcome.state] += 1
        if outcome.state != DONE:
            kind = reason_kind(outcome.reason)
            self.reasons[outcome.state][kind] += 1
            self.example.setdefault(kind, outcome.series)
            return
        self.found += outcome.found
        if not outcome.found:
            self.ends.append(ended)
        self.images += outcome.images
        for name, volume in outcome.volumes.items():
            self.volumes.setdefault(name, array("d")).append(volume)
            self.empty[name] += volume == 0
        for name, value in outcome.seconds.items():
            self.seconds.setdefault(name, array("d")).append(value)
        _keep(self.slowest, (sum(outcome.seconds.values()), outcome.series, outcome.images))
        if outcome.unlike is not None:
            self.looked_at += 1
            self.unlike_count += outcome.unlike > 1
            if outcome.unlike > 1:
                _keep(self.unlike, (outcome.unlike, outcome.series))


def write_summary(work_dir: Path, table: Path, target: Path) -> None:
    """Write the page of all journals in a folder, those of the parts of an archive among them.

    Args:
        work_dir: of `pyraseg archive`.
        table: of the archive, for what it leaves out.
        target: the page to write.
    """
    models: dict[str, _Figures] = {}
    for model, ended, outcome in _all(work_dir):
        models.setdefault(model, _Figures()).add(ended, outcome)
    template = (files("bundle.pyraseg_tools.archive") / "templates" / "summary.html").read_text(encoding="utf-8")
    pages = {model: _shown(figures) for model, figures in models.items()}
    write_text(target, render_page(template, models=pages, left_out=left_out(table), percentiles=PERCENTILES))


def left_out(table: Path) -> list[tuple[str, int, str, str]]:
    """Return why series and files of a table are not segmented: reason, how many, "series" or "files", and one of them.

    What comes most often comes first.
    """
    counts: Counter[tuple[str, str]] = Counter()
    example: dict[tuple[str, str], str] = {}
    for row in read_table(table):
        if row.skip:
            key = (reason_kind(row.skip), "series" if row.digest else "files")
            counts[key] += 1 if row.digest else row.images
            example.setdefault(key, row.series or row.files[0])
    return [(reason, count, what, example[reason, what]) for (reason, what), count in counts.most_common(NAMED)]


def reason_kind(reason: str) -> str:
    """Return the first sentence of a reason without what is of one series alone, so that those of a kind are counted.

    >>> reason_kind("/data/p1/0001.dcm: its 12 slices are 3.2 mm apart. Leave it out.")
    '...: its # slices are # mm apart'
    """
    first = re.split(r"(?<=[^.])\. ", reason, maxsplit=1)[0]
    return re.sub(r"\b\d+(\.\d+)*\b", "#", re.sub(r"\S*/\S+?(?=[:,;]?(\s|$))", "...", first))


def _all(work_dir: Path) -> Iterator[tuple[str, float, Outcome]]:
    for path in sorted(work_dir.glob("journal*.sqlite")):
        yield from outcomes(path)


def _keep(heap: list, item: tuple) -> None:
    """Keep the largest items in a heap of `NAMED`."""
    (heapq.heappush if len(heap) < NAMED else heapq.heappushpop)(heap, item)


def _shown(figures: _Figures) -> dict:
    failed, again = figures.reasons[FAILED], figures.reasons[AGAIN]
    return {
        "states": dict(figures.states),
        "found": figures.found,
        "images": figures.images,
        "pace": _pace(figures.ends),
        "volumes": {
            name: {"count": len(values), "empty": figures.empty[name], "percentiles": _percentiles(values)}
            for name, values in figures.volumes.items()
        },
        "reasons": [
            (reason, failed[reason], again[reason], figures.example[reason])
            for reason, _ in (failed + again).most_common(NAMED)
        ],
        "seconds": {name: _percentiles(values) for name, values in figures.seconds.items()},
        "slowest": sorted(figures.slowest, reverse=True),
        "unlike": sorted(figures.unlike, reverse=True),
        "unlike_count": figures.unlike_count,
        "looked_at": figures.looked_at,
    }


def _pace(ends: array) -> float | None:
    """Return series an hour while there were runs, by when series ended; None of fewer than two."""
    gaps = np.diff(np.sort(np.asarray(ends)))
    gaps = gaps[gaps <= max(PAUSE, 10 * float(np.median(gaps)))] if len(gaps) else gaps
    return len(gaps) / gaps.sum() * 3600 if gaps.sum() > 0 else None


def _percentiles(values: array) -> list[float]:
    return np.percentile(np.asarray(values), PERCENTILES).tolist()
