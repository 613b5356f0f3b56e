# SPDX-License-Identifier: Apache-2.0
"""Train a served model on new labels, and keep the better one."""

import copy
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from monai.data import Dataset
from monai.engines import Evaluator, Trainer
from torch import nn

from bundle.pyraseg.core import ModelSettings, PyrasegError, write_json
from bundle.pyraseg.data import SliceDataset
from bundle.pyraseg.training import add_guard, load_model, promote

logger = logging.getLogger(__name__)


def retrain(
    *,
    trainer: Trainer,
    evaluator: Evaluator,
    network: nn.Module,
    weights: str,
    model: str,
    settings: ModelSettings,
    data: tuple[SliceDataset, Dataset],
    seed: int,
) -> bool:
    """Train, and make the new weights the model if they score better on the validation set than the model does.

    The model that they replace stays in `replaced/` beside it. Return whether it was replaced.

    Args:
        trainer: trains; it loads the weights to start from, or starts from those that the network has.
        evaluator: validates, on the same cases before and during the training.
        network: that both work on.
        weights: file that the best validated epoch leaves, if it is better than any before.
        model: file of the model.
        settings: of the training; those of the model have to be the same.
        data: datasets of the training and of the validation, of which the new weights get their guard.
        seed: of what is drawn of them.
    """
    fresh = copy.deepcopy(network.state_dict())
    load_model(network, model, settings=settings, remedy="Put the bundle into the server anew.")
    evaluator.run()
    network.load_state_dict(fresh)
    before = evaluator.state.best_metric
    evaluator.state.best_metric_epoch = 0  # no epoch of the training to come; only a better one counts from here on
    logger.info("The model scores %.4f on the validation set", before)
    trainer.run()
    better = Path(weights).is_file()
    if better:
        training, validation = data
        add_guard(weights, training=training, validation=validation, seed=seed)
        promote(weights, model)
        logger.info(
            "The retrained model scores %.4f, better than %.4f: it is served now", evaluator.state.best_metric, before
        )
    else:
        logger.info("No epoch scored better than %.4f: the model stays as it is", before)
    return better


def fixed_validation(path: Path, patients: Mapping[str, str], share: float) -> set[str]:
    """Return which labeled images the models of a server are compared on: the same ones at every training.

    The first training chooses them, patient by patient, by a hash, and writes them to `path`; labels that come later
    are trained on. Whoever wants another set deletes the file, and compares anew.

    Args:
        path: JSON list of names of images.
        patients: the patient of each image that has a label.
        share: of the images to validate on, at the first training.

    Raises:
        PyrasegError: there are too few, or one of the set has lost its label.
    """
    if path.is_file():
        chosen = set(json.loads(path.read_text(encoding="utf-8")))
        lost = chosen - set(patients)
        if lost:
            raise PyrasegError(
                f"{len(lost)} of {len(chosen)} images of the validation set in {path} have no label any more, so "
                "models cannot be compared on it. Label them, or delete the file to choose a new set."
            )
    else:
        chosen = set()
        for patient in sorted(set(patients.values()), key=_hash):
            if len(chosen) < max(1, round(share * len(patients))):
                chosen |= {image for image in patients if patients[image] == patient}
    if not chosen or not set(patients.values()) - {patients[image] for image in chosen}:
        raise PyrasegError(
            f"{len(patients)} labeled images of {len(set(patients.values()))} patients are too few to train: one "
            "patient at least to train on, one to validate on. Submit more labels."
        )
    if not path.is_file():
        write_json(path, sorted(chosen))
    return chosen


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
