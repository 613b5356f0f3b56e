# SPDX-License-Identifier: Apache-2.0
"""What a client may ask of a label server: fields of declared kinds, of which a request is made anew."""

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from bundle.pyraseg.core import PyrasegError

#: Takes what a client sent for a field and returns what goes on in its place, or raises `Unfit`.
Field = Callable[[Any], Any]
#: What becomes of a field that clients send and nothing here needs.
LEFT_OUT = object()
#: What a client may call a new image: no folder, and no character that MONAI's configs or a shell read as their own.
NAME = re.compile(r"\w[\w .,()+=:-]{0,199}")
#: Options of MONAI Label's trainings that name what is run: a part of the config, and a file that is read as one.
CODE = ("run_id", "tracking", "tracking_uri", "tracking_experiment_name")
#: Files that a client may have a result as.
RESULTS = (".nrrd", ".seg.nrrd", ".nii.gz", ".nii", ".mha", ".png")
TAGS = ("original", "final")
#: What the extension of 3D Slicer calls its user until somebody sets a name in its settings.
UNSET = "user-xyz"
#: Types of models that work on what a person clicked.
INTERACTIVE = ("deepedit", "deepgrow")
#: Points that a client may send for one label.
CLICKS = 1000
#: More than any task here has use for.
MANY = 10**6


class Unfit(ValueError):
    """Say what to give in place of a value."""


def rebuilt(fields: Mapping[str, Field], asked: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return a request made of what a client asks: declared fields with declared values, and nothing else.

    Args:
        fields: what is taken, by name.
        asked: what the client sent.
        what: it asks, as the beginning of a message.

    Raises:
        PyrasegError: a field is unknown, or its value is not of its kind.
    """
    unknown = [name for name in asked if name not in fields]
    if unknown:
        known = f"It takes {', '.join(fields)}" if fields else "It takes none"
        raise PyrasegError(f"{what} takes no field {short(unknown[0])}. {known}.")
    request = {}
    for name, value in asked.items():
        try:
            request[name] = fields[name](value)
        except Unfit as error:
            raise PyrasegError(f"{name} is {short(value)}. Give {error}.") from error
    return {name: value for name, value in request.items() if value is not LEFT_OUT}


def short(value: object) -> str:
    """Return what a client sent as a message shows it."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = 60
    return shortened.repr(value)


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit("true or false")
    return value


def flag_text(value: Any) -> bool:
    """Take a flag as the query of an address holds it."""
    return choice({"true": True, "false": False})(value)


def whole(low: int, high: int = MANY) -> Field:
    """Take a whole number in a range, both ends included."""

    def take(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Unfit(f"a whole number from {low} to {high}")
        return value

    return take


def number(low: float, high: float) -> Field:
    """Take a number in a range, both ends included."""

    def take(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:  # NaN is in none
            raise Unfit(f"a number from {low:g} to {high:g}")
        return value

    return take


def choice(values: Iterable[Any] | Mapping[str, Any]) -> Field:
    """Take one of some values, or the list of all of them, which some clients send back as they got it.

    Args:
        values: what there is, or what each text stands for.
    """
    meant = values if isinstance(values, Mapping) else None
    known = list(values)

    def take(value: Any) -> Any:
        if isinstance(value, list) and len(value) == len(known) and all(map(_same, value, known)):
            return list(known)
        for one in known:
            if _same(value, one):
                return one if meant is None else meant[one]
        raise Unfit(f"one of {', '.join(map(repr, known))}" if known else "nothing: there is no choice")

    return take


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other  # True is no 1


def left_out(value: Any) -> object:
    """Take what clients send of themselves, and leave it out."""
    if not (value is None or isinstance(value, str | bool)):
        raise Unfit("a text")
    return LEFT_OUT


def client(value: Any) -> object:
    """Take the user name that a client sends with each request; one that nobody has set is left out."""
    return left_out(value) if value in (None, True, False, "", UNSET) else text(value)


def text(value: Any) -> str:
    """Take a line of text, which is looked up or shown, and never becomes a path or a value of a config."""
    if not isinstance(value, str) or not 0 < len(value) <= 200 or not value.isprintable():
        raise Unfit("a text of one line and at most 200 characters")
    return value


def new_name(value: Any) -> str:
    """Take the name of something that a client adds."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise Unfit("a name of letters, digits, spaces and _ . , ( ) + = : - that begins with a letter or a digit")
    return value


def gpus(value: Any) -> str:
    """Take numbers of graphics cards, as MONAI Label writes them."""
    count = torch.cuda.device_count()
    numbers = value.split(",") if isinstance(value, str) else []
    if value != "all" and not (numbers and all(part in map(str, range(count)) for part in numbers)):
        raise Unfit(f"'all', or numbers below {count} with commas between them" if count else "'all'")
    return value


def points(value: Any) -> list[list[int | float]]:
    """Take voxels that a person clicked; the model looks whether they are inside of the image."""
    if not isinstance(value, list) or len(value) > CLICKS or not all(_is_voxel(point) for point in value):
        raise Unfit(f"a list of at most {CLICKS} voxels such as [[12, 40, 7]], each of two or three numbers from 0")
    return [list(point) for point in value]


def _is_voxel(point: object) -> bool:
    return (
        isinstance(point, list)
        and len(point) in (2, 3)
        and all(type(n) in (int, float) and 0 <= n < MANY for n in point)  # NaN and infinity are in no range
    )


def no_points(value: Any) -> object:
    """Take what 3D Slicer sends of a label that only another model has: no points."""
    if value != []:
        raise Unfit("an empty list: the label is of another model")
    return LEFT_OUT


def segments(value: Any) -> list[dict[str, Any]]:
    """Take the names of the segments of a label and the value of each."""
    entry = {"name": text, "idx": _or_none(whole(0, 65535)), "color": _anything}
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise Unfit('a list such as [{"name": "liver", "idx": 1}]')
    return [rebuilt(entry, one, "A segment of label_info") for one in value]


def _anything(_: Any) -> object:
    return LEFT_OUT


def _or_none(field: Field) -> Field:
    return lambda value: None if value is None else field(value)


def of_options(options: Mapping[str, Any]) -> dict[str, Field]:
    """Return the fields that a task declares by its options: a default value each, or a list to choose from."""
    kinds: dict[type, Field] = {
        bool: flag,
        int: whole(-MANY),
        float: number(-MANY, MANY),
        type(None): _or_none(number(-MANY, MANY)),
    }
    return {
        name: choice(own) if isinstance(own, list) else kinds.get(type(own), choice([own]))
        for name, own in options.items()
    }


def _device(options: Mapping[str, Any]) -> Field:
    """Take a name that the task or PyTorch has for a device of this machine."""
    own = choice(options.get("device", []))
    known = choice(["cpu", "cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])

    def take(value: Any) -> Any:
        try:
            return own(value)
        except Unfit:
            return known(value)

    return take


def inference_fields(
    options: Mapping[str, Any], *, kind: str = "", labels: Iterable[str] = (), others: Iterable[str] = ()
) -> dict[str, Field]:
    """Return what a client may ask of an inference.

    Args:
        options: what the task declares.
        kind: of the model, as MONAI Label calls it.
        labels: of the model.
        others: labels of other models of the server.
    """
    clicks: dict[str, Field] = {}
    if kind in INTERACTIVE:
        clicks = {
            **dict.fromkeys(others, no_points),
            **dict.fromkeys(labels, points),
            "label": _or_none(choice(labels)),
            "foreground": points,
            "background": points,
            "slice": _or_none(whole(0)),
            "roi": _roi,
            "reset_state": flag,
        }
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    return {
        **of_options(options),
        **clicks,
        "device": _device(options),
        "result_extension": choice(RESULTS),
        "result_dtype": choice(("uint8", "uint16", "int16", "int32", "float32")),
        "result_compress": flag,
        "save_label": flag,
        "label_tag": choice(TAGS),
        "logging": choice((*levels, *map(str.lower, levels))),
        "restore_label_idx": left_out,  # of OHIF
        "client_id": left_out,
    }


def _roi(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 6:
        raise Unfit("six numbers")
    return [number(-MANY, MANY)(part) for part in value]


def batch_fields(options: Mapping[str, Any], **model: Any) -> dict[str, Field]:
    """Return what a client may ask of an inference of many images; see `inference_fields`."""
    return {
        **inference_fields(options, **model),
        "multi_gpu": flag,
        "gpus": gpus,
        "max_workers": whole(0, 64),
        "max_batch_size": whole(0),
    }


def training_fields(options: Mapping[str, Any]) -> dict[str, Field]:
    """Return what a client may ask of a training that declares these options."""
    return {
        **of_options({name: value for name, value in options.items() if name not in CODE}),
        "device": _device(options),
        "max_epochs": whole(1),
        "val_split": number(-1, 1),
        "multi_gpu": flag,
        "gpus": gpus,
        "client_id": left_out,
    }


def scoring_fields() -> dict[str, Field]:
    """Return what a client may ask of a scoring."""
    return {
        "device": _device({}),
        "simulation_size": whole(1, 1000),
        "max_samples": whole(0),
        "max_workers": whole(0, 64),
        "multi_gpu": flag,
        "gpus": gpus,
        "client_id": left_out,
    }


def models(bundle: str) -> list[str]:
    """Return the models of a bundle, the served one first: `model.pt`, and those that a retraining replaced."""
    folder = Path(bundle) / "models"
    replaced = sorted((folder / "replaced").glob("*.pt"), key=lambda path: path.stat().st_mtime, reverse=True)
    return ["model.pt", *(path.relative_to(folder).as_posix() for path in replaced)]
