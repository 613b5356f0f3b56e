# SPDX-License-Identifier: Apache-2.0
"""A network that puts class 1 where the first window is above its center: what it should find is known exactly."""

import torch
from torch import nn


class ThresholdNetwork(nn.Module):
    """Compare the first channel with 0; a weight is there because a model has some.

    Args:
        **unused: what a config gives to a network.
    """

    def __init__(self, **unused: object) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value = 20 * image[:, :1] * self.weight
        return torch.cat([-value, value], dim=1)
