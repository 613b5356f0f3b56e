# SPDX-License-Identifier: Apache-2.0
"""What holds for every config: references, overlays, knobs, form, and the two that must agree."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow, ReferenceResolver

from bundle.pyraseg_tools.datasets.phantom.study import write_phantom_study

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"

#: Tasks beside the default one: each is an overlay on train.json and one on inference.json.
OVERLAYS = ("dermoscopy", "chest_xray", "hippocampus", "retina", "lung_ct", "spleen", "ultrasound", "voc")
#: What is run, and the files it is made of: a base, then overlays.
PROGRAMS = {
    "train": ["train.json"],
    "evaluate": ["train.json", "evaluate.json"],
    "calibrate": ["train.json", "calibrate.json"],
    "infer": ["inference.json"],
    "infer on ONNX Runtime": ["inference.json", "inference_onnx.json"],
    "infer dermoscopy on ONNX Runtime": ["inference.json", "dermoscopy_inference.json", "inference_onnx.json"],
    "infer in TensorRT": ["inference.json", "inference_trt.json"],
    "infer in int8": ["inference.json", "inference_onnx.json", "inference_int8.json"],
    "train in several processes": ["train.json", "multi_gpu_train.json"],
    "train in a federation": ["train.json", "federated.json"],
    "train dermoscopy in several processes": ["train.json", "dermoscopy.json", "multi_gpu_train.json"],
    "train dermoscopy in a federation": ["train.json", "dermoscopy.json", "federated.json"],
    **{f"train {task}": ["train.json", f"{task}.json"] for task in OVERLAYS},
    **{f"evaluate {task}": ["train.json", f"{task}.json", "evaluate.json"] for task in OVERLAYS},
    **{f"calibrate {task}": ["train.json", f"{task}.json", "calibrate.json"] for task in OVERLAYS},
    **{f"infer {task}": ["inference.json", f"{task}_inference.json"] for task in OVERLAYS},
}
#: The training and the inference of each task.
TASKS = [("train", "infer"), *((f"train {task}", f"infer {task}") for task in OVERLAYS)]

RUN_IDS = {"initialize", "run", "finalize", "training", "evaluating", "calibrating", "inferring"}
FILES = sorted(path.name for path in CONFIGS.glob("*.json") if not path.name.endswith("metadata.json"))
programs = pytest.mark.parametrize("program", PROGRAMS)
overlays = pytest.mark.parametrize("program", [name for name, files in PROGRAMS.items() if len(files) > 1])


def paths(files: list[str]) -> list[str]:
    return [str(CONFIGS / name) for name in files]


def merged(files: list[str]) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(paths(files))
    return parser


def strings(config: Any) -> list[str]:
    if isinstance(config, dict | list):
        return [text for value in (config.values() if isinstance(config, dict) else config) for text in strings(value)]
    return [config] if isinstance(config, str) else []


def references(config: Any) -> set[str]:
    """Return the ids that a config's values refer to, as MONAI finds them."""
    return {found for text in strings(config) for found in ReferenceResolver.match_refs_pattern(text)}


def knobs(config: dict[str, Any], part: Any) -> set[str]:
    """Return the top-level keys that a part of a config depends on, directly or through others."""
    found: set[str] = set()
    left = references(part)
    while left:
        key = ReferenceResolver.split_id(left.pop())[0]
        if key not in found:
            found.add(key)
            left |= references(config[key])
    return found


def test_every_file_is_part_of_a_program():
    assert {name for files in PROGRAMS.values() for name in files} == set(FILES)


# --- references and overlays ---


@programs
def test_every_reference_resolves(program):
    parser = merged(PROGRAMS[program])
    found = references(parser.get()) | {text[1:] for text in strings(parser.get()) if text.startswith("%")}
    assert len(found) > 15
    assert [id for id in sorted(found) if id not in parser] == []


@programs
def test_every_knob_and_argument_is_used(program):
    parser = merged(PROGRAMS[program])
    parser["initialize"] = [{"_target_": "bundle.pyraseg.workflow.check_config"}, *parser["initialize"]]
    parser.get_parsed_content("initialize#0")
    keys = {key for key, value in parser.get().items() if value is not None and key != "_meta_"}
    used = {ReferenceResolver.split_id(id)[0] for id in references(parser.get())}
    assert keys - used - RUN_IDS - {"network_def"} == set()  # MONAI Label reads that one


@pytest.mark.parametrize("program", ["train", "train in several processes", "train in a federation"])
def test_what_monai_label_and_monai_fl_set_is_allowed(program):
    parser = merged(PROGRAMS[program])
    parser["train#trainer#max_epochs"] = 2
    parser["train#dataset#data"] = parser["validate#dataset#data"] = [{"image": "a.nii", "label": "b.nii"}]
    parser["device"] = "cpu"
    parser["initialize"] = [{"_target_": "bundle.pyraseg.workflow.check_config"}]
    parser.get_parsed_content("initialize#0")


@overlays
def test_every_key_of_an_overlay_has_a_place(program):
    *base, last = PROGRAMS[program]
    before, after = merged(base), merged([*base, last])
    used = {ReferenceResolver.split_id(id)[0] for id in references(after.get())}
    for key in ConfigParser.load_config_file(CONFIGS / last):
        key = key.removeprefix("+")
        parent = key.rpartition("#")[0]
        adds_argument = parent in before and "_target_" in before[parent]  # known ones only, says the test above
        assert key in before or key in RUN_IDS | used or adds_argument, f"{key} is neither in {base} nor used"


@overlays
def test_no_overlay_counts_positions(program):
    for key in ConfigParser.load_config_file(CONFIGS / PROGRAMS[program][-1]):
        assert not any(part.isdigit() for part in ReferenceResolver.split_id(key)), key


@pytest.mark.parametrize("name", FILES)
def test_no_macro_reads_another_file(name):
    macros = [text for text in strings(ConfigParser.load_config_file(CONFIGS / name)) if text.startswith("%")]
    assert all(macro[1:] in RUN_IDS for macro in macros)


# --- form ---


def lists_components(component: dict[str, Any]) -> bool:
    return any(isinstance(value, list) and all(isinstance(v, dict) for v in value) for value in component.values())


def components(config: Any) -> list[dict[str, Any]]:
    inner = list(config.values()) if isinstance(config, dict) else config if isinstance(config, list) else []
    found = [config] if isinstance(config, dict) and "_target_" in config else []
    return found + [component for value in inner for component in components(value)]


@pytest.mark.parametrize("name", FILES)
def test_no_key_is_given_twice(name):
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        assert len(set(keys)) == len(keys), keys
        return dict(pairs)

    json.loads((CONFIGS / name).read_text(), object_pairs_hook=unique)


@pytest.mark.parametrize("name", FILES)
def test_a_component_stands_on_one_line(name):
    alone = 0
    for number, line in enumerate((CONFIGS / name).read_text().splitlines(), start=1):
        if re.fullmatch(r'\s*"_target_": "[\w.]+",?', line):
            alone += 1
        elif '"_target_"' in line:
            assert line.count("{") == line.count("}"), f"{name}:{number}"
    containers = sum(map(lists_components, components(ConfigParser.load_config_file(CONFIGS / name))))
    assert alone <= containers  # only a component that holds a list of others is spread over lines


# --- from elsewhere, in another format ---


@programs
def test_parses_from_a_foreign_directory(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = "train" if "train.json" in PROGRAMS[program] else "infer"
    workflow = ConfigWorkflow(paths(PROGRAMS[program]), workflow_type=kind, logging_file=False, init_id="nothing")
    workflow.initialize()
    assert workflow.bundle_root == str(ROOT)
    for key in ("dataset_dir", "output_dir", "model_file"):
        if workflow.parser[key] is not None:  # an overlay may take one out of use
            assert Path(workflow.parser.get_parsed_content(key)).is_relative_to(ROOT)


@programs
def test_yaml_holds_the_same(program, tmp_path):
    config = merged(PROGRAMS[program]).get()
    ConfigParser.export_config_file(config, str(tmp_path / "config.yaml"), fmt="yaml")
    assert ConfigParser.load_config_file(str(tmp_path / "config.yaml")) == config


# --- training and inference ---


def deterministic_image_steps(transforms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a chain does to the image: steps of the label alone and copies go, lists by key are reduced."""
    steps = []
    for transform in transforms:
        keys = [transform["keys"]] if isinstance(transform["keys"], str) else transform["keys"]
        if "image" not in keys or transform["_target_"] == "CopyItemsd":
            continue
        step = {
            name: value[keys.index("image")] if isinstance(value, list) and len(value) == len(keys) > 1 else value
            for name, value in transform.items()
        }
        steps.append(step)
    return steps


@pytest.mark.parametrize(("train", "infer"), TASKS)
def test_training_and_inference_preprocess_alike(train, infer):
    train, infer = merged(PROGRAMS[train]).get(), merged(PROGRAMS[infer]).get()
    steps = deterministic_image_steps(train["train"]["preprocessing"]["transforms"])
    assert len(steps) >= 3
    assert steps == deterministic_image_steps(infer["preprocessing"]["transforms"])
    assert knobs(train, steps) == knobs(infer, steps)
    assert {key: train[key] for key in knobs(train, steps)} == {key: infer[key] for key in knobs(infer, steps)}
    assert train["validate"]["preprocessing"] == "@train#preprocessing"


@pytest.mark.parametrize(("train", "infer"), TASKS)
def test_training_and_inference_build_the_same_network(train, infer):
    train, infer = merged(PROGRAMS[train]).get(), merged(PROGRAMS[infer]).get()
    assert train["network_def"] == infer["network_def"]
    shared = knobs(train, train["network_def"])
    assert {"encoder", "output_stride", "pool_sizes", "class_names", "pretrained"} <= shared
    shared -= {"pretrained"}  # inference loads the bundle's own weights
    assert {key: train[key] for key in shared} == {key: infer[key] for key in shared}


# --- MONAI's properties ---


@pytest.mark.parametrize(("program", "kind"), [("train", "train"), ("infer", "infer")])
def test_the_properties_that_monai_asks_for_are_there(program, kind, tmp_path):
    write_phantom_study(tmp_path / "study", patients=3, size=48)
    overrides = {"dataset_dir": str(tmp_path / "study"), "device": "cpu"}
    overrides |= {"cache_dir": str(tmp_path / "cache"), "pretrained": False} if kind == "train" else {}
    workflow = ConfigWorkflow(
        paths(PROGRAMS[program]), workflow_type=kind, logging_file=False, init_id="nothing", **overrides
    )
    workflow.initialize()
    assert workflow.check_properties() == []
