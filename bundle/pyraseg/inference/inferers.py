# SPDX-License-Identifier: Apache-2.0
"""Inferers around others: one averages over mirror images, one goes on with smaller pieces where memory ends, one keeps
labels alone.
"""

import gc
import logging
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.inferers import Inferer, sliding_window_inference
from monai.transforms import Activationsd, Compose

from bundle.pyraseg.core import give_back_memory, is_out_of_memory
from bundle.pyraseg.transforms import InvertArgmaxd, RequireFinited

logger = logging.getLogger(__name__)


class FlipInferer(Inferer):
    """Average the logits of an image and of its flips, each flipped back.

    Args:
        inferer: applies the network to one of them.
        flips: for each flip, the spatial axes along which it mirrors, counted from 0: [[0]] adds the mirror image along
            W, [[0], [1], [0, 1]] all three of a plane. Only such flips belong here as the training has shown.

    Shapes: those of `inferer`, which must return one tensor of the input's spatial size.
    """

    def __init__(self, inferer: Inferer, *, flips: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.inferer = inferer
        self.flips = [tuple(axis + 2 for axis in axes) for axes in flips]

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        total = self.inferer(inputs, network, *args, **kwargs)
        for dims in self.flips:
            total = total + self.inferer(inputs.flip(dims), network, *args, **kwargs).flip(dims)
        return total / (1 + len(self.flips))


Network = Callable[..., torch.Tensor]

#: Pixels below which a side is not cut any more: the network's coarsest features would see nothing around them.
SMALLEST_TILE = 64
#: Sides of tiles are multiples of the networks' largest stride.
STRIDE = 32
OVERLAP = 0.25


class FrugalInferer(Inferer):
    """Apply an inferer, and give the network smaller pieces wherever it runs out of memory, with a warning.

    A batch is cut in half first, which changes nothing in the result. A single image is then cut into overlapping tiles
    of half its longer side, blended by a Gaussian: the network sees less around each pixel, so labels may differ.

    Args:
        inferer: applies the network to an input.

    Shapes: those of `inferer`. Its network must return one tensor of the input's spatial size.
    """

    def __init__(self, inferer: Inferer) -> None:
        super().__init__()
        self.inferer = inferer

    def __call__(self, inputs: torch.Tensor, network: Network, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.inferer(inputs, FrugalNetwork(network), *args, **kwargs)


class FrugalNetwork:
    """Call a network, and call it again with less where it runs out of memory; what was too much is remembered."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.too_many = float("inf")  # elements of an input that did not fit

    def __call__(self, images: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if images.numel() < self.too_many:
            try:
                return self.network(images, *args, **kwargs)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.too_many = images.numel()
                refused = error.with_traceback(None)  # the frames hold the very tensors that are in the way
            _free()
        else:
            refused = MemoryError("an input of this size did not fit before")
        if len(images) > 1:
            logger.warning("Out of memory: a batch of %d is halved", len(images))
            return torch.cat([self(half, *args, **kwargs) for half in images.split((len(images) + 1) // 2)])
        tile = smaller_tile(images.shape[2:])
        if tile is None:
            raise refused
        logger.warning("Out of memory: %s pixels are cut into tiles of %s", _by(images.shape[2:]), _by(tile))
        return sliding_window_inference(
            images, tile, 1, lambda piece: self(piece, *args, **kwargs), overlap=OVERLAP, mode="gaussian"
        )


#: Steps behind the network that look at each voxel by itself.
PER_SLICE = (RequireFinited, Activationsd)
#: Bytes of logits that there are at a time.
SLAB = 1 << 27
#: Slices that become labels at a time: what is computed of them on the grid of the input stays in a processor's cache.
AT_A_TIME = 8


class SlabInferer(Inferer):
    """Make labels of some slices at a time, so that memory does not grow with classes times slices.

    The first steps of a postprocessing, up to `InvertArgmaxd`, are done slab by slab, with what a run over the whole
    volume gives: they mix no slices. The others, which look at the labels as a whole, are left as `rest`. Where others
    than `PER_SLICE` come before, as those that keep probabilities, all of it is left, and logits are returned.

    Args:
        inferer: applies the network to slices that know nothing of each other.
        postprocessing: from logits on.
        classes: number of the network's classes.
        whole: return logits anyway, for others that look at them.

    Shapes: (1, C, W', H'[, D]) -> labels (1, 1, W, H[, D]) uint8 on the grid of the input.
    """

    def __init__(
        self,
        inferer: Inferer,
        *,
        postprocessing: Compose,
        classes: int,
        whole: bool = False,
    ) -> None:
        super().__init__()
        self.inferer = inferer
        self.classes = classes
        steps = list(postprocessing.transforms)
        first = list(takewhile(lambda step: isinstance(step, PER_SLICE), steps))
        after = steps[len(first) :]
        self.by_slab = not whole and bool(after) and isinstance(after[0], InvertArgmaxd)
        #: What is left to do with what this returns.
        self.rest = Compose(after[1:]) if self.by_slab else postprocessing
        if self.by_slab:
            self.to_labels = Compose([*first, after[0]])
            self.invert: InvertArgmaxd = after[0]

    def __call__(self, inputs: torch.Tensor, network: Network, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not self.by_slab:
            return self.inferer(inputs, network, *args, **kwargs)

        give_back_memory()  # what reading and preprocessing took

        def applied(images: torch.Tensor) -> torch.Tensor:
            return network(images, *args, **kwargs)

        labels = [self._labels(image, applied) for image in decollate_batch(inputs)]
        like = list_data_collate([one[..., :1] for one in labels])
        return _stacked([one.as_tensor() for one in labels]).as_subclass(MetaTensor).copy_meta_from(like)

    def _labels(self, image: MetaTensor, network: Network) -> MetaTensor:
        def logits_of(image: MetaTensor) -> torch.Tensor:
            return self.inferer(image[None], network)[0]

        # Without the other metadata, such as headers, which `Invertd` would copy for each slab and class.
        named = {key: image.meta[key] for key in ("affine", "filename_or_obj") if key in image.meta}
        whole = MetaTensor(image.as_tensor(), meta=named)
        whole.applied_operations = image.applied_operations
        placed = self.invert.slice_order(whole) if image.ndim == 4 else None
        if placed is None:
            return self._classes(logits_of(whole), whole)
        size, affine, order = placed
        labels = torch.zeros(*reversed(size), dtype=torch.uint8)  # slice after slice in memory
        fitting = max(1, SLAB // (4 * self.classes * image.shape[1] * image.shape[2]))
        slices = min(_batch_size(self.inferer), fitting)  # of a whole batch, the network computes the very same
        for start in range(0, image.shape[3], slices):
            slab = whole[..., start : start + slices]
            logits = logits_of(slab)
            for first in range(0, slab.shape[3], AT_A_TIME):
                few = slice(first, first + AT_A_TIME)
                found = self._classes(logits[..., few], slab[..., few])[0].as_tensor()
                there = (order >= start + first) & (order < start + first + found.shape[2])
                labels[there] = found.permute(2, 1, 0)
        return MetaTensor(labels.permute(2, 1, 0)[None], meta={**named, "affine": torch.as_tensor(affine)})

    def _classes(self, logits: torch.Tensor, image: MetaTensor) -> MetaTensor:
        with torch.autocast(image.device.type, enabled=False):
            return self.to_labels({self.invert.keys[0]: logits, self.invert.orig_key: image})[self.invert.keys[0]]


def _stacked(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Return tensors as a batch; one keeps its memory, and the order in it."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)


def _batch_size(inferer: Inferer) -> int:
    """Return how many slices an inferer gives to the network at a time."""
    while isinstance(inferer, FrugalInferer | FlipInferer):
        inferer = inferer.inferer
    return getattr(inferer, "sw_batch_size", 1)


def smaller_tile(size: torch.Size) -> tuple[int, ...] | None:
    """Return a size whose longest side is half as long, rounded up to a multiple of 32; None where it is too small."""
    longest = max(size)
    half = -(-longest // (2 * STRIDE)) * STRIDE
    if longest <= SMALLEST_TILE or half >= longest:
        return None
    return tuple(half if side == longest else side for side in size)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _by(size: torch.Size | tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
