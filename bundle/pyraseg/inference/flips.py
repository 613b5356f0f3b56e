# SPDX-License-Identifier: Apache-2.0
"""Look at an image and at its mirror images, and average what the network says of them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer


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
