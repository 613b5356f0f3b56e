# SPDX-License-Identifier: Apache-2.0
"""Inferers around others: one averages over mirror images, one goes on with smaller pieces where memory ends."""

import gc
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer, sliding_window_inference

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
        return self.inferer(inputs, _Frugal(network), *args, **kwargs)


class _Frugal:
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


def smaller_tile(size: torch.Size) -> tuple[int, ...] | None:
    """Return a size whose longest side is half as long, rounded up to a multiple of 32; None where it is too small."""
    longest = max(size)
    half = -(-longest // (2 * STRIDE)) * STRIDE
    if longest <= SMALLEST_TILE or half >= longest:
        return None
    return tuple(half if side == longest else side for side in size)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out: Python's, CUDA's, or that of torch's allocator for the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("not enough memory", "out of memory", "can't allocate memory")
    )


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _by(size: torch.Size | tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
