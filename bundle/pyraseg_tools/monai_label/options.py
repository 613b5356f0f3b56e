# SPDX-License-Identifier: Apache-2.0
"""What a client may ask of a task, in place of values that MONAI Label would fail on or take another one for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import PyrasegError

#: Options of MONAI Label's trainings that name what is run: a part of the config, and a file that is read as one.
CODE = ("run_id", "tracking", "tracking_uri", "tracking_experiment_name")


def models(bundle: str) -> list[str]:
    """Return the models of a bundle, the served one first: `model.pt`, and those that a retraining replaced."""
    folder = Path(bundle) / "models"
    replaced = sorted((folder / "replaced").glob("*.pt"), key=lambda path: path.stat().st_mtime, reverse=True)
    return ["model.pt", *(path.relative_to(folder).as_posix() for path in replaced)]


def check_options(options: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    """Refuse a request with a value of another kind than a task's own, or for a model that is not there.

    Args:
        options: of a task, by name: its default, or a list of what there is to choose from.
        request: what a client asks. Of a choice it may send the list as it has got it.

    Raises:
        PyrasegError: the request does not fit.
    """
    for name in sorted(options.keys() & request.keys()):
        own, asked = options[name], request[name]
        if isinstance(own, list):
            chosen = asked[0] if isinstance(asked, list) and asked else asked
            if not isinstance(chosen, str) or (name == "model_filename" and chosen not in own):
                raise PyrasegError(f"{name} is {chosen!r}. Give one of {', '.join(map(repr, own))}.")
        elif own is not None and type(asked) not in ((int, float) if isinstance(own, float) else (type(own),)):
            raise PyrasegError(f"{name} is {asked!r}. Give a value such as {own!r}.")
