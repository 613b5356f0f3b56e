# SPDX-License-Identifier: Apache-2.0
"""Files of weights that are whole or absent, and the one step that changes the bundle's model."""

import logging
import pickle
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.networks.utils import copy_model_state
from torch import nn

from bundle.pyraseg.core import PyrasegError, file_digest, process_rank, protect, release, replacing

logger = logging.getLogger(__name__)

#: What holds the folder of a run, from `Checkpoints.check` to `promote`.
WORK = "training"


def save_atomically(content: Any, path: str | Path) -> None:
    """Write `content` with `torch.save`; `path` holds the old content or the whole new one at every moment."""
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load_model(network: nn.Module, path: str | Path, *, remedy: str) -> nn.Module:
    """Load a plain state dict into a network and return the network.

    Args:
        network: the definition that the weights belong to.
        path: file written by `torch.save`; it is read without running code.
        remedy: what a user does to get a model, for the message where there is none.

    Raises:
        PyrasegError: there is no file, or it belongs to another network.
    """
    path = Path(path)
    if not path.is_file():
        raise PyrasegError(f"There is no trained model at {path}. {remedy}")
    protect([path])
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:  # its text advises to run the code in the file
        raise PyrasegError(f"{path} is not a file of weights. Give the model.pt that a training wrote.") from error
    except Exception as error:  # a file that is no state dict makes torch raise nearly every type there is
        lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
        reason = lines[1].rstrip(".") if lines[0].startswith("Error(s) in loading") and len(lines) > 1 else lines[0]
        raise PyrasegError(
            f"The model {path} does not fit the network of this config ({reason}). "
            "Use the config, with the encoder and the classes, that the model was trained with."
        ) from error
    return network


def start_from(path: str | Path | None, *, networks: Sequence[nn.Module]) -> None:
    """Begin with the weights of a model, to fine-tune it; a classifier for other classes begins anew.

    Args:
        path: plain state dict, such as a bundle's `models/model.pt`; None leaves the networks as they are.
        networks: of one definition, such as the trained one and the average of its weights.

    Raises:
        PyrasegError: there is no file, or it belongs to another network.
    """
    if path is None:
        return
    path = Path(path)
    if not path.is_file():
        raise PyrasegError(f"There is no model at {path} to start from. Correct start_from.")
    protect([path])
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        own = networks[0].state_dict()
        others = sorted(name for name in own.keys() ^ weights.keys() if not name.startswith("auxiliary."))
        reshaped = sorted(name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape)
    except Exception as error:  # a file that is no state dict makes torch raise nearly every type there is
        raise PyrasegError(f"{path} is no model to start from ({type(error).__name__}). Correct start_from.") from error
    anew = [name for name in reshaped if ".classifier." in name]
    odd = others + [name for name in reshaped if name not in anew]
    if odd:
        raise PyrasegError(
            f"The model {path} is of another network: {', '.join(odd[:3])}{' and others' if odd[3:] else ''} "
            "differ. Use the encoder, the decoder, the windows and the context_slices of its training, or drop "
            "start_from."
        )
    for network in networks:
        copy_model_state(network, weights)
    logger.info("The training starts from %s%s", path, ", with a new classifier" if anew else "")


def promote(weights: str | Path, model: str | Path) -> None:
    """Make `weights` the bundle's model, in one rename, and keep the model that it replaces.

    The replaced model goes to `replaced/` beside `model`, under a name made of its content's hash: it stays selectable,
    and a folder listing shows one model only. Of several processes the first one does it. The folder of `weights` is
    free for another training then.

    Raises:
        PyrasegError: there are no weights at that path.
    """
    if process_rank() > 0:
        return
    weights, model = Path(weights), Path(model)
    if not weights.is_file():
        raise PyrasegError(f"There are no weights at {weights} to promote: train with validation first.")
    if model.is_file():
        digest = file_digest(model)
        kept = model.parent / "replaced" / f"{model.stem}-{digest[:12]}{model.suffix}"
        if not kept.is_file():
            with replacing(kept) as temporary:
                shutil.copyfile(model, temporary)
            logger.info("The previous model is kept as %s", kept)
    with replacing(model, keeps_old=zipfile.is_zipfile(model)) as temporary:  # weights, which `replaced/` now holds
        shutil.copyfile(weights, temporary)
    logger.info("The model of the bundle is now %s", model)
    release(weights.parent, WORK)
