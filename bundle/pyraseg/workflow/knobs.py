# SPDX-License-Identifier: Apache-2.0
"""Knobs of the configs: what kind of value each takes, whichever road it was given on."""

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

#: Whole numbers, and the least value of each.
COUNTS = {
    "epochs": 1, "rounds": 1, "local_epochs": 1, "batch_size": 1, "accumulation_steps": 1, "samples_per_epoch": 1,
    "val_interval": 1, "patience": 1, "resamples": 1, "threads": 1, "bottleneck": 1, "output_stride": 1,
    "decoder_stride": 1, "context_slices": 0, "num_workers": 0, "seed": 0, "previews": 0, "min_size": 0,
    "mask_value": 0, "uncertainty_dropout": 0, "capture_slices": 1, "click_width": 1,
    "click_rounds": 1, "val_clicks": 0,
}  # fmt: skip
#: Other numbers from a least to a largest value, both allowed.
NUMBERS = {
    "background_fraction": (0, 1), "flip_prob": (0, 1), "dropout": (0, 1), "ema_decay": (0, 1), "overlap": (0, 1),
    "jaccard_threshold": (0, 1), "distill_weight": (0, 1), "lesion_overlap": (0, 1), "weight_decay": (0, math.inf),
    "surface_tolerance": (0, math.inf), "calibration_margin": (0, math.inf), "mask_threshold": (-math.inf, math.inf),
    "unknown_value": (-math.inf, math.inf), "margin": (0, math.inf), "sequence_dropout": (0, 1),
    "click_jitter": (0, math.inf), "click_box_fraction": (0, 1),
}  # fmt: skip
POSITIVE = {"distill_temperature", "max_grad_norm", "learning_rate", "encoder_learning_rate"}
#: One number, or three: along or about the axes of a volume in 3-D; and whether it may be 0.
TRIPLES = {"spacing": False, "rotation": True}
SWITCHES = {
    "amp", "augment_on_device", "compile", "complete_headers", "on_gpu", "patch_stem", "report", "resume",
    "save_probabilities",
}  # fmt: skip
#: Lists of whole numbers from 1 on.
SIZES = {"slice_size", "photograph_size", "patch_size", "pool_sizes", "channels"}
LISTS = {
    "class_names", "overlap_order", "tta_flips", "keep_largest", "fill_holes", "lesion_classes", "by", "thin_classes",
    "uncertainty_rotations", "uncertainty_flips", "roi_size", "may_differ",
}  # fmt: skip
#: Lists, or values by the names of sequences, and what each takes.
OF_SEQUENCES = {
    "windows": "a list, such as ['soft_tissue','bone'], or one for each sequence",
    "sequences": "a list of names, or by name what each is called, such as {'t1': 'T1*', 'flair': '*FLAIR*'}",
}
#: One name, or a list of names.
NAMES = {"outputs", "modality", "body_part", "plane", "refuse"}
#: Files and folders.
PATHS = {
    "bundle_root", "dataset_dir", "output_dir", "cache_dir", "training_dir", "model_file", "start_from", "distill_from",
    "click_from", "onnx_file", "trt_file",
}  # fmt: skip
TEXTS = PATHS | {
    "image_pattern", "label_pattern", "patient_pattern", "drawn_on", "encoder", "decoder", "mesh_format", "remedy",
    "note", "pet_units", "cpu_kernels", "ejection_fraction", "unlike", "seg_type",
}  # fmt: skip
#: Knobs that null (None on the command line) puts out of use; for others it is no value where anything refers to them.
OPTIONAL = {
    "patience", "max_grad_norm", "jaccard_threshold", "mask_value", "mask_threshold", "unknown_value", "overlap_order",
    "training_dir", "start_from", "distill_from", "output_dir", "image_pattern", "label_pattern", "patient_pattern",
    "windows", "sequences", "previews", "modality", "body_part", "plane", "refuse", "phase", "ejection_fraction",
    "regions", "click_from",
}  # fmt: skip
#: Lists by name.
MAPPINGS = {"regions"}
#: What is to be true of a value, in words, and whether it is.
Rule = tuple[str, Callable[[Any], bool]]


def wrong_values(config: Mapping[str, Any], used: set[str]) -> Iterator[str]:
    """Yield what is wrong with the values of a config's knobs, each as a sentence.

    Args:
        config: merged; an expression or a reference is any value.
        used: ids that something in the config refers to.
    """
    for name, value in config.items():
        rule = _rule(name)
        if name in PATHS and (meant := _misread(value, config)) is not None:
            yield f"The option {name!r} is {value!r}, which MONAI reads as {meant}. A path of that name is ./{value}."
        if rule is None or _is_expression(value) or (value is None and (name in OPTIONAL or name not in used)):
            continue
        takes, holds = rule
        if not holds(value):
            yield f"The option {name!r} takes {takes}, not {value!r}."


def _misread(value: Any, config: Mapping[str, Any]) -> str | None:
    """Return what MONAI takes a path for that begins with one of its signs, or None where that is what is meant."""
    text = value if isinstance(value, str) else ""
    if text.startswith("@") and re.split("#|::", text[1:])[0] not in config:
        return "a reference to another option, and there is none of that name"
    if re.fullmatch(r"\$[\w./-]+", text):
        return "an expression"
    return None


def wrong_arguments(place: str, component: Mapping[str, Any], target: Callable) -> Iterator[str]:
    """Yield which arguments of a component are texts, although its signature has numbers or switches there.

    Args:
        place: id of the component, for the message.
        component: as the config has it.
        target: what is called.
    """
    for name, parameter in inspect.signature(target).parameters.items():
        value, kinds = component.get(name), _kinds(parameter.annotation)
        if isinstance(value, str) and not _is_expression(value) and kinds and kinds <= {"int", "float", "bool"}:
            takes = "True or False" if kinds == {"bool"} else "a number"
            yield f"The option {f'{place}#{name}'!r} takes {takes}, not {value!r}."


def _kinds(annotation: Any) -> set[str]:
    """Return the names of the types of an annotation, without None."""
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    if "|" in str(annotation):
        name = str(annotation)
    return {part.strip() for part in name.split("|")} - {"None", ""}


def _is_expression(value: Any) -> bool:
    """Return whether MONAI computes a value, by an expression, a reference, a macro or a component."""
    computed = isinstance(value, str) and value.startswith(("$", "@", "%"))
    return computed or (isinstance(value, Mapping) and "_target_" in value)


def _rule(name: str) -> Rule | None:
    """Return what holds for the values of a knob, or None where it is none that is known."""
    if name in COUNTS:
        least = COUNTS[name]
        return f"a whole number from {least} on", lambda value: _is_count(value, least)
    if name in POSITIVE:
        return "a number above 0", lambda value: _is_number(value) and value > 0
    if name in TRIPLES:
        least = "from 0 on" if TRIPLES[name] else "above 0"
        return f"a number {least}, or three of them for volumes in 3-D", lambda value: _is_triple(value, TRIPLES[name])
    if name in NUMBERS:
        low, high = NUMBERS[name]
        upper = f" to {high}" if high < math.inf else " on"
        takes = f"a number from {low}{upper}" if low > -math.inf else "a number"
        return takes, lambda value: _is_number(value) and low <= value <= high
    if name in SWITCHES:
        return "True or False", lambda value: isinstance(value, bool) or value == "true"  # a text, and none is false
    if name in SIZES:
        return "a list of whole numbers from 1 on, such as [160, 160]", _is_sizes
    if name in LISTS:
        return "a list, such as [1, 2] or ['a','b']", lambda value: isinstance(value, list | tuple)
    if name in MAPPINGS:
        return "lists by name, such as {'organ': ['liver', 'lesion']}", _is_mapping
    if name in OF_SEQUENCES:
        return OF_SEQUENCES[name], lambda value: isinstance(value, list | tuple | Mapping)
    if name in NAMES:
        return "a name or a list of names", lambda value: isinstance(value, str | list | tuple)
    if name == "pretrained":
        return "True, False, or the path of a file of encoder weights", lambda value: isinstance(value, bool | str)
    if name == "phase":
        return 'a number from 1 on, or "all"', _is_phase
    if name in TEXTS:
        return "a text (of a number, a path is made by ./ in front)", lambda value: isinstance(value, str)
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_triple(value: Any, zero: bool) -> bool:
    given = value if isinstance(value, list | tuple) and len(value) == 3 else [value]
    return all(_is_number(one) and (one > 0 or (zero and one == 0)) for one in given)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(one, list | tuple) for one in value.values())


def _is_phase(value: Any) -> bool:
    return value in ("", "all") or _is_count(int(value) if str(value).isdecimal() else value, 1)


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(_is_expression(one) or _is_count(one, 1) for one in value)
