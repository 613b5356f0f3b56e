# SPDX-License-Identifier: Apache-2.0
"""Overlapping regions: from class indices and from probabilities to label values.

`core.Structures` says what a label value means where regions overlap.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from torch import Tensor

from bundle.pyraseg.core import PyrasegError, Structures, region_values
from bundle.pyraseg.transforms.postprocessing import InvertArgmaxd, in_bands, is_photograph

Regions = Mapping[str, Sequence[str]]


class _Mapped(MapTransform):
    """Replace the labels of each key by a table of 256 values, (256,) uint8; they stay on their device."""

    table: np.ndarray

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        table = torch.from_numpy(self.table)
        found = dict(data)
        for key in self.key_iterator(found):
            plain = torch.as_tensor(data[key]).as_subclass(Tensor)
            of_labels = table.to(plain.device)
            # The last axis in turn: an index has 8 bytes.
            values = torch.cat([of_labels[part.long()] for part in plain.split(1, dim=-1)], dim=-1)
            found[key] = _like(values, data[key])
        return found


class LabelToRegionsd(_Mapped):
    """Make label values of regions of class indices; what is unknown (255) stays so.

    Args:
        keys: class indices, of any shape; they become uint8.
        class_names: names of all classes, background first.
        regions: the classes of each region, see `core.Structures`.
        allow_missing_keys: skip keys that are not in the data.

    >>> names = ["background", "liver", "lesion"]
    >>> to_regions = LabelToRegionsd("truth", class_names=names, regions={"organ": names[1:], "lesion": ["lesion"]})
    >>> to_regions({"truth": torch.tensor([0, 1, 2, 255])})["truth"].tolist()
    [0, 1, 3, 255]
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        class_names: Sequence[str],
        regions: Regions,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.table = Structures(class_names, regions).table


class RegionsToLabeld(_Mapped):
    """Make class indices of label values of regions, for those who hold one class a voxel, see `Structures.classes`.

    Args:
        keys: label values, of any shape; they become uint8.
        class_names: names of all classes, background first.
        regions: the classes of each region, see `core.Structures`.
        allow_missing_keys: skip keys that are not in the data.

    >>> names = ["background", "liver", "lesion"]
    >>> to_label = RegionsToLabeld("pred", class_names=names, regions={"organ": names[1:], "lesion": ["lesion"]})
    >>> to_label({"pred": torch.tensor([0, 1, 2, 3])})["pred"].tolist()  # 2 is a lesion outside the organ
    [0, 1, 2, 2]
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        class_names: Sequence[str],
        regions: Regions,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.table = Structures(class_names, regions).classes


class ThresholdRegionsd(MapTransform):
    """Make label values of the probabilities of regions: a voxel lies in those above 0.5.

    Args:
        keys: probabilities, (R, ...); they become (1, ...) uint8.
        allow_missing_keys: skip keys that are not in the data.

    >>> found = ThresholdRegionsd("pred")({"pred": torch.tensor([[0.9, 0.6], [0.8, 0.1]])})
    >>> found["pred"].tolist()
    [[3, 1]]
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        found = dict(data)
        for key in self.key_iterator(found):
            found[key] = _like(_above(torch.as_tensor(data[key]).as_subclass(Tensor)), data[key])
        return found


class InvertRegionsd(InvertArgmaxd):
    """Bring probabilities of regions back onto the grid of the input, linearly, and keep which of them are above 0.5.

    As `InvertArgmaxd`, one region after the other, and a photograph in bands.

    Args:
        keys: probabilities, (R, W', H'[, D']); they become label values of regions, (1, W, H[, D]) uint8 on the CPU.
        transform: the preprocessing that is to be undone.
        orig_keys: key of the image that went through it.
        regions: by their names, in the order of the channels.
        allow_missing_keys: skip keys that are not in the data.

    Raises:
        PyrasegError: in the call, there are not as many channels as regions.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        transform: InvertibleTransform,
        orig_keys: str,
        regions: Regions,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, transform=transform, orig_keys=orig_keys, allow_missing_keys=allow_missing_keys)
        self.regions = list(regions)

    def labels(self, data: Mapping[Hashable, Any], key: Hashable) -> MetaTensor:
        """Return the label values for one key."""
        probabilities, image = data[key], data[self.orig_key]
        if len(probabilities) != len(self.regions):
            raise PyrasegError(
                f"The network gives {len(probabilities)} channels, and `regions` names {len(self.regions)}: "
                f"{', '.join(self.regions)}. Give the regions of its training."
            )
        if is_photograph(probabilities, image):
            return in_bands(probabilities, image, _above)
        first = self.inverted(probabilities[:1], image)
        values = torch.zeros_like(first.as_tensor()[0], dtype=torch.uint8)
        others = (self.inverted(one[None], image).as_tensor()[0] for one in probabilities[1:])
        region_values((part for parts in ([first.as_tensor()[0]], others) for part in parts), values)
        return MetaTensor(values[None].cpu(), meta=first.meta)


def _above(probabilities: Tensor) -> Tensor:
    """Return the label values (1, ...) of the probabilities of regions, (R, ...)."""
    return region_values(probabilities, torch.zeros_like(probabilities[0], dtype=torch.uint8))[None]


def _like(values: Tensor, other: Any) -> Tensor:
    return MetaTensor(values, meta=other.meta) if isinstance(other, MetaTensor) else values
