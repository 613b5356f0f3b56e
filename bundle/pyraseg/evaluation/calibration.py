# SPDX-License-Identifier: Apache-2.0
"""Whether a probability of 0.8 is right in 8 of 10 voxels, and the temperature that makes it so."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects
from scipy.optimize import minimize_scalar
from torch import Tensor

from bundle.pyraseg.core import PyrasegError, Structures
from bundle.pyraseg.dicom import Geometry
from bundle.pyraseg.evaluation.surfaces import spacing_of
from bundle.pyraseg.transforms import UNKNOWN, geometry_of, read_temperature, soften, write_temperature

logger = logging.getLogger(__name__)

#: Temperatures that a fit may return.
RANGE = (0.05, 20.0)
#: What a probability of 0 counts as in a fit: its logarithm must be finite.
SMALLEST = 1e-12


def near_boundary(
    predicted: np.ndarray, true: np.ndarray, geometry: Geometry | None, margin: float
) -> tuple[np.ndarray, ...]:
    """Return the indices of the voxels that lie within `margin` of where a mask or the other begins.

    Away from there, everything is background or inside and certain: it would drown what calibration is about.

    Args:
        predicted: boolean mask, (W, H[, D]).
        true: the same. Where both are empty, no voxel is returned.
        geometry: of the volume; distances are along its axes (a tilt does not count).
        margin: in mm, or pixels without a patient position.

    Returns:
        One index array an axis, as `numpy.nonzero` does.
    """
    if not (predicted.any() or true.any()):
        return tuple(np.empty(0, int) for _ in range(true.ndim))
    spacing = spacing_of(geometry, true.ndim)
    reach = [int(np.ceil(margin / step)) for step in spacing]
    (box,) = find_objects((predicted | true).astype(np.uint8))
    box = tuple(slice(max(0, part.start - steps), part.stop + steps) for part, steps in zip(box, reach, strict=True))
    surface = np.zeros_like(true[box])
    for mask in (predicted[box], true[box]):
        surface |= mask ^ binary_erosion(mask, border_value=1)  # where the image ends, nothing begins
    if not surface.any():
        return tuple(np.empty(0, int) for _ in range(true.ndim))
    near = distance_transform_edt(~surface, sampling=spacing) <= margin
    return tuple(found + part.start for found, part in zip(np.nonzero(near), box, strict=True))


class Reliability:
    """How often voxels are of a class, by the probability that was given to it.

    Args:
        bins: of equal width, from 0 to 1.
    """

    def __init__(self, bins: int = 15) -> None:
        self.sums = np.zeros((3, bins))  # voxels, probability, voxels of the class

    def add(self, probabilities: np.ndarray, true: np.ndarray) -> None:
        """Count voxels: the probability of the class and whether they are of it, (N,) each."""
        bins = self.sums.shape[1]
        place = np.minimum((probabilities * bins).astype(int), bins - 1)
        for row, weights in zip(self.sums, (None, probabilities, true), strict=True):
            row += np.bincount(place, weights=weights, minlength=bins)

    @property
    def error(self) -> float:
        """Return the expected calibration error of the class (Naeini et al., AAAI 2015; one class against the rest).

        The mean over voxels of the distance between mean probability and frequency in their bin; NaN without voxels.
        """
        voxels, probability, true = self.sums
        return float(np.abs(probability - true).sum() / voxels.sum()) if voxels.any() else float("nan")

    def curve(self) -> list[dict[str, float]]:
        """Return voxels, mean probability and frequency of every bin that has any."""
        return [
            {"voxels": int(voxels), "probability": probability / voxels, "frequency": true / voxels}
            for voxels, probability, true in self.sums.T.tolist()
            if voxels
        ]


def fit_temperature(
    probabilities: np.ndarray,
    truth: np.ndarray,
    weights: np.ndarray | None = None,
    annotated: np.ndarray | None = None,
) -> float:
    """Return the temperature with the largest likelihood (Guo et al., ICML 2017).

    Args:
        probabilities: of voxels, (N, C), after the softmax.
        truth: class indices, (N,).
        weights: of the voxels, (N,); None counts each once.
        annotated: which classes the case of a voxel was annotated for, (N, C) bool; None for all. Where the truth is 0,
            it may be any of the others.
    """
    logarithms = np.log(np.maximum(probabilities, SMALLEST))
    rest = None if annotated is None else np.where(np.arange(len(logarithms[0])) == 0, True, ~annotated)

    def loss(logarithm_of_temperature: float) -> float:
        scaled = logarithms / np.exp(logarithm_of_temperature)
        normalizer = np.log(np.exp(scaled).sum(axis=1))
        of_truth = scaled[np.arange(len(truth)), truth]
        if rest is not None:
            of_truth = np.where(truth == 0, np.log((np.exp(scaled) * rest).sum(axis=1)), of_truth)
        return float(np.average(normalizer - of_truth, weights=weights))

    return float(np.exp(minimize_scalar(loss, bounds=np.log(RANGE), method="bounded").x))


class BoundaryCalibration:
    """Gather how well the probabilities around the boundaries are calibrated, as they are and with the temperature.

    Args:
        class_names: names of all classes, background first.
        margin: mm around the true and the predicted boundary of a class in which its voxels count; pixels without a
            patient position.
        model_file: weights that gave them; a temperature that was fitted to these is read beside them.
        regions: the classes of each region where these are predicted, see `core.Structures`; they take the place of the
            classes. They have no temperature.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        margin: float,
        model_file: str | Path | None = None,
        regions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.structures = Structures(class_names, regions)
        self.margin = margin
        self.model_file = model_file

    def start(self) -> None:
        """Forget all cases, and read the temperature: the first thing to call, when the weights are there."""
        weights = None if self.structures.overlapping else self.model_file
        self.temperature = None if weights is None else read_temperature(weights)
        versions = ["uncalibrated"] + ["calibrated"] * (self.temperature is not None)
        self.reliabilities = {v: [Reliability() for _ in self.structures.names[1:]] for v in versions}

    def add(
        self,
        probabilities: Tensor,
        prediction: Tensor,
        truth: Tensor,
        geometry: Geometry | None,
        annotated: Sequence[bool] | None = None,
    ) -> None:
        """Count the voxels of a case: probabilities (C, W, H[, D]), and labels (1, W, H[, D]) twice.

        Of a case that was annotated for some of the classes only, no voxel counts for the others.
        """
        for number, (region, true) in near_structures(
            self.structures, prediction, truth, geometry, margin=self.margin, annotated=annotated
        ).items():
            here = probabilities[(slice(None), *map(torch.from_numpy, region))].float()
            for version, reliabilities in self.reliabilities.items():
                own = None if version == "uncalibrated" else self.temperature
                of_class = here if own is None else soften(here, own, dim=0)
                shown = of_class[self.structures.channel(number)]
                reliabilities[number - 1].add(shown.numpy(force=True).astype(float), true)

    def summary(self) -> dict[str, Any]:
        """Return the expected calibration error of every class and the curve behind it."""
        return {
            "margin": self.margin,
            "temperature": self.temperature,
            **{
                version: {
                    name: {"error": of_class.error, "curve": of_class.curve()}
                    for name, of_class in zip(self.structures.names[1:], reliabilities, strict=True)
                    if of_class.sums.any()
                }
                for version, reliabilities in self.reliabilities.items()
            },
        }


def near_structures(
    structures: Structures,
    prediction: Tensor,
    truth: Tensor,
    geometry: Geometry | None,
    *,
    margin: float,
    annotated: Sequence[bool] | None,
) -> dict[int, tuple[tuple[np.ndarray, ...], np.ndarray]]:
    """Return, by structure that was annotated, the indices of the known voxels near its boundary, and which are of it.

    Args:
        structures: what the labels hold.
        prediction: labels, (1, W, H[, D]).
        truth: the same.
        geometry: of the volume.
        margin: see `near_boundary`.
        annotated: which of all classes were in this case; None for all.
    """
    predicted, true = np.asarray(prediction.cpu())[0], np.asarray(truth.cpu())[0]
    of_classes = np.ones(len(structures.class_names), bool) if annotated is None else np.asarray(annotated)
    found = {}
    for number in np.flatnonzero(structures.annotated(of_classes))[1:].tolist():
        found_there, there = (structures.mask(labels, number) & (true != UNKNOWN) for labels in (predicted, true))
        near = near_boundary(found_there, there, geometry, margin)
        known = true[near] != UNKNOWN
        near = tuple(axis[known] for axis in near)
        if len(near[0]):
            found[number] = near, there[near]
    return found


class TemperatureFit:
    """Handler that fits the temperature of a model to the cases of an evaluation, and writes it beside the weights.

    The likelihood is that of the voxels near any boundary, every case having the weight of its number of them. Of a
    case that was annotated for some classes only (`LoadLabeld` tells), these are the boundaries of those.

    Args:
        model_file: the weights that are evaluated.
        class_names: names of all classes, background first.
        margin: as for `BoundaryCalibration`.
        voxels: drawn at most from a case.
        seed: of the draw.
        regions: None; the probabilities of regions have no temperature.

    Raises:
        PyrasegError: there are regions.
    """

    def __init__(
        self,
        model_file: str | Path,
        *,
        class_names: Sequence[str],
        margin: float,
        voxels: int = 50_000,
        seed: int = 0,
        regions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        if regions is not None:
            raise PyrasegError(
                "A temperature is fitted to classes that exclude each other, and this config has `regions`. Their "
                "calibration is measured as it is, by `evaluating`."
            )
        self.structures = Structures(class_names)
        self.model_file = Path(model_file)
        self.class_names = list(class_names)
        self.margin = margin
        self.voxels = voxels
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        ProgressBar(desc="Calibrating", disable=None).attach(engine)
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.fit)

    def start(self, engine: Engine) -> None:
        self.samples: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self.random = np.random.default_rng(self.seed)

    def __call__(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            truth, geometry = output["truth"], geometry_of(batch["original"])
            told = batch.get("annotated")
            annotated = [True] * len(self.class_names) if told is None else told.tolist()
            found = near_structures(
                self.structures, output["pred"], truth, geometry, margin=self.margin, annotated=annotated
            )
            if not found:
                continue
            flat = [np.ravel_multi_index(region, truth.shape[1:]) for region, _ in found.values()]
            every = np.unique(np.concatenate(flat))
            drawn = self.random.choice(every, min(self.voxels, len(every)), replace=False)
            probabilities = output["probabilities"].flatten(1)[:, torch.from_numpy(drawn)].numpy(force=True)
            weights = np.full(len(drawn), len(every) / len(drawn))
            true = np.asarray(truth.cpu()).ravel()[drawn].astype(int)
            of_voxels = np.tile(annotated, (len(drawn), 1))
            self.samples.append((probabilities.T.astype(float), true, weights, of_voxels))

    def fit(self, engine: Engine) -> None:
        """Fit, write and tell.

        Raises:
            PyrasegError: no case has a boundary.
        """
        if not self.samples:
            raise PyrasegError("No validation case has foreground, so calibration is not possible.")
        probabilities, truth, weights, annotated = (np.concatenate(parts) for parts in zip(*self.samples, strict=True))
        temperature = fit_temperature(probabilities, truth, weights, None if annotated.all() else annotated)
        path = write_temperature(self.model_file, temperature, cases=len(self.samples), margin=self.margin)
        logger.info(
            "Temperature %.3f, fitted to the boundaries of %d cases, is in %s", temperature, len(self.samples), path
        )
