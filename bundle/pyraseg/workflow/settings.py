# SPDX-License-Identifier: Apache-2.0
"""Which settings of a config belong to the weights of its network."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monai.bundle import ConfigComponent, ConfigParser
from monai.utils.module import locate

from bundle.pyraseg.core import ModelSettings, Structures
from bundle.pyraseg.dicom import listed, read_sequences
from bundle.pyraseg.transforms import Percentiles, parse_window, windows_of
from bundle.pyraseg.workflow.running import running_parser

#: Keys of a config that are settings by themselves.
KNOBS = (
    *("class_names", "regions", "image_kind", "modality", "body_part", "plane", "pet_units"),
    *("sequences", "sequence_dropout"),
)
#: Of these, what may be one name or several.
SEVERAL = ("modality", "body_part", "plane")
#: Where the chain of transforms stands that an image goes through, in a config of training or of inference.
CHAINS = ("train#preprocessing#transforms", "preprocessing#transforms")
#: Transforms that leave what the network is shown as it is.
LOADING = ("LoadImaged", "LoadLabeld", "KeepOriginald", "CopyItemsd")
#: Arguments that change neither what is shown nor what comes out: where weights begin, what follows from other
#: settings, what happens in training alone.
ASIDE = ("keys", "allow_missing_keys", "pretrained", "dropout", "in_channels", "out_channels", "auxiliary")


def running_settings(may_differ: Sequence[str] = ()) -> ModelSettings:
    """Return the settings of the config that is being run: see `model_settings`."""
    return model_settings(running_parser(), may_differ=may_differ)


def model_settings(parser: ConfigParser, *, may_differ: Sequence[str] = ()) -> ModelSettings:
    """Return the settings of a config that belong to the weights of its network.

    They are read from what is run, not from knobs that may be used or not: the names of the classes, the kind of image,
    what images they are for (see `Purpose`), the names of the sequences and how often one was taken out, the transforms
    of the image between reading and the network with their arguments, the network with its own, and, where tiles of an
    image are shown, their size. Arguments that are left out have their defaults. Windows are told by center and width,
    presets too.

    Args:
        parser: of a merged config, of training or of inference.
        may_differ: see `ModelSettings`.

    Raises:
        PyrasegError: `regions` are none of the classes, see `core.Structures`.
    """
    values: dict[str, Any] = {}
    options: dict[str, str] = {}

    def add(name: str, place: str) -> None:
        plain = _plain(parser.get_parsed_content(place))
        if plain is None and parser[place] is not None:
            return
        values[name] = plain
        if option := _option(parser[place], place):
            options[name] = option

    for knob in KNOBS:
        if knob in parser:
            add(knob, knob)
    if parser.get("slice_size") is not None and values.get("image_kind") != "volume":
        add("slice_size", "slice_size")
    chain = next((place for place in CHAINS if place in parser), None)
    steps = [] if chain is None else list(_steps(parser, chain))
    values["preprocessing"] = [name for name, _ in steps]
    for name, place in [*steps, ("network", "network_def")]:
        if place not in parser:
            continue
        component = parser[place]
        if name == "network":
            values[name] = _name(component)
        values |= {f"{name}.{key}": _plain(value) for key, value in _defaults(component, parser).items()}
        for key in component:
            if key not in ASIDE and not re.fullmatch("_.*_", key):
                add(f"{name}.{key}", f"{place}#{key}")
        several = component.get("keys")
        if isinstance(several, list) and isinstance(values.get(f"{name}.mode"), list):
            values[f"{name}.mode"] = values[f"{name}.mode"][several.index("image")]
    if isinstance(values.get("regions"), dict):  # in their order, which is that of the channels
        Structures(values["class_names"], values["regions"])  # that they are regions of these classes
        values["regions"] = [[name, list(classes)] for name, classes in values["regions"].items()]
    values |= {name: listed(values[name]) for name in SEVERAL if values.get(name) is not None}
    if values.get("sequences") is not None:  # what they are called differs from site to site
        values["sequences"] = list(read_sequences(values["sequences"]))
    for name in [name for name in values if name.endswith(".windows")]:
        shown = {own: [_window(item) for item in items] for own, items in windows_of(values[name]).items()}
        values[name] = shown.get("", shown)
    return ModelSettings(values, options, tuple(may_differ))


def regions_of(parser: ConfigParser) -> dict[str, list[str]] | None:
    """Return the regions of a config, see `core.Structures`; None where it has none."""
    return parser.get_parsed_content("regions") if "regions" in parser else None


def _steps(parser: ConfigParser, chain: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the id of each transform that changes the image; a second one of a kind has a number."""
    seen: dict[str, int] = {}
    for number, step in enumerate(parser[chain]):
        place, name = f"{chain}#{number}", _name(step)
        off = "_disabled_" in step and parser.get_parsed_content(f"{place}#_disabled_")
        if off or name in LOADING or "image" not in step.get("keys", "image"):
            continue
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name} {seen[name]}", place


def _name(component: Mapping[str, Any]) -> str:
    return str(component["_target_"]).rpartition(".")[2]


def _defaults(component: dict[str, Any], parser: ConfigParser) -> dict[str, Any]:
    """Return the arguments that a component has unless others are given."""
    target = ConfigComponent(component, locator=parser.locator).resolve_module_name()
    found = locate(target) if isinstance(target, str) else target
    if not callable(found):
        return {}
    parameters = inspect.signature(found).parameters.values()
    return {
        item.name: item.default
        for item in parameters
        if item.default is not inspect.Parameter.empty and item.name not in ASIDE
    }


def _option(raw: Any, place: str) -> str | None:
    """Return the option that sets a value: the knob that it refers to, or its own place; a formula has none."""
    if not isinstance(raw, str) or raw[:1] not in "@$%":
        return place
    found = re.fullmatch(r"@(\w+(?:#\w+)*)", raw)
    return found and found[1]


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; None for one that JSON has not, such as a class."""
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return None


def _window(item: Any) -> Any:
    """Return a window by its numbers, as an item of a config."""
    window = parse_window(item)
    if isinstance(window, int):
        return f"header:{window}" if window else "header"
    if isinstance(window, Percentiles):
        return {"percentiles": list(window)}
    shown = {"center": window.center, "width": window.width}
    return shown if window.function == "LINEAR" else {**shown, "function": window.function}
