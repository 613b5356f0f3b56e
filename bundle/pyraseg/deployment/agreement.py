# SPDX-License-Identifier: Apache-2.0
"""Measure how far an exported graph is from the bundle's own inference, and refuse one that is too far."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from scipy.special import expit, softmax
from torch import nn

from bundle.pyraseg.core import PyrasegError, region_values
from bundle.pyraseg.deployment.examples import SIZES, Example, patterns
from bundle.pyraseg.deployment.path import LOGITS
from bundle.pyraseg.deployment.reference import Outcome, Reference
from bundle.pyraseg.networks import ClickNetwork
from bundle.pyraseg.runtime import FEATURES, SHOWN, draw_prompts, log_odds_of, open_session

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
        worst: (height, width), or of a volume (W, H, D), of the image with the largest difference of logits.
    """

    images: int
    logit_error: float
    probability_error: float
    mask_agreement: float
    worst: tuple[int, ...]

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
            f"{_by(self.worst)} pixels. The network has an operation that the exporter gets wrong; "
            "nothing was written."
        )


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


class _Pair(NamedTuple):
    size: tuple[int, ...]
    found: Outcome
    expected: Outcome


def compare_network(
    model: onnx.ModelProto,
    network: nn.Module,
    channels: int,
    sizes: Sequence[tuple[int, ...]] = SIZES,
    *,
    sigmoid: bool = False,
) -> Agreement:
    """Compare the graph of a network with the network, on images (B, channels, *size) of several sizes and batches."""
    run, random = _open(model), np.random.default_rng(0)
    pairs = []
    for number, size in enumerate(sizes):
        batch = 1 + 2 * (number % 2)
        image = 2 * np.stack([patterns(random, channels, *size) for _ in range(batch)]) - 1
        with torch.no_grad():
            expected = network(torch.from_numpy(image)).numpy()
        (found,) = _run(run, ["logits"], {"image": image}, size)
        mine, theirs = (_decided(logits, sigmoid=sigmoid) for logits in (found, expected))
        pairs.append(_Pair(size, mine, theirs))
    return _worst(pairs)


def _decided(logits: np.ndarray, *, sigmoid: bool) -> Outcome:
    """Return what logits mean: classes, or label values of regions."""
    if not sigmoid:
        return Outcome(logits, softmax(logits, axis=1), logits.argmax(1))
    probabilities = expit(logits)
    values = region_values(probabilities.swapaxes(0, 1), np.zeros(logits[:, 0].shape, np.uint8))
    return Outcome(logits, probabilities, values)


def compare_path(model: onnx.ModelProto, reference: Reference, images: Iterable[Example]) -> Agreement:
    """Compare the graph of a whole path with the bundle's own inference."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    if LOGITS not in [output.name for output in opened.graph.output]:
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


def compare_clicks(
    look: onnx.ModelProto,
    refine: onnx.ModelProto,
    network: ClickNetwork,
    channels: int,
    sizes: Sequence[tuple[int, ...]] = SIZES,
) -> Agreement:
    """Compare both graphs of a click network with the network, on images (B, channels, *size) of several sizes.

    Each has clicks of both kinds and every second one a box, for one class after the other; what is compared are
    corrected log-odds.

    Args:
        look: the network alone, see `network_model`.
        refine: what is computed for each click, see `refine_model`.
        network: of both.
        channels: of its image.
        sizes: of the images.
    """
    looked, refined, random = _open(look), _open(refine), np.random.default_rng(0)
    pairs = []
    for number, size in enumerate(sizes):
        image = 2 * patterns(random, channels, *size)[None] - 1
        with torch.no_grad():
            plain = network.plain(torch.from_numpy(image)).numpy()
        channel = number % plain.shape[1]
        prompts = _prompts(random, plain[0], channel, number, overlapping=network.overlapping)
        with torch.no_grad():
            tensors = torch.from_numpy(image), torch.from_numpy(prompts[None]), torch.tensor([channel])
            expected = network(*tensors).numpy()
        logits, *features = _run(looked, ["logits", *FEATURES], {"image": image}, size)
        found = _refined(refined, logits, features, channel, prompts, size, overlapping=network.overlapping)
        pairs.append(_Pair(size, _of_log_odds(found), _of_log_odds(expected)))
    return _worst(pairs)


def compare_path_with_clicks(
    model: onnx.ModelProto,
    refine: onnx.ModelProto,
    network: ClickNetwork,
    reference: Reference,
    images: Iterable[Example],
) -> Agreement:
    """Compare what clicks behind the graph of a whole path give with PyTorch, for the first image of each example."""
    looked, refined, random = _open(model), _open(refine), np.random.default_rng(0)
    pairs = []
    for number, example in enumerate(images):
        expected = reference(example.item).logits[:1]
        size = expected.shape[2:]
        channel = number % expected.shape[1]
        prompts = _prompts(random, expected[0], channel, number, overlapping=network.overlapping)
        shown, logits, *features = _run(looked, [SHOWN, LOGITS, *FEATURES], example.feed, size)
        with torch.no_grad():
            _, fine, coarse = network.look(torch.from_numpy(shown[:1]))
            log_odds = network.log_odds_of(torch.from_numpy(expected), torch.tensor([channel]))
            truth = network.refine(log_odds, fine, coarse, torch.from_numpy(prompts[None])).numpy()
        first = [value[:1] for value in features]
        found = _refined(refined, logits[:1], first, channel, prompts, size, overlapping=network.overlapping)
        pairs.append(_Pair(size, _of_log_odds(found), _of_log_odds(truth)))
    return _worst(pairs)


def _prompts(
    random: np.random.Generator, logits: np.ndarray, channel: int, number: int, *, overlapping: bool
) -> np.ndarray:
    """Return prompts (5, W, H) at random places of an image with logits (K, W, H); every second one has a box."""
    size = logits.shape[1:]
    places = random.random((4, 2)) * (np.array(size) - 1)
    clicks = [(float(x), float(y), order < 2) for order, (x, y) in enumerate(places)]
    corners = np.sort(random.random((2, 2)), axis=0) * (np.array(size) - 1)
    box = [*np.floor(corners[0]), *np.ceil(corners[1])] if number % 2 else None
    last = expit(log_odds_of(logits, channel, overlapping=overlapping))
    return draw_prompts(clicks, box, size, last.astype(np.float32))


def _refined(
    run: onnxruntime.InferenceSession,
    logits: np.ndarray,
    features: Sequence[np.ndarray],
    channel: int,
    prompts: np.ndarray,
    size: tuple[int, ...],
    *,
    overlapping: bool,
) -> np.ndarray:
    """Return what the graph for clicks gives, (1, 1, W, H)."""
    log_odds = log_odds_of(logits[0], channel, overlapping=overlapping)[None, None]
    feed = {"log_odds": log_odds, **dict(zip(FEATURES, features, strict=True)), "prompts": prompts[None]}
    return _run(run, ["corrected"], feed, size)[0]


def _of_log_odds(log_odds: np.ndarray) -> Outcome:
    return Outcome(log_odds, expit(log_odds), (log_odds > 0)[:, 0])


def _open(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    remedy = "The network has an operation that ONNX Runtime does not know; nothing was written."
    return open_session(model.SerializeToString(), threads=1, remedy=remedy)


def _run(
    run: onnxruntime.InferenceSession, names: list[str], feed: dict[str, np.ndarray], size: tuple[int, ...]
) -> list[np.ndarray]:
    try:
        return run.run(names, feed)
    except Exception as error:  # of types of ONNX Runtime's own
        reason = next(iter(str(error).strip().splitlines()), "")[-200:]
        raise PyrasegError(
            f"The graph cannot be computed at {_by(size)} pixels ({reason}): an operation was written for "
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
