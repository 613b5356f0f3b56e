# SPDX-License-Identifier: Apache-2.0
"""Let a faster form of a network pass only if it finds the same on validation cases."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.evaluation import count_overlap, mean_dice, summarize

#: How far the mean Dice may fall.
DICE_LOSS = 0.005
#: Least share of pixels that keep their class.
MASK_AGREEMENT = 0.995


@dataclass(frozen=True)
class Verdict:
    """Hold what two forms of a network find on the same cases, on the grid of the labels.

    Attributes:
        cases: how many.
        before, after: mean Dice of the network and of its faster form.
        agreement: share of all pixels that have the same class.
    """

    cases: int
    before: float
    after: float
    agreement: float

    def __str__(self) -> str:
        return (
            f"Dice {self.before:.4f} -> {self.after:.4f} on {self.cases} validation cases, "
            f"{self.agreement:.2%} of the pixels keep their class"
        )

    @property
    def passed(self) -> bool:
        return self.after >= self.before - DICE_LOSS and self.agreement >= MASK_AGREEMENT

    def require(self, what: str, remedy: str) -> None:
        """Raise PyrasegError where too much changed.

        Args:
            what: names the faster form.
            remedy: what to do about it.
        """
        if not self.passed:
            raise PyrasegError(
                f"{what} did not pass: {self}. It may cost {DICE_LOSS} of Dice, and {MASK_AGREEMENT:.1%} of the pixels "
                f"must keep their class. {remedy} Nothing was written."
            )


def judge(
    cases: Iterable[Mapping[str, Any]],
    networks: tuple[nn.Module, nn.Module],
    inferer: Inferer,
    postprocessing: Callable[[dict[str, Any]], dict[str, Any]],
    class_names: Sequence[str],
    *,
    overlapping: bool = False,
    with_truth: bool = False,
) -> Verdict:
    """Segment every case with a network and with its faster form, and compare.

    Args:
        cases: as the validation data set of a training config yields them: `image` (C, W, H[, D]), `label_before`.
        networks: both, image (B, C, W, H) -> logits (B, classes, W, H).
        inferer: of that config.
        postprocessing: of that config, {"image", "label_before", "pred": logits} -> "pred" and "truth", class indices.
        class_names: names of all classes, background first; or of the background and all regions.
        overlapping: they are regions, and the labels values of them, see `core.Structures`.
        with_truth: the inferer is given the label, as `truth`: users are simulated who correct what the networks find.
    """
    counts: tuple[list, list] = ([], [])
    equal = pixels = 0
    for case in cases:
        found = []
        for network, of_one in zip(networks, counts, strict=True):
            with torch.no_grad():
                truth = {"truth": case["label"][None]} if with_truth else {}
                logits = inferer(case["image"][None], network, **truth)[0]
            result = postprocessing({**case, "pred": logits})
            pair = result["pred"], result["truth"]
            of_one.append(count_overlap(*pair, len(class_names), overlapping=overlapping))
            found.append(torch.as_tensor(result["pred"]))
        equal += int((found[0] == found[1]).sum())
        pixels += found[0].numel()
    before, after = (mean_dice(summarize(torch.stack(of_one), class_names)) for of_one in counts)
    return Verdict(len(counts[0]), before, after, equal / pixels)
