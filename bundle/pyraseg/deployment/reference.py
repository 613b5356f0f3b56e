# SPDX-License-Identifier: Apache-2.0
"""The bundle's own inference of one image, which exported graphs are compared with."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import Compose, Invertd, LoadImaged
from torch import Tensor, nn

from bundle.pyraseg.deployment.recipe import Decision
from bundle.pyraseg.transforms import soften


@dataclass(frozen=True, eq=False)
class Outcome:
    """Hold what came out for an image: logits (batch, classes, columns, rows) of the network's grid, probabilities
    (batch, classes, height, width) and classes (batch, height, width) of the image's.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    classes: np.ndarray


class Reference:
    """The bundle's own inference, from the loaded image on.

    Args:
        network: in evaluation mode, on the CPU.
        preprocessing, inferer, postprocessing: of the config.
        decision: how probabilities become classes.
        sigmoid: the channels are regions, which overlap.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Compose,
        inferer: Inferer,
        postprocessing: Compose,
        decision: Decision,
        *,
        sigmoid: bool = False,
    ) -> None:
        self.network = network
        self.preprocessing = Compose([t for t in preprocessing.transforms if not isinstance(t, LoadImaged)])
        self.inferer = inferer
        self.postprocessing = postprocessing
        self.decision = decision
        self.sigmoid = sigmoid
        self.invert = Invertd("pred", preprocessing, "image", nearest_interp=False)

    @torch.no_grad()
    def __call__(self, item: Mapping[str, MetaTensor]) -> Outcome:
        prepared = self.preprocessing(dict(item))
        logits = self.inferer(prepared["image"][None], self.network)[0]
        raw = torch.as_tensor(logits).as_subclass(Tensor)
        activated = {"image": prepared["image"], "pred": MetaTensor(raw.sigmoid() if self.sigmoid else raw.softmax(0))}
        probabilities = self.invert(activated)["pred"].as_tensor()
        if self.decision.temperature != 1:
            probabilities = soften(probabilities, self.decision.temperature, dim=0)
        if self.decision.threshold is None:
            classes = self.postprocessing({**prepared, "pred": MetaTensor(raw.clone())})["pred"].as_tensor()
        else:
            classes = (probabilities[1:] > self.decision.threshold).byte()
        return Outcome(_as_batch(raw), _as_batch(probabilities).swapaxes(2, 3), _as_batch(classes)[:, 0].swapaxes(1, 2))


def _as_batch(array: Tensor) -> np.ndarray:
    """Return (C, W, H) as a batch of one, (C, W, H, D) as a batch of its slices."""
    array = array.unsqueeze(-1) if array.ndim == 3 else array
    return array.permute(3, 0, 1, 2).numpy()
