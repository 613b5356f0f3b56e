# SPDX-License-Identifier: Apache-2.0
"""Configs: read and merged, overridden by options of the command line, walked through, and written.

A program takes configs and options as `python -m monai.bundle run` does, `--key value` or `--section#key value`:

    given, options = commands.split_options(parser, argv)
    config = read_config(given.configs, options)
    cases = config.get_parsed_content("cases")

A mistyped option is refused with the nearest name, see `override`.
"""

import inspect
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigComponent, ConfigParser
from monai.bundle.properties import InferProperties, TrainProperties
from monai.utils.module import locate

from bundle.pyraseg.core import PyrasegError, nearest_hint, protect
from bundle.pyraseg.workflow.knobs import PATHS, wrong_arguments, wrong_values

#: Ids that MONAI reads or adds itself: run ids, settings of its experiment tracking, properties of a workflow.
RUN_IDS = {"initialize", "run", "finalize", "training", "evaluating", "calibrating", "guarding", "inferring"}
TRACKING = {"tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0"}
PROPERTIES = {item["id"].replace("::", "#") for item in (*TrainProperties.values(), *InferProperties.values())}
#: Knobs whose only use may be replaced by a value: by MONAI Label, MONAI FL, `pyraseg segment`, stages of their own, a
#: network that needs no number of channels, or batches that no teacher sees.
REPLACED = {
    "epochs": "train#trainer#max_epochs", "cases": "train#dataset#data", "dataset_dir": "dataset#data",
    "phase": "dataset#data", "sequence_dropout": "dataset#data",
    "learning_rate": "plan#stages", "encoder_learning_rate": "plan#stages", "image_channels": "network_def",
    "teacher": "train#prepare_batch",
}  # fmt: skip
#: Knobs of a task for what is not part of every run: its kind, see `require_kind`, and its evaluation.
OF_TASKS = {"image_kind", "jaccard_threshold", "thin_classes"}
#: For each kind of image, the transforms that its chain must have, and those that it cannot have.
IMAGE_KINDS = {
    "volume": ((), ("DropSliceAxisd", "ResizePhotographd")),
    "projection": (("DropSliceAxisd",), ("OrientSlicesd", "ResampleSlicesd", "StackContextSlicesd")),
    "photograph": (("DropSliceAxisd",), ("OrientSlicesd", "ResampleSlicesd", "StackContextSlicesd", "Windowd")),
}
#: Columns of a line in a config's text.
WIDTH = 120
MONAI_IDS = RUN_IDS | TRACKING | PROPERTIES | {"imports", "displayable_configs", "_meta_"}


def merge_files(files: Sequence[str | Path]) -> dict[str, Any]:
    """Return the content of config files, later ones laid over earlier ones by MONAI's rules.

    Raises:
        PyrasegError: one of the files is not there.
    """
    for file in files:
        if not Path(file).is_file():
            raise PyrasegError(f"There is no config at {file}. Correct the path.")
    protect(files)
    return ConfigParser.load_config_files([str(file) for file in files])


def read_config(files: Sequence[str | Path], options: Mapping[str, Any] | None = None) -> ConfigParser:
    """Return the merged config of some files, with options set in it, in the bundle that the first file is of.

    Args:
        files: a base, such as `configs/train.json`, and its overlays.
        options: values by their keys, see `parse_options` and `override`.

    Raises:
        PyrasegError: one of the files is not there, or nothing in the config uses an option.
    """
    parser = ConfigParser()
    parser.read_config(merge_files(files))
    parser["bundle_root"] = verbatim(Path(files[0]).resolve().parents[1])
    if options:
        override(parser, options)
    return parser


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """Return the options of a command line, `--key value` or `--key=value`, by their keys.

    A value is read as JSON or as Python, whichever it is, and is otherwise taken as text. A path is always a text, and
    stays as it is written; one in quotes stands without them.

    >>> parse_options(["--spacing", "2.0", "--plan#stages#0#patient_fraction=1", "--class_names", "[liver, spleen]"])
    {'spacing': 2.0, 'plan#stages#0#patient_fraction': 1, 'class_names': ['liver', 'spleen']}

    Raises:
        PyrasegError: a word is no option, or an option has no value.
    """
    options, left = {}, list(words)
    while left:
        word = left.pop(0)
        key, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise PyrasegError(f"{word!r} is no option. Options of a config are given as --key value.")
        if not equals:
            if not left or left[0].startswith("--"):
                raise PyrasegError(f"The option --{key} has no value. Options of a config are given as --key value.")
            text = left.pop(0)
        if key in PATHS:
            options[key] = _as_path(text)
            continue
        try:
            options[key] = json.loads(text)
        except json.JSONDecodeError:
            options[key] = DefaultParseValue(text)  # as Fire does for `python -m monai.bundle run`
    return options


def _as_path(text: str) -> str | None:
    """Return the value of a config for a path of the command line: what is there under that name, whatever it is."""
    is_there = os.path.lexists(text)
    if text in ("null", "None") and not is_there:
        return None
    quoted = re.fullmatch(r"""(["'])(.*)\1""", text)
    if quoted and not is_there:
        text = quoted[2]
    if text.startswith(("$", "@", "%")) and not is_there:
        return text
    return verbatim(text)


def verbatim(path: str | Path) -> str:
    """Return the value of a config that MONAI's parser turns into exactly this path.

    In every text it makes "::" of "#", and resolves "@::" and "%::"; at the beginning "$", "@" and "%" have a meaning.
    Where a path has one of these, it becomes an expression in which nothing of that is left.

    >>> verbatim("/data/set 1"), verbatim("/data/set#1")
    ('/data/set 1', "$'/data/set\\\\x231'")
    """
    text = str(path)
    if not text.startswith(("$", "@", "%")) and not re.search("#|@::|%::", text):
        return text
    plain = (char if char.isalnum() or char in "/ ._-" else _escaped(ord(char)) for char in text)
    return f"$'{''.join(plain)}'"


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 2**8 else f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"


def require_as_typed(words: Sequence[str]) -> None:
    """Refuse paths among the options of `python -m monai.bundle run` that are changed on their way into the config.

    Fire, which reads them, takes a comment, quotes and brackets away; MONAI's parser makes "::" of "#".

    Args:
        words: of the command line.

    Raises:
        PyrasegError: a path would become another one.
    """
    following = [*words[1:], ""]
    for word, after in zip(words, following, strict=True):
        key, equals, text = word.removeprefix("--").partition("=")
        text = text if equals else after
        if not word.startswith("--") or key not in PATHS or not text or text.startswith(("$", "@", "%")):
            continue
        read = DefaultParseValue(text)
        quoted = re.fullmatch(r"""(["'])(.*)\1""", text)
        meant = quoted[2] if quoted and not os.path.lexists(text) else text
        changed = str(read) != meant or verbatim(meant) != meant
        if changed and read is not None:
            became = str(read).replace("#", "::") if isinstance(read, str) else repr(read)
            raise PyrasegError(
                f"The path --{key} {text} reaches the config as {became}: Fire and MONAI read some characters in their "
                "own way. Give ./ or the whole path, rename what has a # or a quote in its name, or run `pyraseg`, "
                "which takes every name. Nothing was run."
            )


def override(parser: ConfigParser, options: Mapping[str, Any]) -> None:
    """Set values in a config by their keys, where `#` leads into a section, and check that all are used and fit.

    Raises:
        PyrasegError: there is no place of that name, or see `require_used` and `require_values`.
    """
    for key, value in options.items():
        try:
            parser.set(value, key)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            places = {place for place, _ in leaves(parser.get())}
            raise PyrasegError(
                f"The config has no place {key!r}.{nearest_hint(key, places)} Nothing was run."
            ) from error
    require_used(parser)
    require_values(parser)


def require_used(parser: ConfigParser) -> None:
    """Refuse a config with a key that nothing uses, which is what MONAI makes of a mistyped override.

    Checked are the keys at the top level and in its sections (each is referred to somewhere, or one that MONAI reads;
    an overlay takes a knob of its base out of use by setting it to null) and the arguments of every component (each is
    one that it takes).

    Raises:
        PyrasegError: a key is not used (the message names the nearest one that is), or a switch is put off by a text.
    """
    config = parser.get()
    for key, value in config.items():
        if isinstance(value, str) and value.lower() == "false":
            raise PyrasegError(
                f"The option {key!r} was given as the text {value!r}, which counts as true. The command line takes "
                f"Python's values: --{key} False. Nothing was run."
            )
    used = MONAI_IDS | OF_TASKS | set(references(config))
    used |= {knob for knob, use in REPLACED.items() if use in parser and not isinstance(parser[use], str)}
    is_used = {place: any(_overlap(place, other) for other in used) for place in sections(config)}
    for place, fine in is_used.items():
        if not fine:
            raise _unused(f"the option {place!r}", place, {other for other in is_used if is_used[other]})
    for place, component in components(config):
        takes = arguments(component, parser)
        for key in component:
            if takes is not None and key not in takes and not re.fullmatch("_.*_", key):
                raise _unused(f"{place}: {component['_target_']} has no argument {key!r}", key, takes)


def require_values(parser: ConfigParser) -> None:
    """Refuse a config whose knobs, or arguments of components, have values of another kind than they take.

    Raises:
        PyrasegError: a number, switch, list or text is none, or a number is out of its range.
    """
    config = parser.get()
    wrong = list(wrong_values(config, set(references(config))))
    for place, component in components(config):
        target = located(component, parser)
        if target is not None:
            wrong += wrong_arguments(place, component, target)
    if wrong:
        raise PyrasegError(" ".join(wrong) + " Nothing was run.")


def require_kind(parser: ConfigParser) -> None:
    """Refuse a config whose transforms are not those of its `image_kind`.

    Raises:
        PyrasegError: the kind is unknown, or a chain lacks one of its transforms or has one of another kind.
    """
    kind = parser.get("image_kind")
    if kind not in IMAGE_KINDS:
        hint = nearest_hint(str(kind), IMAGE_KINDS)
        raise PyrasegError(f"image_kind is {kind!r}; it is one of {', '.join(IMAGE_KINDS)}.{hint} Nothing was run.")
    if kind != "volume" and parser.get("sequences") is not None:
        raise PyrasegError(
            f"sequences are volumes of a case, and image_kind is {kind!r}. Set sequences to null. Nothing was run."
        )
    needed, foreign = IMAGE_KINDS[kind]
    for place in ("train#preprocessing#transforms", "preprocessing#transforms"):
        if place not in parser or not isinstance(parser[place], list):
            continue
        steps = [
            step["_target_"].rpartition(".")[2]
            for number, step in enumerate(parser[place])
            if "_disabled_" not in step or not parser.get_parsed_content(f"{place}#{number}#_disabled_")
        ]
        wrong = [f"lacks {step}" for step in needed if step not in steps]
        wrong += [f"has {step}" for step in foreign if step in steps]
        if wrong:
            raise PyrasegError(
                f"image_kind is {kind!r}, but {place} {' and '.join(wrong)}. Correct image_kind, or the transforms; a "
                "task of photographs or projections goes on top of configs/photographs.json (for inference "
                "photographs_inference.json), which has theirs. Nothing was run."
            )


def _unused(what: str, key: str, known: set[str]) -> PyrasegError:
    return PyrasegError(
        f"Nothing in the config uses what was given: {what}.{nearest_hint(key, known)} Nothing was run."
    )


def _overlap(one: str, other: str) -> bool:
    """Return whether two ids are the same or one is a part of the other."""
    return f"{one}#".startswith(f"{other}#") or f"{other}#".startswith(f"{one}#")


def references(config: Any) -> Iterator[str]:
    """Yield the ids that the values of a config refer to, as `@id` or `%id`, with `#` between their parts."""
    for _, value in leaves(config):
        if isinstance(value, str) and value.startswith(("@", "$", "%")):
            yield from (found.replace("::", "#") for found in re.findall(r"[@%](\w+(?:(?:#|::)\w+)*)", value))


def sections(config: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Yield the id of every key that has a value and is neither an argument of a component nor in a list."""
    for key, value in config.items():
        here = f"{place}#{key}" if place else key
        if value is not None:
            yield here
        if isinstance(value, dict) and not ConfigComponent.is_instantiable(value):
            yield from sections(value, here)


def components(config: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every component of a config with its id."""
    if ConfigComponent.is_instantiable(config):
        yield place, config
    for here, value in _inside(config, place):
        yield from components(value, here)


def leaves(config: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a config that holds no others with its id, in the order of the file."""
    if not isinstance(config, dict | list) or not config:
        yield place, config
    for here, value in _inside(config, place):
        yield from leaves(value, here)


def _inside(config: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(config, dict | list):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield f"{place}#{key}" if place else str(key), value


def located(component: dict[str, Any], parser: ConfigParser) -> Callable | None:
    """Return what a component calls, or None where it cannot be told."""
    target = ConfigComponent(component, locator=parser.locator).resolve_module_name()
    found = locate(target) if isinstance(target, str) else target
    return found if callable(found) else None


def arguments(component: dict[str, Any], parser: ConfigParser) -> set[str] | None:
    """Return the names of a component's arguments, or None where it takes any or cannot be told."""
    found = located(component, parser)
    if found is None:
        return None
    parameters = inspect.signature(found).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters}


def config_text(config: Mapping[str, Any]) -> str:
    """Return a config as JSON in the form of the repository's own, which a test holds them to.

    A value stands on one line where that has at most 120 columns. Otherwise, and where it is a section or a list of
    components, each of its parts starts a line. A transform of a list `transforms` always stands on one.
    """
    return _spread(config, "", 0) + "\n"


def _text(value: Any, key: str, depth: int, before: int) -> str:
    """Return a value as text behind `before` columns of its line."""
    line = json.dumps(value, ensure_ascii=False)
    if not value or not isinstance(value, Mapping | list):
        return line
    return _spread(value, key, depth) if _has_parts(value) or before + len(line) >= WIDTH else line


def _spread(value: Mapping | list, key: str, depth: int) -> str:
    inner, outer = "    " * (depth + 1), "    " * depth
    if isinstance(value, Mapping):
        names = {name: f"{inner}{json.dumps(name, ensure_ascii=False)}: " for name in value}
        lines = [names[name] + _text(item, name, depth + 1, len(names[name])) for name, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{outer}}}"
    if key.endswith("transforms"):
        lines = [inner + json.dumps(item, ensure_ascii=False) for item in value]
    else:
        lines = [inner + _text(item, "", depth + 1, len(inner)) for item in value]
    return "[\n" + ",\n".join(lines) + f"\n{outer}]"


def _has_parts(value: Mapping | list) -> bool:
    """Return whether a value lists components, or is a section that holds objects."""
    if isinstance(value, list):
        return any(isinstance(item, Mapping) and "_target_" in item for item in value)
    parts = [item for item in value.values() if item and isinstance(item, Mapping | list)]
    if "_target_" in value:
        return any(isinstance(item, list) and _has_parts(item) for item in parts)
    return any(isinstance(item, Mapping) or _has_parts(item) for item in parts)
