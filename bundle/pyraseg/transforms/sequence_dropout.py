# SPDX-License-Identifier: Apache-2.0
"""Take sequences out of training samples, so that a network learns to go without them."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import read_sequences
from bundle.pyraseg.transforms.windowing import Windows, channel_counts


class RandSequenceDropoutd(RandomizableTransform, MapTransform):
    """Blank the channels of each sequence but the first with a probability, as `Windowd` shows one that is missing.

    The first sequence stays: its grid is that of the case and of the results.

    Args:
        keys: images, (C, W, H[, D]), windowed; neighboring slices may be stacked as further channels.
        prob: that a sequence is blanked, for each of them by itself.
        windows: of the image, see `Windowd`: they tell which channels belong to which sequence.
        sequences: what `read_sequences` takes.
        value: of a sequence that is missing: black, the lower end of the range of `Windowd`.
        allow_missing_keys: skip keys that are not in the data.

    Raises:
        PyrasegError: there are no several sequences; or (when called) an image has other channels.

    >>> drop = RandSequenceDropoutd("image", prob=1, windows=["brain"], sequences=["t1", "flair"], value=-1)
    >>> drop({"image": torch.ones(2, 1, 1)})["image"].ravel().tolist()
    [1.0, -1.0]
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        prob: float,
        windows: Windows | Mapping[str, Windows],
        sequences: Any,
        value: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, 1.0)
        if len(read_sequences(sequences)) < 2:
            raise PyrasegError(
                "sequence_dropout takes sequences but the first out, and there are none. Set sequences, or set "
                "sequence_dropout to 0."
            )
        self.drop_prob = prob
        #: The sequence that each channel of a slice belongs to.
        self.owners = np.repeat(*map(np.array, zip(*enumerate(channel_counts(windows, sequences)), strict=True)))
        self.value = value
        self.dropped: np.ndarray = np.zeros(0, bool)

    def randomize(self, data: Any = None) -> None:
        self.dropped = self.R.random(int(self.owners.max()) + 1) < self.drop_prob
        self.dropped[0] = False

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        self.randomize()
        return {**data, **{key: self.blank(data[key]) for key in self.key_iterator(data)}}

    def blank(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image without the sequences that are dropped; the argument is left alone."""
        slices, left = divmod(image.shape[0], len(self.owners))
        if left:
            raise PyrasegError(
                f"An image has {image.shape[0]} channels, and {len(self.owners)} come of the windows of a slice."
            )
        if not self.dropped.any():
            return image
        blanked = image.clone()
        blanked[np.flatnonzero(np.tile(self.dropped[self.owners], slices))] = self.value
        return blanked
