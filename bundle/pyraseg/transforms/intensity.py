# SPDX-License-Identifier: Apache-2.0
"""Vary brightness, contrast, noise and sharpness of radiology slices and volumes already scaled to a known range.

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
from monai.networks.layers import gaussian_1d
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch.nn.functional import interpolate

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
        return (image * gain).add_(middle * (1.0 - gain) + shift)


class RandGammad(_RandIntensityd):
    """Bend the gray scale by a power: dark or bright tissue is spread, and the ends of the range stay.

    ``out = low + (high - low) * ((in - low) / (high - low)) ** gamma`` with the logarithm of gamma drawn uniformly from
    [-log_gamma, log_gamma] and multiplied by the strength. The ends are those of the range, not of the image as in
    MONAI's ``RandAdjustContrast``: what an intensity becomes does not depend on the voxels that a patch happens to
    hold. Values below ``low`` keep their distance from it. Items are (C, spatial...); the result is float32.

    Args:
        keys: images to change.
        prob: probability of changing an image.
        log_gamma: largest absolute logarithm of gamma (0.3: from 0.74 to 1.35).
        value_range: (low, high) of the images, as the windowing scaled them.
        allow_missing_keys: skip keys that are not in the data.

    Raises:
        PyrasegError: if ``log_gamma`` is negative or the range is empty.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        prob: float = 0.5,
        log_gamma: float = 0.3,
        value_range: tuple[float, float] = (0.0, 1.0),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob=prob, allow_missing_keys=allow_missing_keys, log_gamma=log_gamma)
        self.low, self.high = value_range
        if not self.low < self.high:
            raise PyrasegError(f"RandGammad: value_range is {tuple(value_range)}. Give (low, high).")

    def randomize(self, data: None = None) -> None:
        super().randomize(data)
        self._log_gamma = self.R.uniform(-1, 1)

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        gamma = float(np.exp(self.strength * self.log_gamma * self._log_gamma))
        above = (image - self.low).clamp_(min=0).mul_(1 / (self.high - self.low)).pow_(gamma)
        return above.mul_(self.high - self.low).add_(image.clamp(max=self.low))


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
        return along_axes(image, [smoothing_matrix(n, kernel).to(image.device) for n in image.shape[1:]])


class RandLowResolutiond(_RandIntensityd):
    """Show an image as a scanner with longer voxels would: averaged over them, then interpolated back.

    How many times longer is drawn for each axis by itself, uniformly from [1, factor): slices become thick while
    their pixels stay fine, and the other way around. MONAI's ``RandSimulateLowResolution`` takes one factor for all
    axes, leaves out voxels instead of averaging them, and does not follow the strength. Items are (C, spatial...);
    the result is float32.

    Args:
        keys: images to change.
        prob: probability of changing an image.
        factor: largest factor of the voxels' length at full strength, at least 1; one for all axes or one for each.
        allow_missing_keys: skip keys that are not in the data.

    Raises:
        PyrasegError: if a factor is below 1, or (in the call) there is not one for each axis.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        prob: float = 0.25,
        factor: float | Sequence[float] = 2.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob=prob, allow_missing_keys=allow_missing_keys)
        self.factor = np.asarray(factor, dtype=float)
        if self.factor.ndim > 1 or not (self.factor >= 1).all():
            raise PyrasegError(f"RandLowResolutiond: factor is {factor}. Give numbers of at least 1.")

    def randomize(self, data: None = None) -> None:
        super().randomize(data)
        self._share = self.R.uniform(size=3)

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        size = image.shape[1:]
        if self.factor.ndim and len(self.factor) != len(size):
            raise PyrasegError(
                f"RandLowResolutiond: {len(self.factor)} factors for an image of shape {tuple(image.shape)}. Give one "
                f"number, or one for each of its {len(size)} axes."
            )
        factors = 1.0 + self.strength * (self.factor - 1.0) * self._share[: len(size)]
        matrices = [resolution_matrix(n, factor) for n, factor in zip(size, factors, strict=True)]
        return along_axes(image, [matrix.to(image.device) for matrix in matrices])


def along_axes(image: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return an image (C, spatial...) after one matrix (n, n) for each spatial axis of n pixels acted along it.

    A convolution in three dimensions takes several times as long on a CPU as these products of dense matrices.
    """
    for axis, matrix in enumerate(matrices, 1):
        if axis == image.ndim - 1:
            image = image @ matrix.T
        else:
            image = (matrix @ image.flatten(axis + 1).flatten(0, axis - 1)).view(image.shape)
    return image


def smoothing_matrix(size: int, kernel: torch.Tensor) -> torch.Tensor:
    """Return the convolution of an axis with an odd kernel, its ends continued, as a matrix (size, size)."""
    taps = torch.arange(len(kernel)) - len(kernel) // 2
    sources = (torch.arange(size)[:, None] + taps).clamp_(0, size - 1)
    return torch.zeros(size, size).scatter_add_(1, sources, kernel.expand(size, -1))


def resolution_matrix(size: int, factor: float) -> torch.Tensor:
    """Return the averages of an axis over `factor` times longer pixels, interpolated back: a matrix (size, size)."""
    count = max(1, round(size / factor))
    left, fine = torch.arange(count)[:, None] * (size / count), torch.arange(size)
    overlap = torch.minimum(left + size / count, fine + 1) - torch.maximum(left, fine)  # of long and short pixels
    averages = overlap.clamp_(min=0) * (count / size)
    return interpolate(averages[None, None], (size, size), mode="bilinear")[0, 0]
