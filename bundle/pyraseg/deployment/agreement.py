# SPDX-License-Identifier: Apache-2.0
"""Measure how far an exported graph is from the bundle's own inference, on images that nobody took, and refuse one
that is too far."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import Compose, Invertd, LoadImaged
from scipy.special import expit, softmax
from torch import Tensor, nn

from bundle.pyraseg.core import PyrasegError, region_values
from bundle.pyraseg.deployment.path import LOGITS
from bundle.pyraseg.deployment.recipe import Decision, Recipe
from bundle.pyraseg.dicom import VoiWindow
from bundle.pyraseg.networks import ClickNetwork
from bundle.pyraseg.runtime import FEATURES, SHOWN, draw_prompts, log_odds_of, open_session
from bundle.pyraseg.transforms import Percentiles, soften

#: Sides (height, width) of images: odd, even, not square, and so small that the coarsest maps have fewer than 7 x 7.
SIZES = ((33, 33), (64, 64), (97, 130), (160, 96), (255, 65), (33, 321))
#: Sides (W, H, D) of volumes.
VOLUME_SIZES = ((33, 33, 17), (64, 32, 32), (49, 66, 21), (21, 35, 80))
#: Slices of a test volume; the first and the last have neighbors on one side alone.
SLICES = 3


@dataclass(frozen=True, eq=False)
class Example:
    """Hold one image in two forms.

    Attributes:
        item: as `LoadImaged` returns it, oriented as displayed.
        feed: inputs of a whole-path graph.
    """

    item: dict[str, MetaTensor]
    feed: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Hold what came out for an image: logits (batch, classes, columns, rows) of the network's grid, probabilities
    (batch, classes, height, width) and classes (batch, height, width) of the image's.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    classes: np.ndarray


def examples(recipe: Recipe, sizes: Sequence[tuple[int, int]] = SIZES) -> Iterator[Example]:
    """Yield an image for each size; the same ones in every run. Every second radiograph or volume is inverted."""
    random = np.random.default_rng(0)
    for number, (height, width) in enumerate(sizes):
        if recipe.image_kind == "photograph":
            yield _photograph(patterns(random, 3, height, width))
        else:
            depth = SLICES if recipe.image_kind == "volume" else 1
            gray = _rescaled(recipe, patterns(random, depth, height, width))
            yield _gray(recipe, gray, number, inverted=number % 2 == 1)


def patterns(random: np.random.Generator, count: int, *size: int) -> np.ndarray:
    """Return images or volumes (count, *size) from 0 to 1 with coarse shapes and noise; neighbors are alike."""
    coarse, fine = (
        torch.from_numpy(random.random((1, count, *sides)).astype(np.float32))
        for sides in ((6, 7, 5)[: len(size)], size)
    )
    means = coarse.cumsum(1) / torch.arange(1, count + 1).view(1, -1, *[1] * len(size))
    shapes = F.interpolate(means, size, mode="bicubic" if len(size) == 2 else "trilinear")
    return (0.85 * shapes + 0.15 * fine)[0].clamp(0, 1).numpy()


def _photograph(colors: np.ndarray) -> Example:
    image = np.rint(255 * colors).astype(np.uint8)
    item = MetaTensor(torch.from_numpy(image.transpose(0, 2, 1).astype(np.float32)))
    return Example({"image": item}, {"image": np.ascontiguousarray(image.transpose(1, 2, 0))[None]})


def _rescaled(recipe: Recipe, gray: np.ndarray) -> np.ndarray:
    """Stretch values beyond all windows on both sides."""
    fixed = [window for window in recipe.windows if isinstance(window, VoiWindow)] or [VoiWindow(500, 1000)]
    low, high = (min(w.center - 0.6 * w.width for w in fixed), max(w.center + 0.6 * w.width for w in fixed))
    return (low + (high - low) * gray).astype(np.float32)


def _gray(recipe: Recipe, slices: np.ndarray, number: int, *, inverted: bool) -> Example:
    """Return slices (depth, height, width) as a volume or, one of them, as a projection."""
    depth = len(slices)
    free = [window for window in recipe.windows if not isinstance(window, VoiWindow)]
    offered = [
        tuple(VoiWindow(480.0 + 40 * item + 7 * k, 300.0 + 90 * item, "LINEAR_EXACT") for item in range(8))
        for k in range(depth)
    ]
    meta: dict[str, Any] = {"inverted": inverted, "voi": offered}
    array = slices.transpose(2, 1, 0)[None]
    # Between 0.4 and 1.3 of the network's own spacing, and not the same along the two axes.
    own = recipe.spacing or 1.0
    between_rows, between_columns = (own * (0.4 + 0.9 * ((number * step) % 7) / 6) for step in (2, 3))
    if recipe.image_kind == "projection":
        item = MetaTensor(torch.from_numpy(array[..., 0].copy()), meta=meta)
    else:
        affine = np.diag([-between_columns, -between_rows, 3.0, 1.0])
        item = MetaTensor(torch.from_numpy(array.copy()), affine=torch.from_numpy(affine), meta=meta)
    around = [range(k - recipe.context_slices, k + recipe.context_slices + 1) for k in range(depth)]
    places = np.clip(np.array([list(indices) for indices in around]), 0, depth - 1)
    feed = {"image": slices[places], "inverted": np.full(depth, inverted)}
    if recipe.image_kind == "volume":
        feed["spacing"] = np.array([between_rows, between_columns])
    if free:
        chosen = [
            [window.window(slices) if isinstance(window, Percentiles) else offered[k][window] for window in free]
            for k in range(depth)
        ]
        edges = [[(w.center - w.width / 2, w.center + w.width / 2) for w in windows] for windows in chosen]
        feed["windows"] = np.array(edges, np.float32)[places]
    return Example({"image": item}, feed)


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
