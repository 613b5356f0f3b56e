# SPDX-License-Identifier: Apache-2.0
"""How much of each class was found in each input, as one table."""

from collections.abc import Sequence
from pathlib import Path

from bundle.pyraseg.core import write_csv
from bundle.pyraseg.inference.prediction import Prediction

FIELDS = ("case", "class", "value", "voxels", "volume_ml")


class VolumeTable:
    """Write `volumes.csv`: for every input and class the voxels and the volume in ml, zeros included.

    A volume is empty where the input has no patient position or a single DICOM slice. The table of a run replaces
    that of the run before; it is whole after every input.

    Args:
        output_dir: folder of the table.
        class_names: names of all classes, background first.
    """

    def __init__(self, *, output_dir: str | Path, class_names: Sequence[str]) -> None:
        self.path = Path(output_dir) / "volumes.csv"
        self.class_names = list(class_names)
        self.rows: dict[str, list[dict[str, object]]] = {}

    def __call__(self, prediction: Prediction) -> list[Path]:
        self.rows[prediction.name] = self.measure(prediction)
        write_csv(self.path, FIELDS, (row for rows in self.rows.values() for row in rows))
        return [self.path]

    def measure(self, prediction: Prediction) -> list[dict[str, object]]:
        """Return the rows of one input, one for each class but the background."""
        voxels, volumes = prediction.voxels.sum(axis=0), prediction.volumes
        rows = []
        for value, name in list(enumerate(self.class_names))[1:]:
            volume = "" if volumes is None else f"{volumes[value] / 1000:.4f}"
            rows.append(dict(zip(FIELDS, (prediction.name, name, value, voxels[value], volume), strict=True)))
        return rows
