# SPDX-License-Identifier: Apache-2.0
"""Vary the colors of photographs."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.transforms.strength import ScaledByStrength

#: RGB to luma and two axes of chroma (YIQ, FCC 47 CFR 73.682): in this space a hue is an angle about the luma axis.
RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


class RandColorJitterd(RandomizableTransform, MapTransform, ScaledByStrength):
    """Change brightness, contrast, saturation and hue of RGB images, all by one matrix on the colors of a pixel.

    Brightness scales the colors, contrast scales their distance from the image's mean luma, saturation scales the
    chroma, and hue turns the chroma by an angle, in YIQ space. That is one affine map of RGB, unlike the detour through
    HSV that torchvision's ColorJitter takes for the hue; the amplitudes have the same meaning. Values are clamped to
    [0, 1], as a camera's are.

    Args:
        keys: images (3, W, H).
        prob: probability of changing an image.
        brightness: largest relative change of brightness.
        contrast: largest relative change of contrast.
        saturation: largest relative change of saturation.
        hue: largest turn of the hue, as a share of the full circle.
        normalization: `mean` and `std`, one value a channel, by which the images were normalized after they were scaled
            to [0, 1]; None where they still lie there.
        allow_missing_keys: skip keys that are not in the data.

    Raises:
        PyrasegError: an amplitude is negative, or an image has not three channels.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        prob: float = 1.0,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.1,
        normalization: Mapping[str, Sequence[float]] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.amplitudes = np.array([brightness, contrast, saturation, hue])
        if (self.amplitudes < 0).any():
            raise PyrasegError(f"RandColorJitterd: amplitudes must be 0 or more, got {self.amplitudes.tolist()}.")
        normalization = normalization or {"mean": [0, 0, 0], "std": [1, 1, 1]}
        self.mean, self.std = (torch.tensor(normalization[name]).view(3, 1, 1) for name in ("mean", "std"))

    def randomize(self, data: None = None) -> None:
        super().randomize(data)
        self._draw = self.R.uniform(-1, 1, size=4)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        self.randomize()
        if not self._do_transform or self.strength == 0:
            return dict(data)
        return {**data, **{key: self.apply(data[key]) for key in self.key_iterator(data)}}

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image (3, W, H) in the colors of the present draw."""
        if image.shape[0] != 3:
            raise PyrasegError(f"RandColorJitterd: an image has {image.shape[0]} channels; colors need three.")
        brightness, contrast, saturation, hue = self.strength * self.amplitudes * self._draw
        gain = (1 + brightness) * (1 + contrast)
        matrix = torch.as_tensor(gain * color_matrix(1 + saturation, 2 * np.pi * hue)).to(image)
        luma = torch.as_tensor(RGB_TO_YIQ[0]).to(image)
        mean_color, std = self.mean.to(image), self.std.to(image)
        unit = image * std + mean_color
        mean = (luma @ unit.flatten(1)).mean() * (1 + brightness)
        changed = torch.einsum("ij,jwh->iwh", matrix, unit) - contrast * mean
        return (changed.clamp(0, 1) - mean_color) / std


def color_matrix(saturation: float, hue: float) -> np.ndarray:
    """Return the (3, 3) map of RGB that scales the chroma by `saturation` and turns it by `hue` radians."""
    turn = np.eye(3)
    turn[1:, 1:] = saturation * np.array([[np.cos(hue), -np.sin(hue)], [np.sin(hue), np.cos(hue)]])
    return np.linalg.inv(RGB_TO_YIQ) @ turn @ RGB_TO_YIQ
