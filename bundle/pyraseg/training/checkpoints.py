# SPDX-License-Identifier: Apache-2.0
"""Files of weights that are whole or absent, and the one step that changes the bundle's model."""

import io
import logging
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.networks.utils import copy_model_state
from torch import Tensor, nn

from bundle.pyraseg.core import ModelSettings, PyrasegError, file_digest, process_rank, protect, release, replacing
from bundle.pyraseg.networks import require_finite, restore

logger = logging.getLogger(__name__)

#: Key of a state dict's metadata that holds the settings; no layer has such a name.
SETTINGS = "pyraseg settings"
#: What holds the folder of a run, from `Checkpoints.check` to `promote`.
WORK = "training"


def save_atomically(content: Any, path: str | Path) -> None:
    """Write `content` with `torch.save`; `path` holds the old content or the whole new one at every moment."""
    with replacing(path) as temporary:
        torch.save(content, temporary)


def save_model(weights: Mapping[str, Tensor], path: str | Path, *, settings: ModelSettings) -> None:
    """Write the weights of a network, with the settings that belong to them.

    The file is a plain state dict, as MONAI's tools and other programs read it. The settings are in its metadata, where
    PyTorch keeps the versions of layers, under `SETTINGS`.

    Args:
        weights: state dict.
        path: file that is written, or replaced, as a whole.
        settings: what the network was trained with.

    Raises:
        PyrasegError: weights are NaN or infinite; the file stays as it is.
    """
    require_finite(weights, f"What would become {path}")
    content = OrderedDict(weights)
    versions = dict(getattr(weights, "_metadata", {}))
    vars(content)["_metadata"] = OrderedDict({**versions, SETTINGS: dict(settings.values)})
    save_atomically(content, path)


def read_model(path: str | Path, *, remedy: str = "") -> tuple[Mapping[str, Tensor], Mapping[str, Any] | None]:
    """Return the state dict in a file of weights, and the settings that it was trained with; None where it has none.

    Nothing in the file is run.

    Args:
        path: of the file.
        remedy: what a user does to get it, for the message where there is none.

    Raises:
        PyrasegError: there is no file, it is no plain state dict, or it holds weights that are NaN or infinite.
    """
    path = Path(path)
    if not path.is_file():
        raise PyrasegError(f"There is no trained model at {path}. {remedy}")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is none makes torch raise nearly every type there is
        raise PyrasegError(f"{path} is not a file of weights. Give the model.pt that a training wrote.") from error
    if not isinstance(weights, Mapping) or not all(torch.is_tensor(value) for value in weights.values()):
        raise PyrasegError(f"{path} holds more than weights. Give `best.pt` or the model that a training leaves.")
    weights = restore(weights)
    require_finite(weights, path)
    return weights, getattr(weights, "_metadata", {}).get(SETTINGS)


def plain_file(path: Path) -> bytes:
    """Return the content of a file of weights as other programs read it, a plain state dict.

    A file that is stored small (see `networks.shrink`) is written anew, with the same values as numbers of 32 bits.
    """
    content = path.read_bytes()
    stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    weights = restore(stored)
    if weights is stored:
        return content
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    return buffer.getvalue()


def require_settings(path: str | Path, *, settings: ModelSettings, remedy: str) -> None:
    """Refuse weights that were trained with other settings than those of a config.

    Args:
        path: file of weights; unlike `load_model`, this leaves it to be written.
        settings: of the config.
        remedy: what a user does to get a model, for the message where there is none.

    Raises:
        PyrasegError: there is no file, or it was trained with other settings.
    """
    settings.require(read_model(path, remedy=remedy)[1], f"The model {path}")


def load_model(network: nn.Module, path: str | Path, *, settings: ModelSettings, remedy: str) -> nn.Module:
    """Load weights into a network and return the network.

    Args:
        network: the definition that the weights belong to.
        path: file that `save_model` wrote, or another plain state dict; it is read without running code.
        settings: of the config that the network is of; those of the training have to be the same.
        remedy: what a user does to get a model, for the message where there is none.

    Raises:
        PyrasegError: there is no file, it belongs to another network or other settings, or its weights are not finite.
    """
    weights, trained = read_model(path, remedy=remedy)
    protect([Path(path)])
    settings.require(trained, f"The model {path}")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).strip().splitlines()]
        reason = lines[1].rstrip(".") if lines[0].startswith("Error(s) in loading") and len(lines) > 1 else lines[0]
        raise PyrasegError(
            f"The model {path} does not fit the network of this config ({reason}). "
            "Use the config, with the encoder and the classes, that the model was trained with."
        ) from error
    return network


def start_from(path: str | Path | None, *, networks: Sequence[nn.Module], settings: ModelSettings) -> None:
    """Begin with the weights of a model, to fine-tune it; a classifier for other classes begins anew.

    What a classifier has learned is kept where the classes are the same, in the same order. Other settings that differ
    from those of the model's training are told: the training gets used to them.

    Args:
        path: file of weights, such as a bundle's `models/model.pt`; None leaves the networks as they are.
        networks: of one definition, such as the trained one and the average of its weights.
        settings: of the training that begins.

    Raises:
        PyrasegError: there is no file, it belongs to another network, or its weights are not finite.
    """
    if path is None:
        return
    weights, trained = read_model(path, remedy="Correct start_from.")
    protect([Path(path)])
    own = networks[0].state_dict()
    others = sorted(name for name in own.keys() ^ weights.keys() if not name.startswith("auxiliary."))
    reshaped = sorted(name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape)
    odd = others + [name for name in reshaped if ".classifier." not in name]
    if odd:
        raise PyrasegError(
            f"The model {path} is of another network: {', '.join(odd[:3])}{' and others' if odd[3:] else ''} "
            "differ. Use the encoder, the decoder, the windows and the context_slices of its training, or drop "
            "start_from."
        )
    differing = [] if trained is None else settings.differing(trained)
    anew = bool(reshaped) or bool({"class_names", "regions"} & set(differing))
    kept = {name: value for name, value in weights.items() if not (anew and ".classifier." in name)}
    for network in networks:
        copy_model_state(network, kept)
    logger.info("The training starts from %s%s", path, ", with a new classifier" if anew else "")
    if trained is None and not anew:
        logger.warning("%s does not say what its classes are: they are taken for these, in this order.", path)
    if differing:
        logger.warning("%s was trained with other settings:\n%s", path, settings.told(trained or {}, differing))


def promote(weights: str | Path, model: str | Path) -> None:
    """Make `weights` the bundle's model, in one rename, and keep the model that it replaces.

    The replaced model goes to `replaced/` beside `model`, under a name made of its content's hash: it stays selectable,
    and a folder listing shows one model only. Of several processes the first one does it. The folder of `weights` is
    free for another training then, whether that went well or not.

    Raises:
        PyrasegError: there are no weights at that path, or some are NaN or infinite.
    """
    if process_rank() > 0:
        return
    weights, model = Path(weights), Path(model)
    try:
        _promote(weights, model)
    finally:
        release(weights.parent, WORK)


def _promote(weights: Path, model: Path) -> None:
    if not weights.is_file():
        raise PyrasegError(f"There are no weights at {weights} to promote: train with validation first.")
    read_model(weights)
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
