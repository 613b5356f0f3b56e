# SPDX-License-Identifier: Apache-2.0
"""Measure how far an exported graph is from the bundle's own inference, and refuse one that is too far."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from scipy.special import softmax
from torch import nn

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.deployment.onnx_graph import LOGITS
from bundle.pyraseg.deployment.reference import SIZES, Example, Outcome, Reference, patterns
from bundle.pyraseg.runtime import open_session

#: Largest difference of logits, relative to the largest logit, that is rounding.
LOGIT_TOLERANCE = 1e-4
#: Largest difference of probabilities that is rounding; a temperature below 1 makes it larger than that of the logits.
PROBABILITY_TOLERANCE = 1e-3
#: Least share of pixels that have the same class.
MASK_AGREEMENT = 0.999


@dataclass(frozen=True)
class Agreement:
    """Hold the worst of several images.

    Attributes:
        images: how many were compared.
        logit_error: largest difference of logits, relative to the largest logit of the image.
        probability_error: largest difference of probabilities.
        mask_agreement: share of all pixels with the same class.
        worst: (height, width) of the image with the largest difference of logits.
    """

    images: int
    logit_error: float
    probability_error: float
    mask_agreement: float
    worst: tuple[int, int]

    def __str__(self) -> str:
        return (
            f"logits within {self.logit_error:.1e} of the largest one, probabilities within "
            f"{self.probability_error:.1e}, classes equal for {self.mask_agreement:.3%} of the pixels of "
            f"{self.images} images"
        )

    def require(self, what: str) -> None:
        """Raise PyrasegError where the difference is more than rounding.

        Args:
            what: names the graph, for the message.
        """
        alike = self.logit_error <= LOGIT_TOLERANCE and self.probability_error <= PROBABILITY_TOLERANCE
        if alike and self.mask_agreement >= MASK_AGREEMENT:
            return
        raise PyrasegError(
            f"{what} is not what PyTorch computes: {self}; at most {LOGIT_TOLERANCE:.0e} and "
            f"{PROBABILITY_TOLERANCE:.0e}, and at least {MASK_AGREEMENT:.1%} are accepted. It differs most at "
            f"{self.worst[0]} x {self.worst[1]} pixels. The network has an operation that the exporter gets wrong; "
            "nothing was written."
        )


class _Pair(NamedTuple):
    size: tuple[int, int]
    found: Outcome
    expected: Outcome


def compare_network(model: onnx.ModelProto, network: nn.Module, channels: int) -> Agreement:
    """Compare the graph of a network with the network, on images (B, channels, H, W) of several sizes and batches."""
    run, random = _open(model), np.random.default_rng(0)
    pairs = []
    for number, size in enumerate(SIZES):
        batch = 1 + 2 * (number % 2)
        image = 2 * np.stack([patterns(random, channels, *size) for _ in range(batch)]) - 1
        with torch.no_grad():
            expected = network(torch.from_numpy(image)).numpy()
        (found,) = _run(run, ["logits"], {"image": image}, size)
        mine, theirs = (Outcome(logits, softmax(logits, axis=1), logits.argmax(1)) for logits in (found, expected))
        pairs.append(_Pair(size, mine, theirs))
    return _worst(pairs)


def compare_path(model: onnx.ModelProto, reference: Reference, images: Iterable[Example]) -> Agreement:
    """Compare the graph of a whole path with the bundle's own inference."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    opened.graph.output.append(onnx.helper.make_tensor_value_info(LOGITS, onnx.TensorProto.FLOAT, [None] * 4))
    run = _open(opened)
    pairs = []
    for example in images:
        expected = reference(example.item)
        size = tuple(expected.classes.shape[1:])
        classes, probabilities, logits = _run(run, ["classes", "probabilities", LOGITS], example.feed, size)
        if classes.shape != expected.classes.shape or logits.shape != expected.logits.shape:
            raise PyrasegError(
                f"The whole path gives classes of {classes.shape} and logits of {logits.shape}, where PyTorch has "
                f"{expected.classes.shape} and {expected.logits.shape}; nothing was written."
            )
        pairs.append(_Pair(size, Outcome(logits, probabilities, classes), expected))
    return _worst(pairs)


def _open(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    remedy = "The network has an operation that ONNX Runtime does not know; nothing was written."
    return open_session(model.SerializeToString(), threads=1, remedy=remedy)


def _run(
    run: onnxruntime.InferenceSession, names: list[str], feed: dict[str, np.ndarray], size: tuple[int, int]
) -> list[np.ndarray]:
    try:
        return run.run(names, feed)
    except Exception as error:  # of types of ONNX Runtime's own
        reason = next(iter(str(error).strip().splitlines()), "")[-200:]
        raise PyrasegError(
            f"The graph cannot be computed at {size[0]} x {size[1]} pixels ({reason}): an operation was written for "
            "one size alone. Use another encoder or decoder; nothing was written."
        ) from error


def _worst(pairs: list[_Pair]) -> Agreement:
    errors = []
    for _, found, expected in pairs:
        error = float(np.abs(found.logits - expected.logits).max() / np.abs(expected.logits).max())
        errors.append(error if np.isfinite(error) else np.inf)
    apart = max(float(np.abs(found.probabilities - expected.probabilities).max()) for _, found, expected in pairs)
    equal = sum(int((found.classes == expected.classes).sum()) for _, found, expected in pairs)
    pixels = sum(pair.expected.classes.size for pair in pairs)
    worst = int(np.argmax(errors))
    return Agreement(len(pairs), errors[worst], apart, equal / pixels, pairs[worst].size)
