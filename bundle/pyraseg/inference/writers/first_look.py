# SPDX-License-Identifier: Apache-2.0
"""For a first look at what was found: a picture of each input, and a table of volumes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import hold, release, replacing, write_csv
from bundle.pyraseg.figures import draw
from bundle.pyraseg.inference.prediction import Prediction


class OverlayWriter:
    """Write the image, the label map and both laid over each other as `<name>_overlay.png`.

    Args:
        class_names: names of all classes, background first.
        windows: as for `Windowd`, for inputs in rescaled units; None for photographs.
    """

    def __init__(self, *, class_names: Sequence[str], windows: Sequence[Any] | None) -> None:
        self.class_names = list(class_names)
        self.windows = windows

    def __call__(self, prediction: Prediction) -> list[Path]:
        picture = draw(prediction.original, prediction.labels, self.class_names, windows=self.windows)
        path = prediction.stem.with_name(f"{prediction.stem.name}_overlay.png")
        with replacing(path) as temporary:
            picture.save(temporary, format="PNG")
        return [path]


#: What holds the folder of a table.
WORK = "segmentation"
FIELDS = ("case", "class", "value", "voxels", "volume_ml")
#: What tells which DICOM series an input was, as the reader calls it.
ORIGIN = ("series_uid", "series_number", "series_description", "modality")


class VolumeTable:
    """Write `volumes.csv`: for every input and class the voxels and the volume in ml, zeros included.

    UID, number, description and modality of a DICOM series stand behind them. A volume is empty where the input
    has no patient position or a single DICOM slice. The table of a run replaces that of the run before; it is whole
    after every input.

    Args:
        output_dir: folder of the table.
        class_names: names of all classes, background first.
    """

    def __init__(self, *, output_dir: str | Path, class_names: Sequence[str]) -> None:
        self.path = Path(output_dir) / "volumes.csv"
        self.class_names = list(class_names)
        self.rows: dict[str, list[dict[str, object]]] = {}

    def start(self) -> None:
        """Begin anew, and keep the table from other runs, whose rows would be lost in it.

        Raises:
            PyrasegError: another run writes to the folder.
        """
        hold(self.path.parent, WORK)
        self.rows.clear()

    def finish(self) -> None:
        """Let other runs have the folder."""
        release(self.path.parent, WORK)

    def __call__(self, prediction: Prediction) -> list[Path]:
        self.rows[prediction.name] = self.measure(prediction)
        write_csv(self.path, (*FIELDS, *ORIGIN), (row for rows in self.rows.values() for row in rows))
        return [self.path]

    def measure(self, prediction: Prediction) -> list[dict[str, object]]:
        """Return the rows of one input, one for each class but the background."""
        voxels, volumes = prediction.voxels.sum(axis=0), prediction.volumes
        origin = {name: prediction.original.meta.get(name, "") for name in ORIGIN}
        rows = []
        for value, name in list(enumerate(self.class_names))[1:]:
            volume = "" if volumes is None else f"{volumes[value] / 1000:.4f}"
            rows.append(dict(zip(FIELDS, (prediction.name, name, value, voxels[value], volume), strict=True)) | origin)
        return rows
