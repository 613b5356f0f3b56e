# SPDX-License-Identifier: Apache-2.0
"""Say of each input whether it is unlike the images that the model was trained on."""

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from bundle.pyraseg.runtime import Guard, Watch, open_session, require_unlike, tell_without_guard

#: Key of a state dict's metadata that holds the text of a guard; no layer has such a name.
GUARD = "pyraseg guard"
#: Name of the same text among the properties of an exported model.
PROPERTY = "guard"


def read_guard(path: str | Path) -> Guard | None:
    """Return what weights, or a network that was exported from them, say of the images of their training.

    Args:
        path: what `training.save_model` or `pyraseg export` wrote, or another file of weights.

    Returns:
        None: they say nothing, as those of older versions and of others, or they are not there (a compiled engine runs
            without them).
    """
    if not Path(path).is_file():
        return None
    if Path(path).suffix == ".onnx":
        session = open_session(path, threads=1, remedy="Write it first: pyraseg export.")
        text = session.get_modelmeta().custom_metadata_map.get(PROPERTY)
    else:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        text = getattr(weights, "_metadata", {}).get(GUARD)
    return None if text is None else Guard.read(text, path)


class ImageGuard:
    """Judge images before the network sees them, by the guard of its weights.

    Args:
        model_file: weights, or an exported network; read when the first image is there.
        unlike: what is done about an image that is unlike those of the training: "warn" (a line in the log), "refuse"
            (it fails, and the others go on) or "ignore" (nobody looks).

    Raises:
        PyrasegError: `unlike` is none of these.
    """

    def __init__(self, model_file: str | Path, *, unlike: str) -> None:
        self.model_file = model_file
        self.unlike = require_unlike(unlike)

    @cached_property
    def guard(self) -> Guard | None:
        """Return the guard of the weights; where they have none, a line says so."""
        found = read_guard(self.model_file)
        if found is None:
            tell_without_guard(self.model_file)
        return found

    def judge(self, name: str, image: Tensor) -> float | None:
        """Return how far an image is from those of the training, see `runtime.Guard.unlike`; None where nobody knows.

        Args:
            name: of the image, for messages.
            image: as the network is shown it, (C, W, H[, D]).

        Raises:
            PyrasegError: it is unlike them, and such images are refused.
        """
        if self.unlike == "ignore":
            return None
        watch = Watch(self.guard, self.unlike, name=name)
        return watch.look(image.as_subclass(Tensor).numpy(force=True))
