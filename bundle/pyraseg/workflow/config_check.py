# SPDX-License-Identifier: Apache-2.0
"""Stop a run whose options are mistyped."""

import inspect
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

from monai.bundle import ConfigComponent, ConfigParser
from monai.bundle.properties import InferProperties, TrainProperties
from monai.utils.module import locate

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.workflow.callers import calling

#: Ids that MONAI reads or adds itself: run ids, settings of its experiment tracking, properties of a workflow.
RUN_IDS = {"initialize", "run", "finalize", "training", "evaluating", "calibrating", "inferring"}
TRACKING = {"tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0"}
PROPERTIES = {item["id"].replace("::", "#") for item in (*TrainProperties.values(), *InferProperties.values())}
#: Knobs whose only use MONAI Label and MONAI FL may replace by a value of their own.
REPLACED = {"epochs": "train#trainer#max_epochs", "cases": "train#dataset#data"}
MONAI_IDS = RUN_IDS | TRACKING | PROPERTIES | {"imports", "displayable_configs", "_meta_"}


def check_config() -> None:
    """Refuse a config with a key that nothing uses, which is what MONAI makes of a mistyped override.

    It stands first in the run list and reads the merged config from the parser that builds it. Checked are the keys at
    the top level and in its sections (each is referred to somewhere, or one that MONAI reads; an overlay takes a knob
    of its base out of use by setting it to null) and the arguments of every component (each is one that it takes).

    Raises:
        PyrasegError: a key is not used (the message names the nearest one that is), or a switch is put off by a text.
    """
    parser = calling(ConfigParser)
    if parser is None:
        raise RuntimeError(
            "check_config finds its config through the parser that calls it: list it in a config's `run`."
        )
    config = parser.get()
    for key, value in config.items():
        if isinstance(value, str) and value.lower() == "false":
            raise PyrasegError(
                f"The option {key!r} was given as the text {value!r}, which counts as true. The command line takes "
                f"Python's values: --{key} False. Nothing was run."
            )
    used = MONAI_IDS | set(references(config))
    used |= {knob for knob, use in REPLACED.items() if use in parser and not isinstance(parser[use], str)}
    is_used = {place: any(_overlap(place, other) for other in used) for place in sections(config)}
    for place, fine in is_used.items():
        if not fine:
            raise PyrasegError(_unknown(f"the option {place!r}", place, {other for other in is_used if is_used[other]}))
    for place, component in components(config):
        takes = arguments(component, parser)
        for key in component:
            if takes is not None and key not in takes and not re.fullmatch("_.*_", key):
                raise PyrasegError(_unknown(f"{place}: {component['_target_']} has no argument {key!r}", key, takes))


def _unknown(what: str, key: str, known: Iterable[str]) -> str:
    nearest = get_close_matches(key, sorted(known), n=1, cutoff=0.3)
    hint = f" The nearest name is {nearest[0]!r}." if nearest else ""
    return f"Nothing in the config uses what was given: {what}.{hint} Nothing was run."


def references(config: Any) -> Iterator[str]:
    """Yield the ids that the values of a config refer to, as `@id` or `%id`, with `#` between their parts."""
    if isinstance(config, str):
        if config.startswith(("@", "$", "%")):
            yield from (found.replace("::", "#") for found in re.findall(r"[@%](\w+(?:(?:#|::)\w+)*)", config))
    elif isinstance(config, dict | list):
        for value in config.values() if isinstance(config, dict) else config:
            yield from references(value)


def sections(config: dict[str, Any], place: str = "") -> Iterator[str]:
    """Yield the id of every key that has a value and is neither an argument of a component nor in a list."""
    for key, value in config.items():
        here = f"{place}#{key}" if place else key
        if value is not None:
            yield here
        if isinstance(value, dict) and not ConfigComponent.is_instantiable(value):
            yield from sections(value, here)


def _overlap(one: str, other: str) -> bool:
    """Return whether two ids are the same or one is a part of the other."""
    return f"{one}#".startswith(f"{other}#") or f"{other}#".startswith(f"{one}#")


def components(config: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every component of a config with its id."""
    if isinstance(config, dict):
        if ConfigComponent.is_instantiable(config):
            yield place, config
        for key, value in config.items():
            yield from components(value, f"{place}#{key}" if place else key)
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from components(value, f"{place}#{index}")


def arguments(component: dict[str, Any], parser: ConfigParser) -> set[str] | None:
    """Return the names of a component's arguments, or None where it takes any or cannot be told."""
    target = ConfigComponent(component, locator=parser.locator).resolve_module_name()
    found = locate(target) if isinstance(target, str) else target
    if not callable(found):
        return None
    parameters = inspect.signature(found).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters}
