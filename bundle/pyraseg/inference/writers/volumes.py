# SPDX-License-Identifier: Apache-2.0
"""A table of what was found: voxels and volumes of every class in every input."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from bundle.pyraseg.core import Structures, hold, release, values_of, write_csv
from bundle.pyraseg.inference.counting import milliliters
from bundle.pyraseg.inference.writers.ejection import EjectionFractions
from bundle.pyraseg.inference.writing import MISSING, ORIGIN

logger = logging.getLogger(__name__)

#: What holds the folder of a table.
WORK = "segmentation"
FIELDS = ("case", "class", "value", "voxels", "volume_ml", "unlike")


class Measured(Protocol):
    """What was found in one input, as far as it can be counted; see `Prediction`."""

    @property
    def name(self) -> str: ...

    @property
    def voxels(self) -> np.ndarray: ...

    @property
    def volumes(self) -> np.ndarray | None: ...

    @property
    def unlike(self) -> float | None: ...

    @property
    def origin(self) -> Mapping[str, object]: ...


class VolumeTable:
    """Write `volumes.csv`: for every input and class the voxels and the volume in ml, zeros included.

    Then come how far the input is from the images of the training, above 1 where it is unlike them (`unlike`, see
    `runtime.Guard.unlike`; empty where nobody looked), UID, number, description and modality of a DICOM series, and the
    phase, of several sequences those of the first, and `missing_sequences`, the names of those that the input lacked. A
    volume is empty where the input has no patient position or a single DICOM slice. The table of a run replaces that of
    the run before; it is whole after every input.

    Args:
        output_dir: folder of the table.
        class_names: names of all classes, background first.
        ejection_fraction: name of a cavity of the heart, whose `ejection_fraction.csv` is written as well, see
            `EjectionFractions`; None for none.
        regions: the classes of each region where these are predicted, see `core.Structures`; `value` is then the number
            of the region.

    Raises:
        PyrasegError: there is no class, or region, of that name.
    """

    def __init__(
        self,
        *,
        output_dir: str | Path,
        class_names: Sequence[str],
        ejection_fraction: str | None = None,
        regions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.path = Path(output_dir) / "volumes.csv"
        self.structures = Structures(class_names, regions)
        self.rows: dict[str, list[dict[str, object]]] = {}
        self.ejection: EjectionFractions | None = None
        if ejection_fraction is not None:
            folder, names = Path(output_dir), self.structures.names
            self.ejection = EjectionFractions(
                folder, cavity=ejection_fraction, class_names=names, overlapping=self.structures.overlapping
            )

    def start(self) -> None:
        """Begin anew, and keep the table from other runs, whose rows would be lost in it.

        Raises:
            PyrasegError: another run writes to the folder.
        """
        hold(self.path.parent, WORK)
        self.rows.clear()
        if self.ejection is not None:
            self.ejection.start()

    def finish(self) -> None:
        """Let other runs have the folder."""
        release(self.path.parent, WORK)

    def __call__(self, found: Measured) -> list[Path]:
        self.rows[found.name] = self.measure(found)
        rows = [row for rows in self.rows.values() for row in rows]
        several = [MISSING] if any(MISSING in row for row in rows) else []
        write_csv(self.path, (*FIELDS, *ORIGIN, *several), rows)
        return [self.path, *(self.ejection(found) if self.ejection is not None else [])]

    def measure(self, found: Measured) -> list[dict[str, object]]:
        """Return the rows of one input, one for each class but the background."""
        voxels, volumes = found.voxels.sum(axis=0), found.volumes
        origin = {name: found.origin.get(name, "") for name in ORIGIN}
        if MISSING in found.origin:
            origin[MISSING] = found.origin[MISSING]
        rows = []
        for (inner, outer), share in self.structures.outside(voxels).items():
            logger.info("%s: %.2f %% of the voxels of %s lie outside %s", found.name, 100 * share, inner, outer)
        names = self.structures.names[1:]
        unlike = "" if found.unlike is None else f"{found.unlike:.3f}"
        for number, name in enumerate(names, 1):
            values = values_of(number, len(names), overlapping=self.structures.overlapping)
            volume = "" if volumes is None else milliliters(volumes[values].sum())
            figures = found.name, name, number, voxels[values].sum(), volume, unlike
            rows.append(dict(zip(FIELDS, figures, strict=True)) | origin)
        return rows
