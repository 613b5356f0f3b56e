# SPDX-License-Identifier: Apache-2.0
"""Training a network that clicks correct: the trained network behind it, simulated users, and what is validated."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.engines import default_prepare_batch
from monai.inferers import Inferer
from torch import Tensor, nn

from bundle.pyraseg.core import ModelSettings, PyrasegError, Structures, protect
from bundle.pyraseg.evaluation import SimulatedUser
from bundle.pyraseg.networks import ClickNetwork, PartialTarget, click_network
from bundle.pyraseg.training.checkpoints import read_model
from bundle.pyraseg.training.cpu import TrainingInferer
from bundle.pyraseg.training.iterations import AugmentBatch, region_targets
from bundle.pyraseg.training.teacher import OF_NETWORK, build_trained
from bundle.pyraseg.transforms import UNKNOWN

#: Share of the side of a box by which its edges may miss what they are drawn around.
BOX_SLACK = 0.1


def load_plain(path: str | Path | None, *, settings: ModelSettings, device: str | torch.device) -> nn.Module:
    """Return the trained network that clicks are to correct, as the part `plain` of a network that has no other.

    Args:
        path: file of weights, such as a bundle's `models/model.pt`.
        settings: of the training of clicks, whose network is a `click_network`.
        device: where it computes.

    Raises:
        PyrasegError: there is no file, or it was trained with other settings than these.
    """
    if path is None:
        raise PyrasegError("Clicks correct a trained model: give its weights with --click_from.")
    weights, trained = read_model(path, remedy="Correct click_from.")
    protect([Path(path)])
    if trained is None:
        raise PyrasegError(
            f"{path} does not say what it was trained with. Give click_from weights that a training of this version "
            "wrote."
        )
    replace(settings, values=plain_settings(settings.values)).require(trained, f"The model {path}")
    return nn.ModuleDict({"plain": build_trained(path, trained, weights, knob="click_from")}).to(device)


def plain_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the plain network of a click network, by those of the latter."""
    own = {f"{OF_NETWORK}.{name}" for name in ("plain", "width", "overlapping")}
    return {name: value for name, value in values.items() if name not in own} | {
        OF_NETWORK: values.get(f"{OF_NETWORK}.plain")
    }


def read_click_network(path: str | Path) -> tuple[ClickNetwork, Mapping[str, Any]]:
    """Return the click network of a file of weights, in evaluation mode, and the settings that it was trained with.

    Raises:
        PyrasegError: there is no file, or it holds another network.
    """
    weights, trained = read_model(path, remedy="Train one first: docs/clicks.md says how.")
    if trained is None or trained.get(OF_NETWORK) != click_network.__name__:
        raise PyrasegError(f"{path} holds no network that clicks correct. Train one: docs/clicks.md says how.")
    inner = {name.removeprefix("plain."): value for name, value in weights.items() if name.startswith("plain.")}
    plain = build_trained(path, plain_settings(trained), inner, knob="the model")
    options = {name: trained[f"{OF_NETWORK}.{name}"] for name in ("width", "overlapping")}
    network = ClickNetwork(plain, **options)
    network.load_state_dict(weights)
    return network.eval(), trained


class ClickBatch(AugmentBatch):
    """Choose a class for each sample of a batch, at random: a trainer's `prepare_batch`, see `AugmentBatch`.

    The class is one of those that the sample shows and was annotated for; where it shows none, one of all that it was
    annotated for. Numbers are torch's, which `SeedEpochs` seeds.

    Returns:
        image: (B, C, W, H).
        truth: of the class, (B, 1, W, H) uint8, with `UNKNOWN` where it is not known.
        (class_index, truth): for `ClickingInferer`; the channel of each sample's class, (B,).
        {}: no other arguments.
    """

    def __call__(self, batch: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        image, target = super().__call__(batch, *args, **kwargs)
        label: Any = target
        annotated = None
        if isinstance(target, PartialTarget):
            label, annotated = target
        masks = class_masks(label, self.structures)
        allowed = torch.ones(masks.shape[:2], dtype=torch.bool, device=masks.device)
        if annotated is not None:
            allowed = annotated if self.structures.overlapping else annotated[:, 1:]
        shown = allowed & (masks == 1).flatten(2).any(dim=2)
        choices = torch.where(shown.any(dim=1, keepdim=True), shown, allowed)
        chosen = torch.multinomial(choices.float().cpu(), 1).to(masks.device)[:, 0]
        truth = masks[torch.arange(len(masks), device=masks.device), chosen][:, None]
        class_index = chosen if self.structures.overlapping else chosen + 1
        return image, truth, (class_index, truth), {}


def class_masks(label: Tensor, structures: Structures) -> Tensor:
    """Return where each class is, (B, K - 1, ...) uint8, and `UNKNOWN` where the label is; of regions the label itself.

    >>> class_masks(torch.tensor([[[0, 1, 2, 255]]]), Structures(["background", "liver", "lesion"])).tolist()
    [[[0, 1, 0, 255], [0, 0, 1, 255]]]
    """
    if structures.overlapping:
        return label
    classes = torch.arange(1, len(structures.names), device=label.device).reshape(1, -1, *[1] * (label.dim() - 2))
    return (label == classes).to(torch.uint8).masked_fill_(label == UNKNOWN, UNKNOWN)


class ClickingInferer(TrainingInferer):
    """Let a simulated user correct each image of a batch, and return what the network answered: a trainer's `inferer`.

    For every batch a number of rounds is drawn. In each, every user clicks an error of the last answer (see
    `SimulatedUser`) and the network answers. The answers of the first and of the last round learn; those between are
    computed without gradients. Some users begin with a box. There are no samples without a prompt: for these, the
    network's answer is the plain one whatever it learns.

    Args:
        rounds: the largest number.
        jitter: up to how many pixels clicks miss their places.
        box_fraction: share of the users that begin with a box, where there is something to draw it around.
        cpu_kernels: see `TrainingInferer`.
    """

    def __init__(
        self, *, rounds: int = 8, jitter: float = 5.0, box_fraction: float = 0.2, cpu_kernels: str = "auto"
    ) -> None:
        super().__init__(cpu_kernels)
        self.rounds, self.jitter, self.box_fraction = rounds, jitter, box_fraction

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """Return corrected log-odds, a list of (B, 1, W, H), from images, classes (B,) and truth (B, 1, W, H)."""
        if not isinstance(network, ClickNetwork):
            raise PyrasegError(
                f"Clicks train a ClickNetwork in one process, uncompiled, not {type(network).__name__}: leave out "
                "multi_gpu_train.json, and set compile to false."
            )
        return super().__call__(inputs, partial(self._answers, network), *args, **kwargs)

    def _answers(self, network: ClickNetwork, image: Tensor, class_index: Tensor, truth: Tensor) -> list[Tensor]:
        random = np.random.default_rng(int(torch.randint(2**62, ())))
        rounds = int(random.integers(1, self.rounds + 1))
        logits, fine, coarse = network.look(image)
        plain = network.log_odds_of(logits, class_index)
        users = [self._user(mask[0], random) for mask in truth.numpy(force=True)]
        answers, last = [], plain
        for number in range(1, rounds + 1):
            for user, odds in zip(users, last.detach().numpy(force=True), strict=True):
                if number > 1 or user.box is None:
                    user.click(odds[0] > 0)
            with torch.set_grad_enabled(torch.is_grad_enabled() and number in (1, rounds)):
                last = network.refine(plain, fine, coarse, drawn(users, last))
            if number in (1, rounds):
                answers.append(last)
        return answers

    def _user(self, truth: np.ndarray, random: np.random.Generator) -> SimulatedUser:
        inside, box = truth == 1, None
        if random.random() < self.box_fraction and inside.any():
            box = sloppy_box(inside, random)
        return SimulatedUser(
            inside, known=truth != UNKNOWN, random=random, by_area=True, jitter=(0, self.jitter), box=box
        )


def drawn(users: Sequence[SimulatedUser], log_odds: Tensor) -> Tensor:
    """Return the prompts of some users (B, 5, W, H), with the last answers as log-odds (B, 1, W, H)."""
    last = log_odds.detach().float().sigmoid().numpy(force=True)
    maps = np.stack([user.prompts(each[0]) for user, each in zip(users, last, strict=True)])
    return torch.from_numpy(maps).to(log_odds.device)


def sloppy_box(inside: np.ndarray, random: np.random.Generator) -> tuple[float, float, float, float]:
    """Return a box around all that is true in a mask (W, H), whose edges miss it by up to `BOX_SLACK` of its sides."""
    ranges = [np.flatnonzero(inside.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    slack = [BOX_SLACK * (last - first + 1) for first, last in ranges] * 2
    corners = np.array([ranges[0][0], ranges[1][0], ranges[0][1], ranges[1][1]])
    left, top, right, bottom = corners + random.uniform(-1, 1, 4) * slack
    return float(left), float(top), float(right), float(bottom)


def prepare_with_truth(batch: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Give the label to the inferer as well: an evaluator's `prepare_batch` for `ClickedInferer`."""
    image, label = default_prepare_batch(batch, *args, **kwargs)
    return image, label, (), {"truth": label}


class ClickedInferer(Inferer):
    """Return a network's logits after simulated users have clicked: an evaluator's `inferer`.

    For each class, a user clicks a fixed number of times by the rule of `SimulatedUser`, without chance, on the grid
    that the network sees. Of volumes, every slice is clicked.

    Args:
        clicks: how many for each class, at most; 0 gives the plain network's logits.
        batch_size: slices of a volume at a time.
        class_names: background first.
        regions: the classes of each region where these are trained.

    Shapes: (B, C, W, H[, D]) and truth (B, 1, W, H[, D]) -> logits (B, K, W, H[, D]).
    """

    def __init__(
        self,
        *,
        clicks: int,
        batch_size: int = 1,
        class_names: Sequence[str],
        regions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        self.clicks, self.batch_size = clicks, batch_size
        self.structures = Structures(class_names, regions)

    def __call__(self, inputs: Tensor, network: Any, *args: Any, truth: Tensor | None = None, **kwargs: Any) -> Tensor:
        if inputs.dim() == 5:
            flat = inputs.movedim(4, 1).flatten(0, 1)
            labels = None if truth is None else truth.movedim(4, 1).flatten(0, 1)
            parts = [
                self(images, network, truth=None if labels is None else labels[start : start + self.batch_size])
                for start, images in zip(range(0, len(flat), self.batch_size), flat.split(self.batch_size), strict=True)
            ]
            return torch.cat(parts).unflatten(0, (len(inputs), inputs.shape[4])).movedim(1, 4)
        if truth is None or self.clicks == 0:
            return network(inputs)
        label = region_targets(truth, self.structures) if self.structures.overlapping else truth
        masks = class_masks(label, self.structures)
        logits, fine, coarse = network.look(inputs)
        corrected = logits
        for number in range(masks.shape[1]):
            channel = number if self.structures.overlapping else number + 1
            class_index = torch.full((len(inputs),), channel, device=inputs.device)
            plain = network.log_odds_of(logits, class_index)
            users = [SimulatedUser(mask == 1, known=mask != UNKNOWN) for mask in masks[:, number].numpy(force=True)]
            last = plain
            for _ in range(self.clicks):
                for user, odds in zip(users, last.numpy(force=True), strict=True):
                    user.click(odds[0] > 0)
                last = network.refine(plain, fine, coarse, drawn(users, last))
            if any(user.clicks for user in users):
                corrected = network.with_log_odds(corrected, class_index, last)
        return corrected
