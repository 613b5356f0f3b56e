# SPDX-License-Identifier: Apache-2.0
"""Keep an image as it was read, beside what the preprocessing makes of it."""

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep


class KeepOriginald(MapTransform):
    """Give items a second name, under which they stay as they are now, with their metadata.

    Their values are shared, so that a large volume is not held twice (MONAI's `CopyItemsd` copies them): what comes
    behind must make new arrays, as all deterministic transforms of this bundle and of MONAI do.

    Args:
        keys: items to keep.
        names: for each the name that it is kept under.
        allow_missing_keys: skip keys that are not in the data.

    >>> kept = KeepOriginald("image", names="original")({"image": MetaTensor(torch.zeros(1, 2, 2))})
    >>> kept["original"].data_ptr() == kept["image"].data_ptr()
    True
    """

    def __init__(self, keys: KeysCollection, *, names: str | Sequence[str], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.names = ensure_tuple_rep(names, len(self.keys))

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        return {**data, **{name: _beside(data[key]) for key, name in self.key_iterator(data, self.names)}}


def _beside(image: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the same values, whose metadata are its own."""
    if not isinstance(image, MetaTensor):
        return image.view_as(image)
    other = MetaTensor(image.as_tensor(), meta=dict(image.meta), applied_operations=list(image.applied_operations))
    other.is_batch = image.is_batch
    return other
