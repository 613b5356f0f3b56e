# SPDX-License-Identifier: Apache-2.0
"""The settings that are proposed for a training: on slices, in 3-D, or of 2-D images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from monai.bundle import ConfigParser

from bundle.pyraseg.data import ClassCounts
from bundle.pyraseg.training import USABLE, fitting_batch
from bundle.pyraseg.workflow import components
from bundle.pyraseg_tools.fingerprint.length import (
    FEWEST_STEPS,
    FORWARD,
    propose_length,
    steady_batch,
    tiles_of,
    training_seconds,
)
from bundle.pyraseg_tools.fingerprint.measuring import CaseFingerprint
from bundle.pyraseg_tools.fingerprint.rules import (
    Setting,
    propose_background_fraction,
    propose_grid,
    propose_weights,
    propose_windows,
)
from bundle.pyraseg_tools.fingerprint.trial import Trial, fitting_voxels, memory_of, run_trials
from bundle.pyraseg_tools.fingerprint.volumes import (
    DEFAULT_VOXELS,
    LEAST_PATCHES,
    VolumeSizes,
    volume_patch,
    volume_rotation,
    volume_spacing,
)

MEASURED = (2, 6)  # batch sizes of slices
MEASURED_PATCHES = (2, 4)
TRIED_VOXELS = 32_000  # of a patch that is measured: small enough for any machine
SMALLEST_BATCH, LARGEST_BATCH = 2, 4  # of patches: an instance norm needs no more, and steps are worth more


class Budget(NamedTuple):
    """What a training may take: GB of memory and minutes, where they are named."""

    memory: float | None
    minutes: float | None


class Proposal(NamedTuple):
    """Settings by their keys, notes on what is not among them, and how many patches a training in 3-D sees."""

    settings: dict[str, Setting]
    notes: list[str]
    patches: float | None = None


class Study(NamedTuple):
    """What the rules know of a data set.

    Attributes:
        training: cases of the training part that can be used.
        validation: number of cases of the validation part.
        counts: pixels of the classes of the training part.
        method, max_ratio: of the class weights, see `class_weights`.
    """

    training: Sequence[CaseFingerprint]
    validation: int
    counts: ClassCounts
    method: str
    max_ratio: float


def propose_slices(parser: ConfigParser, study: Study, budget: Budget) -> Proposal:
    """Return settings for the knobs of a config that sees slices or 2-D images; it is changed to try them."""
    settings, notes = _of_images(parser, study)
    grid = propose_grid(study.training)
    if any(part["_target_"] == "RandSpatialCropd" for _, part in components(parser["train#augmentation"])):
        notes.append("no `slice_size`: this config sees patches, whose size is a choice between detail and context.")
        grid.pop("slice_size")
    settings |= grid | _background(study)
    _drop_unused(parser, settings, notes)
    _add_weights(parser, study, settings, notes)
    if budget == (None, None):
        notes.append("no `batch_size`: state the memory of the device that trains with `--memory GB`.")
        return Proposal(settings, [*notes, NO_LENGTH])
    _apply(parser, settings)
    trials = run_trials(parser, MEASURED, "slice_size")
    seconds = trials[-1].seconds
    memory, whose = _memory(parser, budget)
    fits = fitting_batch([trial.samples for trial in trials], [trial.peak for trial in trials], memory * 2**30)
    settings["batch_size"] = _batch(fits, seconds, budget.minutes, _peaks(trials, whose))
    if budget.minutes is None:
        return Proposal(settings, [*notes, NO_LENGTH])
    slices = float(np.median([len(case.counts) for case in study.training]))
    validation = study.validation * slices * trials[-1].step * FORWARD
    batch = settings["batch_size"].value
    return Proposal(settings | _length(seconds, budget.minutes, batch, validation), notes)


def propose_volumes(parser: ConfigParser, study: Study, budget: Budget, sizes: VolumeSizes) -> Proposal:
    """Return settings for the knobs of a config that sees volumes in 3-D; it is changed to try them."""
    settings, notes = _of_images(parser, study)
    settings |= _background(study)
    _drop_unused(parser, settings, notes)
    _add_weights(parser, study, settings, notes)
    settings |= _grid(sizes, DEFAULT_VOXELS)
    if budget == (None, None):
        notes.append("the patch is what most machines can hold: state `--memory GB` and `--minutes N` to measure.")
        return Proposal(settings, [*notes, NO_LENGTH])
    tried, _ = volume_patch(sizes, settings["spacing"].value, TRIED_VOXELS)
    _apply(parser, settings | {"patch_size": tried})
    trials = run_trials(parser, MEASURED_PATCHES, "patch_size")
    memory, whose = _memory(parser, budget)
    room = fitting_voxels(trials, memory * 2**30)
    voxels, a_voxel = room // SMALLEST_BATCH, trials[-1].seconds / trials[-1].pixels
    if budget.minutes is not None:
        voxels = min(voxels, int(training_seconds(budget.minutes) / a_voxel / LEAST_PATCHES))
    settings |= _grid(sizes, max(voxels, 1))
    patch = settings["patch_size"].value
    seconds = float(a_voxel * np.prod(patch))
    patches = training_seconds(budget.minutes) / seconds if budget.minutes is not None else None
    fits = LARGEST_BATCH if LARGEST_BATCH * np.prod(patch) <= room else SMALLEST_BATCH
    settings["batch_size"] = _batch(fits, seconds, budget.minutes, _peaks(trials, whose))
    if budget.minutes is None or patches is None or patches < SMALLEST_BATCH:
        return Proposal(settings, [*notes, NO_LENGTH], patches)
    shape = np.array(sizes.extent) / settings["spacing"].value
    tiles = tiles_of(shape, patch, parser.get_parsed_content("overlap"))
    validation = study.validation * tiles * trials[-1].step / trials[-1].pixels * np.prod(patch) * FORWARD
    batch = settings["batch_size"].value
    return Proposal(settings | _length(seconds, budget.minutes, batch, validation), notes, patches)


NO_LENGTH = "no `epochs`: state how long the training may take with `--minutes N`."


def _of_images(parser: ConfigParser, study: Study) -> tuple[dict[str, Setting], list[str]]:
    settings: dict[str, Setting] = {}
    notes = []
    modalities = sorted({case.modality for case in study.training})
    if all(modalities) and parser["modality"] not in (None, modalities):
        settings["modality"] = Setting(modalities, "that of the training images")
    if parser["windows"] is not None:
        settings["windows"] = propose_windows(study.training)
    if parser.get("sequences") is not None:
        notes.append("only the first of the `sequences` was measured: choose the `windows` of the others yourself.")
    return settings, notes


def _background(study: Study) -> dict[str, Setting]:
    several = any(len(case.counts) > 1 for case in study.training)
    return {"background_fraction": propose_background_fraction(study.training)} if several else {}


def _add_weights(parser: ConfigParser, study: Study, settings: dict[str, Setting], notes: list[str]) -> None:
    if parser.get("regions"):
        notes.append("no `loss#weight`: classes were counted, and this config is trained on `regions` that overlap.")
        return
    settings["loss#weight"] = propose_weights(study.counts, method=study.method, max_ratio=study.max_ratio)


def _grid(sizes: VolumeSizes, voxels: int) -> dict[str, Setting]:
    spacing = volume_spacing(sizes, voxels)
    patch, channels = volume_patch(sizes, spacing.value, voxels)
    rotation = volume_rotation(spacing.value)
    return {"spacing": spacing, "patch_size": patch, "channels": channels, "rotation": rotation}


def _drop_unused(parser: ConfigParser, settings: dict[str, Setting], notes: list[str]) -> None:
    for key in [key for key in settings if parser.get(key) is None]:
        notes.append(f"no `{key}`: this config has no use for it.")
        settings.pop(key)


def _apply(parser: ConfigParser, settings: dict[str, Setting]) -> None:
    for key, setting in settings.items():
        parser[key] = setting.value


def _memory(parser: ConfigParser, budget: Budget) -> tuple[float, str]:
    device = str(parser.get_parsed_content("device"))
    if budget.memory is None:
        found = memory_of(device)
        return found, f"{USABLE:.0%} of the {found:.1f} GB of this machine's {device} are planned with"
    return budget.memory, f"{USABLE:.0%} of {budget.memory:g} GB are planned with"


def _peaks(trials: Sequence[Trial], whose: str) -> str:
    measured = " and ".join(f"{trial.peak / 2**30:.2f} GB for {trial.samples}" for trial in trials)
    return f"steps took {measured} of {trials[0].pixels:,} pixels; {whose}"


def _batch(fits: int, seconds: float, minutes: float | None, measured: str) -> Setting:
    batch = steady_batch(fits, seconds, minutes)
    fewer = f"; {fits} would leave fewer than {FEWEST_STEPS} steps" if batch < fits else ""
    return Setting(batch, f"{measured}{fewer}")


def _length(seconds: float, minutes: float, batch_size: int, validation: float) -> dict[str, Any]:
    return propose_length(seconds, minutes=minutes, batch_size=batch_size, validation_seconds=float(validation))
