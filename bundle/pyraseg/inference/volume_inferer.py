# SPDX-License-Identifier: Apache-2.0
"""Apply a network in three dimensions to tiles of a volume, and make labels of it without holding all its logits."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import Activationsd, Compose
from torch import Tensor

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.inference.inferers import FrugalNetwork, Network, SlabInferer
from bundle.pyraseg.runtime import blended, labels_of, tile_padding
from bundle.pyraseg.transforms import RequireFinited, on_input_axes, size_before


class TileInferer(Inferer):
    """Apply a network to overlapping tiles of a volume and blend their logits by a Gaussian, as nnU-Net does.

    Beyond the border of a volume that is smaller than a tile, its outer voxels go on. Where a tile runs out of memory
    it is cut into smaller ones, with a warning.

    Args:
        patch_size: voxels (W, H, D) of a tile, best those of the training.
        overlap: share of a tile that the next one covers too, along each axis.
        flips: for each mirror image of a tile that logits are averaged over, the axes along which it is mirrored,
            from 0 for W on. Only such flips belong here as the training has shown.

    Raises:
        PyrasegError: the patch size is not three positive numbers, or the overlap is not below 1.

    Shapes: (N, C, W, H, D) -> logits (N, K, W, H, D).
    """

    def __init__(self, *, patch_size: Sequence[int], overlap: float = 0.5, flips: Sequence[Sequence[int]] = ()) -> None:
        super().__init__()
        if len(patch_size) != 3 or min(patch_size) < 1:
            raise PyrasegError(f"patch_size is three numbers from 1 on, voxels along W, H and D, not {patch_size}.")
        if not 0 <= overlap < 1:
            raise PyrasegError(f"The overlap of tiles is a share from 0 to below 1, not {overlap}.")
        self.patch_size = tuple(map(int, patch_size))
        self.overlap = overlap
        self.flips = [tuple(map(int, axes)) for axes in flips]

    def __call__(self, inputs: Tensor, network: Network, *args: Any, **kwargs: Any) -> Tensor:
        def applied(images: Tensor) -> Tensor:
            return network(images, *args, **kwargs)

        found = []
        for image in inputs.as_subclass(Tensor):
            slabs = [torch.from_numpy(slab) for slab in self.slabs(image, applied)]
            found.append(torch.cat(slabs, dim=3).to(inputs.device))
        logits = torch.stack(found)
        return logits.as_subclass(MetaTensor).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else logits

    def slabs(self, image: Tensor, network: Network) -> Iterator[np.ndarray]:
        """Yield the logits of an image (C, W, H, D) from its first planes to its last, (K, W, H, n) float32."""
        frugal = FrugalNetwork(network)
        plain = image.as_subclass(Tensor)
        padding = tile_padding(plain.shape[1:], self.patch_size)
        if any(map(any, padding)):
            plain = F.pad(plain[None], [side for pair in reversed(padding) for side in pair], mode="replicate")[0]

        def logits_at(place: tuple[slice, slice, slice]) -> np.ndarray:
            tile = plain[(slice(None), *place)][None]
            total = frugal(tile).float()
            for axes in self.flips:
                dims = [axis + 2 for axis in axes]
                total = total + frugal(tile.flip(dims)).float().flip(dims)
            return (total / (1 + len(self.flips)))[0].detach().cpu().as_subclass(Tensor).numpy()

        return blended(image.shape[1:], self.patch_size, self.overlap, logits_at)


class VolumeSlabInferer(SlabInferer):
    """Make labels on the grid of the input while a volume is computed, so that memory does not grow with classes.

    As `SlabInferer`, for `TileInferer`: the first steps of a postprocessing, up to `InvertArgmaxd`, are done slab by
    slab, in the arithmetic that the runtime without PyTorch shares. The others are left as `rest`. Where there are
    others before it, as those that keep probabilities, all of it is left, and the logits of the whole volume are
    returned.

    Args:
        inferer: gives the network its tiles.
        postprocessing: from logits on.
        classes: number of the network's classes.
        whole: return logits anyway, for others that look at them.

    Shapes: (N, C, W', H', D') -> labels (N, 1, W, H, D) uint8 on the grid of the input.
    """

    def __init__(self, inferer: TileInferer, *, postprocessing: Compose, classes: int, whole: bool = False) -> None:
        super().__init__(inferer, postprocessing=postprocessing, classes=classes, whole=whole)
        self.tiles = inferer
        if self.by_slab:
            first = self.to_labels.transforms[:-1]
            self.checks = Compose([step for step in first if isinstance(step, RequireFinited)])
            others = [step for step in first if isinstance(step, Activationsd)]
            if [(step.softmax, step.sigmoid) for step in others] != [((True,), (False,))]:
                self.by_slab, self.rest = False, postprocessing

    def _labels(self, image: MetaTensor, network: Network) -> MetaTensor:
        key = self.invert.keys[0]
        about = {self.invert.orig_key: image}

        def checked(slabs: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
            for slab in slabs:
                self.checks({**about, key: torch.from_numpy(slab)})
                yield slab

        size = size_before(image)
        if size is None:  # the preprocessing did more than turn and resample
            return self._classes(self.inferer(image[None], network)[0], image)
        labels = labels_of(checked(self.tiles.slabs(image, network)), image.shape[1:], size)
        return on_input_axes(labels, image)
