# SPDX-License-Identifier: Apache-2.0
"""Load a label onto the grid of its image, by geometry."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from pydicom.misc import is_dicom

from bundle.pyraseg.dicom.seg import read_segmentation, segmentation_to_slices
from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.transforms.reader import LPS_TO_RAS, MedicalImageReader

#: Voxels by which the corners of a label's grid may miss the image's.
GRID_TOLERANCE = 0.1
#: What a loaded label holds where nobody knows the class, as in Pascal VOC's masks: give it to a loss as ignore_index.
UNKNOWN = 255


class LoadLabeld(MapTransform):
    """Load labels as (1, W, H[, D]) uint8 on the voxels of the image that they belong to.

    Volumes are matched in patient coordinates: a NIfTI or NRRD label may be stored with other axes or flips than its
    image, of either handedness, and a DICOM SEG may hold its frames in any order or only the slices with segments.
    Nothing is resampled: a label on another grid is refused. Photographs are matched by size.

    Args:
        keys: paths of labels, replaced by the loaded arrays.
        class_names: names of all classes, background first. Values of a label are indices into them; segments of a
            DICOM SEG are matched by their labels, without regard to case.
        reference: key of the loaded image.
        mask_value: value that stands for class 1 in binary masks, usually 255. Values other than 0 and this one are an
            error, unless a threshold is given.
        threshold: values from here on are class 1 and smaller ones background, for masks that a lossy format or a
            resampling has blurred.
        unknown_value: value of a file for pixels that nobody has labelled; they become `UNKNOWN`. Losses leave them
            out by their `ignore_index`, samplers and scores always.
        allow_missing_keys: skip keys that are not in the data.

    Raises:
        PyrasegError: the label cannot be read, lies on another grid, or holds a class that is not declared.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        class_names: Sequence[str],
        reference: str = "image",
        mask_value: int | None = None,
        threshold: float | None = None,
        unknown_value: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.class_names = list(class_names)
        self.reference = reference
        self.mask_value = mask_value
        self.threshold = threshold
        self.unknown_value = unknown_value
        self.reader = MedicalImageReader(palette_index=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.load(Path(data[key]), data[self.reference]) for key in self.key_iterator(data)}}

    def load(self, path: Path, image: MetaTensor) -> MetaTensor:
        """Return the label at `path` on the grid of `image` (C, W, H[, D])."""
        if not path.exists():
            raise PyrasegError(f"There is no label at {path}. Correct the path.")
        if path.is_file() and is_dicom(path):
            values = self._from_segmentation(path, image)
        else:
            values, meta = self.reader.get_data([path])
            values = onto_grid(np.asarray(values), meta, image, path)
            unknown = np.zeros(values.shape, bool) if self.unknown_value is None else values == self.unknown_value
            values = np.where(unknown, UNKNOWN, self._to_classes(np.where(unknown, 0, values), path))
        label = torch.from_numpy(np.ascontiguousarray(values, dtype=np.uint8))[None]
        return MetaTensor(label, affine=image.affine, meta={"filename_or_obj": str(path)})

    def _to_classes(self, values: np.ndarray, path: Path) -> np.ndarray:
        if self.threshold is not None:
            return values >= self.threshold
        found = np.unique(values)
        if self.mask_value is not None:
            between = [f"{value:g}" for value in found if value not in (0, self.mask_value)]
            if between:
                raise PyrasegError(
                    f"The mask {path} holds the values {', '.join(between[:8])} beside 0 and {self.mask_value}. "
                    "Correct the mask, or set a threshold."
                )
            return values == self.mask_value
        unknown = [f"{value:g}" for value in found if value != round(value) or not 0 <= value < len(self.class_names)]
        if unknown:
            raise PyrasegError(
                f"The label {path} holds the values {', '.join(unknown[:8])}, but {len(self.class_names)} classes are "
                f"declared: {self.class_names}. Correct the label or class_names."
            )
        return values

    def _from_segmentation(self, path: Path, image: MetaTensor) -> np.ndarray:
        positions = image.meta.get("slice_positions")
        if image.ndim != 4 or positions is None:
            raise PyrasegError(
                f"The DICOM SEG {path} needs a DICOM series as its image; a file of another format is none."
            )
        segmentation = read_segmentation(path)
        known = {name.lower(): index for index, name in enumerate(self.class_names)}
        unknown = sorted({name for name in segmentation.segments.values() if name.lower() not in known})
        if unknown:
            raise PyrasegError(
                f"The DICOM SEG {path} has segments named {unknown}, but the declared classes are {self.class_names}. "
                "Correct class_names."
            )
        to_index = np.zeros(256, np.uint8)
        for number, name in segmentation.segments.items():
            to_index[number] = known[name.lower()]
        axes = (LPS_TO_RAS @ np.asarray(image.affine))[:3, :2]
        column_spacing, row_spacing = np.linalg.norm(axes, axis=0)
        numbers = segmentation_to_slices(
            segmentation,
            np.asarray(positions),
            axes[:, 0] / column_spacing,
            axes[:, 1] / row_spacing,
            (float(row_spacing), float(column_spacing)),
            (image.shape[2], image.shape[1]),
        )
        return to_index[numbers].transpose(2, 1, 0)


def onto_grid(values: np.ndarray, meta: Mapping[str, Any], image: MetaTensor, path: Path) -> np.ndarray:
    """Permute and flip a label's array to the axes of its image.

    Args:
        values: array of the label; a trailing axis of length 1 that the image lacks is dropped.
        meta: its metadata, with `affine` to RAS mm; a photograph has none and is matched by its size.
        image: (C, W, H[, D]).
        path: of the label, for messages.

    Raises:
        PyrasegError: the grids differ in more than the order and direction of their axes.
    """
    if image.ndim == 3:
        values = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    elif values.ndim == 2:
        values = values[..., None]
    if image.ndim == 3 or "affine" not in meta:
        if values.shape != tuple(image.shape[1:]):
            raise _mismatch(path, values.shape, image, "The label has another size than its image")
        return values
    if values.ndim != 3:
        raise _mismatch(path, values.shape, image, "The label is no volume")
    to_image = np.linalg.inv(np.asarray(image.affine, float)) @ np.asarray(meta["affine"], float)
    steps = np.rint(to_image[:3, :3] / np.linalg.norm(to_image[:3, :3], axis=0))
    if not np.array_equal(np.abs(steps).sum(axis=0), np.ones(3)) or not np.array_equal(
        np.abs(steps).sum(axis=1), np.ones(3)
    ):
        raise _mismatch(path, values.shape, image, "The voxels of the label lie askew to those of its image")
    order = np.abs(steps).argmax(axis=1)
    signs = steps[np.arange(3), order]
    values = values.transpose(order)
    if values.shape != tuple(image.shape[1:]):
        raise _mismatch(path, values.shape, image, "The label has another size than its image")
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in values.shape], indexing="ij")).reshape(3, -1)
    stored = np.where(signs[:, None] > 0, corners, np.array(values.shape)[:, None] - 1 - corners)
    original = np.empty_like(stored)
    original[order] = stored
    missed = np.abs(to_image[:3, :3] @ original + to_image[:3, 3:] - corners).max()
    if missed > GRID_TOLERANCE:
        raise _mismatch(path, values.shape, image, f"The label lies up to {missed:.1f} voxels beside its image")
    return np.flip(values, axis=tuple(np.flatnonzero(signs < 0)))


def _mismatch(path: Path, shape: Sequence[int], image: MetaTensor, what: str) -> PyrasegError:
    return PyrasegError(
        f"{what}: {path} has {' x '.join(map(str, shape))} voxels, {image.meta.get('filename_or_obj', 'it')} has "
        f"{' x '.join(map(str, image.shape[1:]))}. Draw or resample the label on this image's grid."
    )
