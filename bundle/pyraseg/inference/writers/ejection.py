# SPDX-License-Identifier: Apache-2.0
"""The ejection fraction of a cavity of the heart, from its volumes in the phases of the heart beat."""

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from bundle.pyraseg.core import PyrasegError, nearest_hint, values_of, write_csv
from bundle.pyraseg.inference.counting import milliliters

logger = logging.getLogger(__name__)

FIELDS = (
    *("case", "class", "phases", "end_diastolic_phase", "end_diastolic_volume_ml", "end_systolic_phase"),
    *("end_systolic_volume_ml", "stroke_volume_ml", "ejection_fraction", "left_out", "series_uid"),
)


#: Name of a case and UID of its series.
Key = tuple[str, str]
Kept = TypeVar("Kept")


class Segmented(Protocol):
    """What was found in one phase; see `Prediction`."""

    @property
    def name(self) -> str: ...

    @property
    def voxels(self) -> np.ndarray: ...

    @property
    def volumes(self) -> np.ndarray | None: ...

    @property
    def origin(self) -> Mapping[str, object]: ...


@dataclass(frozen=True)
class Beat:
    """Hold the largest and the smallest volume of a cavity over the phases of a heart beat.

    Attributes:
        phases: how many there were.
        diastole, systole: number of the phase with the largest and with the smallest volume.
        edv, esv: these volumes, in the unit that was given.
    """

    phases: int
    diastole: int
    systole: int
    edv: float
    esv: float

    @property
    def fraction(self) -> float | None:
        """Return the ejection fraction, (EDV - ESV) / EDV; None where nothing was found at end diastole."""
        return (self.edv - self.esv) / self.edv if self.edv > 0 else None


def heart_beat(volumes: Mapping[int, float]) -> Beat:
    """Return what a heart beat ejects, from the volume of a cavity in each phase.

    Of equal volumes, the first phase counts.

    Raises:
        PyrasegError: there are fewer than two phases.

    >>> beat = heart_beat({1: 120.0, 2: 80.0, 3: 48.0, 4: 100.0})
    >>> beat.diastole, beat.systole, beat.fraction
    (1, 3, 0.6)
    """
    if len(volumes) < 2:
        raise PyrasegError("An ejection fraction needs two phases or more. Segment all: --phase all.")
    diastole, systole = max(volumes, key=lambda phase: volumes[phase]), min(volumes, key=lambda phase: volumes[phase])
    return Beat(len(volumes), diastole, systole, float(volumes[diastole]), float(volumes[systole]))


class Phases(Generic[Kept]):
    """Collect the volumes of a cavity of the heart in the phases of series.

    Args:
        cavity: name of the class.
        class_names: names of all classes, background first; or of the background and all regions.
        overlapping: they are regions, see `core.Structures`.

    Raises:
        PyrasegError: there is no class of that name.
    """

    def __init__(self, cavity: str, class_names: Sequence[str], *, overlapping: bool) -> None:
        if cavity not in class_names[1:]:
            raise PyrasegError(
                f"ejection_fraction is {cavity!r}, which is none of the classes {', '.join(class_names[1:])}."
                f"{nearest_hint(cavity, class_names[1:])}"
            )
        self.number = list(class_names).index(cavity)
        self.values = values_of(self.number, len(class_names) - 1, overlapping=overlapping)
        self._found: dict[Key, dict[int, tuple[int, float | None, Kept]]] = defaultdict(dict)

    def clear(self) -> None:
        self._found.clear()

    def take(self, found: Segmented, kept: Kept) -> Key | None:
        """Remember the volume of a phase, and what is kept with it; return its series, or None if it is no phase."""
        phase = int(str(found.origin.get("phase") or 0))
        if not phase:
            return None
        case = re.sub(rf"_phase0*{phase}(?=$|[-_]\d+$)", "", found.name)
        key = case, str(found.origin.get("series_uid") or "")
        volume = None if found.volumes is None else float(found.volumes[self.values].sum())
        self._found[key][phase] = len(found.voxels), volume, kept
        return key

    def beat(self, key: Key) -> tuple[Beat, list[int], dict[int, Kept]] | None:
        """Return the heart beat of a series, the phases that were left out, and what was kept; None before it is one.

        Phases that have fewer slices than others do not count, nor do those whose volume is unknown.
        """
        phases = dict(sorted(self._found[key].items()))
        most = max(slices for slices, *_ in phases.values())
        volumes = {n: volume for n, (slices, volume, _) in phases.items() if slices == most and volume is not None}
        if len(volumes) < 2:
            return None
        kept = {number: kept for number, (*_, kept) in phases.items()}
        return heart_beat(volumes), [number for number in phases if number not in volumes], kept

    @property
    def keys(self) -> list[Key]:
        """Return the series of which there is a phase, by case and series UID, in the order of the first ones."""
        return list(self._found)


class EjectionFractions:
    """Write `ejection_fraction.csv`: for each series of which two phases or more were segmented, what its beat ejects.

    The volumes at end diastole (EDV, the largest) and end systole (ESV, the smallest) with their phases, the stroke
    volume EDV - ESV, and the ejection fraction (EDV - ESV) / EDV, empty where EDV is 0. Phases that have fewer slices
    than others do not count, nor do those whose volume is unknown; `left_out` names them. The table is whole after
    every input.

    Args:
        output_dir: folder of the table.
        cavity: name of the class.
        class_names: names of all classes, background first; or of the background and all regions.
        overlapping: they are regions, see `core.Structures`.

    Raises:
        PyrasegError: there is no class of that name.
    """

    def __init__(self, output_dir: Path, *, cavity: str, class_names: Sequence[str], overlapping: bool = False) -> None:
        self.path = output_dir / "ejection_fraction.csv"
        self.cavity = cavity
        self.phases: Phases[None] = Phases(cavity, class_names, overlapping=overlapping)

    def start(self) -> None:
        """Begin anew: the table of another run would not be of these results."""
        self.phases.clear()
        self.path.unlink(missing_ok=True)

    def __call__(self, found: Segmented) -> list[Path]:
        """Take the volume of a phase; return the table, or nothing before there are two phases of a series."""
        if self.phases.take(found, None) is None:
            logger.warning("%s is no phase of a heart beat, so it has no ejection fraction: --phase all", found.name)
            return []
        rows = [row for key in self.phases.keys for row in self._rows(*key)]
        if rows:
            write_csv(self.path, FIELDS, rows)
        return [self.path] if rows else []

    def _rows(self, case: str, series: str) -> list[dict[str, object]]:
        """Return the row of one series, or none."""
        found = self.phases.beat((case, series))
        if found is None:
            return []
        beat, left_out, _ = found
        fraction = "" if beat.fraction is None else f"{beat.fraction:.4f}"
        values = (
            *(case, self.cavity, beat.phases),
            *(beat.diastole, milliliters(beat.edv), beat.systole, milliliters(beat.esv)),
            *(milliliters(beat.edv - beat.esv), fraction, " ".join(map(str, left_out)), series),
        )
        return [dict(zip(FIELDS, values, strict=True))]
