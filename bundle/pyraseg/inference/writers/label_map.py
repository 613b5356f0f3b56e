# SPDX-License-Identifier: Apache-2.0
"""Label maps and probabilities: PNG of a picture, NIfTI of a volume on its grid or, of uneven slices, a regular one."""

import gzip
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from PIL import Image

from bundle.pyraseg.core import Structures, names_in_files, replacing
from bundle.pyraseg.dicom import LPS_TO_RAS
from bundle.pyraseg.inference.prediction import Prediction
from bundle.pyraseg.transforms import geometry_of, place_of

logger = logging.getLogger(__name__)

#: What a probability of 1 is stored as.
ONE = 65535
#: What the header of a NIfTI says where nobody knows the place (codes of 0).
NOWHERE = {"qform_code": np.array(0), "sform_code": np.array(0)}


def on_true_grid(values: np.ndarray, image: MetaTensor, *, empty: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return values on the grid of an image and an affine to RAS mm that is true for every slice.

    Uneven slices come on the regular grid that `Geometry.regular_grid` finds for them.

    Args:
        values: (W, H) or (W, H, D).
        image: whose grid it is, (C, W, H[, D]), with the reader's metadata.
        empty: what the grid holds in the gaps between slices.

    Raises:
        PyrasegError: there is no such grid.
    """
    geometry = geometry_of(image)
    if geometry is None or geometry.is_evenly_spaced:
        return values, np.asarray(image.affine, float)
    grid = geometry.regular_grid()
    return grid.fill(values, empty=empty), LPS_TO_RAS @ grid.affine


def _place(image: MetaTensor) -> Mapping[str, np.ndarray] | None:
    """Return what the header says of a place: that of the input, nothing where that has none, None for the affine."""
    return place_of(image) or (NOWHERE if geometry_of(image) is None else None)


def write_label_map(labels: MetaTensor, image: MetaTensor, path: Path) -> Path:
    """Write class indices: (1, W, H, D) as NIfTI where the volume lies, (1, W, H) as PNG of the class values.

    Slices that have no place (films, radiographs) come as a NIfTI whose header claims none.

    Args:
        labels: class indices, 255 at most, on the input's grid.
        image: the input, with the reader's metadata.
        path: without a suffix.

    Returns:
        The path written.

    Raises:
        PyrasegError: see `on_true_grid`.
    """
    values = np.asarray(labels[0]).astype(np.uint8)
    return write_grid(*on_true_grid(values, image), path, place=_place(image), compression=3)


def write_grid(
    values: np.ndarray,
    affine: np.ndarray,
    path: Path,
    *,
    place: Mapping[str, np.ndarray] | None = None,
    slope: float = 1.0,
    compression: int,
) -> Path:
    """Write numbers on a grid: (W, H, D) as NIfTI, (W, H) as PNG; return the path.

    Args:
        values: of a type that the format holds; a picture's are uint8 or uint16.
        affine: of a volume, (4, 4) in mm; a picture has none.
        path: without a suffix.
        place: how the header of the input says where it lies, see `place_of`; without it the header says the affine.
        slope: what a reader of the NIfTI multiplies the numbers with.
        compression: of gzip, 1 (fast) to 9 (small).
    """
    if values.ndim == 2:
        path = path.with_name(path.name + ".png")
        with replacing(path) as temporary:
            Image.fromarray(np.ascontiguousarray(values.T)).save(temporary, format="PNG")
        return path
    path = path.with_name(path.name + ".nii.gz")
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    if place is not None:
        for name, value in place.items():
            if name == "pixdim":
                value = np.concatenate([value[:4], image.header["pixdim"][4:]])
            image.header[name] = value
        image = nib.Nifti1Image(values, None, image.header)  # with an affine nibabel would set its sform
    if slope != 1:
        image.header.set_slope_inter(slope, 0)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=compression, mtime=0))
    return path


class LabelMapWriter:
    """Write the label map of every input, as `write_label_map` does; of regions one mask each, `<name>_<region>`.

    A file holds one value a voxel, and every program shows a mask of 0 and 1: so regions that overlap lose nothing.
    `names_in_files` says what stands for a region.

    Args:
        class_names: names of all classes, background first; needed for regions.
        regions: the classes of each region where these are predicted, see `core.Structures`.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str] = ("background",),
        regions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.structures = Structures(class_names, regions)

    def __call__(self, prediction: Prediction) -> list[Path]:
        labels, original, stem = prediction.labels, prediction.original, prediction.stem
        if not self.structures.overlapping:
            return [write_label_map(labels, original, stem)]
        return [
            write_label_map(self.structures.mask(labels, number), original, stem.with_name(f"{stem.name}_{name}"))
            for number, name in enumerate(names_in_files(self.structures.names[1:]), 1)
        ]


def write_probability(probability: MetaTensor, image: MetaTensor, path: Path) -> Path:
    """Write the probabilities of one class in steps of 1/65535.

    A volume (W, H, D) becomes NIfTI where it lies, with the slope 1/65535, so that a reader has values from 0 to 1; a
    picture (W, H) becomes 16-bit PNG, whose values are to be divided by 65535.

    Args:
        probability: 0 to 1.
        image: the input, with the reader's metadata.
        path: without a suffix.

    Returns:
        The path written.

    Raises:
        PyrasegError: see `on_true_grid`.
    """
    stored = np.rint(np.clip(np.asarray(probability.cpu(), np.float32), 0, 1) * ONE).astype(np.uint16)
    return write_grid(*on_true_grid(stored, image), path, place=_place(image), slope=1 / ONE, compression=1)


class SaveProbabilities:
    """Write the probability maps of every input: `NAME_probability_1` and so on, by the number of the class or region.

    The evaluator keeps them under `probabilities`, (C, W, H[, D]) on the input's grid; the background is not written.

    Args:
        output_dir: folder of the files.
        overlapping: the channels are those of regions, see `core.Structures`, without a background.
    """

    def __init__(self, output_dir: str | Path, *, overlapping: bool = False) -> None:
        self.output_dir = Path(output_dir)
        self.first = 0 if overlapping else 1

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            for number, probability in enumerate(output["probabilities"][self.first :], start=1):
                path = self.output_dir / f"{item['name']}_probability_{number}"
                logger.info("%s -> %s", item["name"], write_probability(probability, item["original"], path).name)
