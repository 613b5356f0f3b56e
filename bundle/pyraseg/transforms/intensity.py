# SPDX-License-Identifier: Apache-2.0
"""Vary brightness, contrast, noise and sharpness of radiology images that are already scaled to a known range, and the
colors of photographs.

The gray values of CT and MR carry meaning, so there is no color jitter for them: brightness and contrast act on all
channels alike (they are windows, or neighboring slices, of one image). Nothing is clamped there: values may leave the
range by the amplitudes given, which the network tolerates and which loses nothing to saturation.
"""

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.networks.layers import gaussian_1d, separable_filtering
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.transforms.strength import ScaledByStrength


class _RandIntensityd(RandomizableTransform, MapTransform, ScaledByStrength):
    """Apply one draw to all keys, scaled by the strength. Subclasses state the draw (``randomize``) and the work."""

    def __init__(self, keys: KeysCollection, *, prob: float, allow_missing_keys: bool, **amplitudes: float) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        for name, value in amplitudes.items():
            if value < 0:
                raise PyrasegError(f"{type(self).__name__}: {name} is {value}. Give a number of at least 0.")
            setattr(self, name, value)

    @abstractmethod
    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """Return the changed image; both are float32 (C, spatial...)."""

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        self.randomize()
        for key in self.key_iterator(d):
            d[key] = convert_to_tensor(d[key], dtype=torch.float32, track_meta=get_track_meta())
            if self._do_transform and self.strength > 0:
                d[key] = convert_to_dst_type(self.apply(d[key].as_subclass(torch.Tensor)), dst=d[key])[0]
        return d


class RandBrightnessContrastd(_RandIntensityd):
    """Shift the brightness and change the contrast about the middle of the range, the same in all channels.

    ``out = middle + (1 + contrast * c) * (in - middle) + brightness * b * (high - low)`` with b and c drawn uniformly
    from [-1, 1] and multiplied by the strength. Items are (C, spatial...); the result is float32 and not clamped.

    Args:
        keys: images to change.
        prob: probability of changing an image.
        brightness: largest shift, as a fraction of the range.
        contrast: largest relative change of the contrast.
        value_range: (low, high) of the images, as the windowing scaled them.
        allow_missing_keys: skip keys that are not in the data.

    Raises:
        PyrasegError: if an amplitude is negative or the range is empty.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        prob: float = 0.5,
        brightness: float = 0.1,
        contrast: float = 0.1,
        value_range: tuple[float, float] = (0.0, 1.0),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys, prob=prob, allow_missing_keys=allow_missing_keys, brightness=brightness, contrast=contrast
        )
        self.low, self.high = value_range
        if not self.low < self.high:
            raise PyrasegError(f"RandBrightnessContrastd: value_range is {tuple(value_range)}. Give (low, high).")

    def randomize(self, data: None = None) -> None:
        super().randomize(data)
        self._brightness, self._contrast = self.R.uniform(-1, 1, 2)

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        gain = 1.0 + self.strength * self.contrast * self._contrast
        shift = self.strength * self.brightness * self._brightness * (self.high - self.low)
        middle = (self.low + self.high) / 2
        return image * gain + (middle * (1.0 - gain) + shift)


class RandNoised(_RandIntensityd):
    """Add white Gaussian noise, independent in every pixel and channel.

    Its standard deviation is drawn uniformly from [0, std) and multiplied by the strength. Items are (C, spatial...);
    the result is float32 and not clamped.

    Args:
        keys: images to change.
        prob: probability of changing an image.
        std: largest standard deviation, in units of the image (0.05 is 5 % of an image scaled to [0, 1]).
        allow_missing_keys: skip keys that are not in the data.

    Raises:
        PyrasegError: if ``std`` is negative.
    """

    def __init__(
        self, keys: KeysCollection, *, prob: float = 0.5, std: float = 0.05, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, prob=prob, allow_missing_keys=allow_missing_keys, std=std)

    def randomize(self, data: None = None) -> None:
        super().randomize(data)
        self._std, self._seed = self.R.uniform(), self.R.randint(2**31)

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        # torch draws normal numbers several times faster than numpy's RandomState, which still decides the seed.
        generator = torch.Generator(image.device).manual_seed(int(self._seed))
        noise = torch.randn(image.shape, generator=generator, device=image.device)
        return torch.add(image, noise, alpha=self.strength * self.std * self._std)


class RandBlurd(_RandIntensityd):
    """Smooth with a Gaussian, the same along every spatial axis; edges are continued.

    Its sigma is drawn uniformly from [0, sigma) and multiplied by the strength. Items are (C, spatial...); the result
    is float32. (MONAI's ``GaussianSmooth`` pads with zeros, which darkens the borders.)

    Args:
        keys: images to change.
        prob: probability of changing an image.
        sigma: largest standard deviation of the Gaussian, pixels.
        allow_missing_keys: skip keys that are not in the data.

    Raises:
        PyrasegError: if ``sigma`` is negative.
    """

    def __init__(
        self, keys: KeysCollection, *, prob: float = 0.5, sigma: float = 1.0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, prob=prob, allow_missing_keys=allow_missing_keys, sigma=sigma)

    def randomize(self, data: None = None) -> None:
        super().randomize(data)
        self._sigma = self.R.uniform()

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        sigma = torch.tensor(self.strength * self.sigma * self._sigma)
        kernel = gaussian_1d(sigma, approx="sampled", normalize=True)
        return separable_filtering(image[None], kernel, mode="replicate")[0]


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
