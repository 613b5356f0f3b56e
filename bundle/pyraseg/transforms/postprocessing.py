# SPDX-License-Identifier: Apache-2.0
"""From class probabilities on the network's grid to a label map on the input's own, and what may be tidied up there."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Invertd, InvertibleTransform, MapTransform
from scipy import ndimage

from bundle.pyraseg.core import PyrasegError


class InvertArgmaxd(MapTransform):
    """Bring class probabilities back onto the grid of the input, linearly, and keep the index of the largest.

    The same as MONAI's `Invertd` and `AsDiscreted(argmax=True)`, one class after the other: there is never more than
    two classes' worth of probabilities on the large grid at a time, and it takes a fifth of the time, for torch's
    argmax over the first axis is slow.

    Args:
        keys: probabilities, (classes, W', H'[, D']); they become (1, W, H[, D]) uint8 on the CPU.
        transform: the preprocessing that is to be undone.
        orig_keys: key of the image that went through it.
        allow_missing_keys: skip keys that are not in the data.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        transform: InvertibleTransform,
        orig_keys: str,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.orig_key = orig_keys
        self.invert = Invertd(self.keys, transform, orig_keys, nearest_interp=False, allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        return {**data, **{key: self.labels(data, key) for key in self.key_iterator(data)}}

    def labels(self, data: Mapping[Hashable, torch.Tensor], key: Hashable) -> MetaTensor:
        """Return the class indices for one key; of equal probabilities the first class counts, as for an argmax."""

        def inverted(index: int) -> MetaTensor:
            return self.invert({key: data[key][index : index + 1], self.orig_key: data[self.orig_key]})[key]

        first = inverted(0)
        largest = first.as_tensor().clone()
        labels = torch.zeros_like(largest, dtype=torch.uint8)
        for index in range(1, len(data[key])):
            probability = inverted(index).as_tensor()
            labels.masked_fill_(probability > largest, index)
            torch.maximum(largest, probability, out=largest)
        return MetaTensor(labels.cpu(), meta=first.meta)


class RemoveSmallRegionsd(MapTransform):
    """Make background of the connected regions of a class that are smaller than a volume.

    (MONAI's `RemoveSmallObjectsd` takes all voxels of a class for one object where a label map has several classes.)

    Args:
        keys: class indices, (1, W, H[, D]), with their affine.
        min_size: mm³ of a volume, pixels of a photograph. Voxels that share a face are connected.
        allow_missing_keys: skip keys that are not in the data.

    >>> labels = MetaTensor(torch.tensor([[[0, 2, 0, 1, 1, 1]]], dtype=torch.uint8))
    >>> RemoveSmallRegionsd("pred", min_size=2)({"pred": labels})["pred"].flatten().tolist()
    [0, 0, 0, 1, 1, 1]
    """

    def __init__(self, keys: KeysCollection, *, min_size: float, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.min_size = min_size

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        return {**data, **{key: self.remove(data[key]) for key in self.key_iterator(data)}}

    def remove(self, labels: MetaTensor) -> MetaTensor:
        """Return the label map without small regions."""
        values = np.asarray(labels[0]).copy()
        voxel = abs(float(np.linalg.det(np.asarray(labels.affine)[:3, :3]))) if values.ndim == 3 else 1.0
        for value in np.unique(values[values > 0]):
            regions, _ = ndimage.label(values == value)
            small = np.bincount(regions.ravel()) * voxel < self.min_size
            small[0] = False
            values[small[regions]] = 0
        return MetaTensor(torch.from_numpy(values)[None], meta=labels.meta)


def class_indices(names: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Return the indices of classes in a list of all, for MONAI's `applied_labels`.

    Raises:
        PyrasegError: there is no such class.
    """
    unknown = [name for name in names if name not in class_names]
    if unknown:
        raise PyrasegError(f"There is no class {unknown[0]!r} to tidy up; the classes are {list(class_names)}.")
    return [class_names.index(name) for name in names]
