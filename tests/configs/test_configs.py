# SPDX-License-Identifier: Apache-2.0
"""What holds for every config: references, overlays, knobs, form, and the two that must agree."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow, ReferenceResolver

from bundle.pyraseg.core import PyrasegError, how_to_train, task_files
from bundle.pyraseg.inference.prediction import OUTPUTS
from bundle.pyraseg.workflow import config_text, require_kind
from bundle.pyraseg_tools.datasets.phantom.study import write_phantom_study
from tests.helpers.configs import CONFIGS, FILES, FORMS, OVERLAYS, PROGRAMS, TASKS, merged, paths, programs

ROOT = Path(__file__).resolve().parents[2]


RUN_IDS = {"initialize", "run", "finalize", "training", "evaluating", "calibrating", "guarding", "inferring"}
overlays = pytest.mark.parametrize("program", [name for name, files in PROGRAMS.items() if len(files) > 1])


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
    # MONAI Label reads network_def; image_kind is checked, and a task may say how it is evaluated. Clicks load
    # their teacher in `run` of a training alone.
    of_others = {"network_def", "image_kind", "jaccard_threshold", "thin_classes"}
    assert keys - used - RUN_IDS - of_others <= ({"teacher"} if "click.json" in PROGRAMS[program] else set())


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


# --- tasks ---


@pytest.mark.parametrize("task", [None, *OVERLAYS])
def test_a_task_is_a_base_and_its_overlays(task):
    for program, name in (("train", "train"), ("evaluate", "evaluate"), ("inference", "infer")):
        files = PROGRAMS[name if task is None else f"{name} {task}"]
        assert [path.name for path in task_files(CONFIGS, program, task)] == files
    parts = [] if task is None else [f"{task}_metadata.json"]
    if task in FORMS:
        parts = [f"{FORMS[task]}_metadata.json", *parts]
    assert [path.name for path in task_files(CONFIGS, "metadata", task)] == ["metadata.json", *parts]


def test_an_unknown_output_is_told_the_writers_of_the_config():
    assert list(json.loads((CONFIGS / "inference.json").read_text())["writers"]) == list(OUTPUTS)


def test_who_lacks_a_model_is_told_how_to_train_it():
    for task, files in {
        "": "configs/train.json",
        " spleen": "\"['configs/train.json','configs/spleen.json']\"",
        " vessels": "\"['configs/train.json','configs/photographs.json','configs/vessels.json']\"",
    }.items():
        assert how_to_train(ROOT / "models" / f"{task.strip() or 'model'}.pt", str(ROOT)) == (
            f"Train one first, `pyraseg train{task}` or `python -m monai.bundle run training --config_file {files}`, "
            "or give the weights of another with --model_file."
        )


KINDS = {
    "lungs": "projection",
    **dict.fromkeys(("dermoscopy", "dermoscopy_click", "dermoscopy_fast", "vessels", "nerves", "voc"), "photograph"),
}


@programs
def test_the_transforms_are_those_of_the_kind(program):
    parser = merged(PROGRAMS[program])
    task = next((task for task in OVERLAYS if task in program.split()), "phantom")
    assert parser["image_kind"] == KINDS.get(task, "volume")
    require_kind(parser)


@pytest.mark.parametrize(
    ("files", "kind", "message"),
    [
        (["train.json", "dermoscopy.json"], None, "train#preprocessing#transforms lacks DropSliceAxisd and has Orient"),
        (["inference.json"], "projection", "'projection', but preprocessing#transforms lacks DropSliceAxisd and has O"),
        (PROGRAMS["train dermoscopy"], "volume", "'volume', but .* has DropSliceAxisd and has ResizePhotographd"),
        (["train.json"], "volumes", "'volumes'; it is one of volume, projection, photograph. The nearest name is 'vol"),
    ],
)
def test_transforms_of_another_kind_are_refused(files, kind, message):
    parser = merged(files)
    parser["image_kind"] = kind or parser["image_kind"]
    with pytest.raises(PyrasegError, match=message):
        require_kind(parser)


def test_only_dermoscopy_is_scored_as_in_isic():
    thresholds = {
        task: merged(PROGRAMS[f"evaluate {task}"]).get_parsed_content("jaccard_threshold") for task in OVERLAYS
    }
    for task in ("dermoscopy", "dermoscopy_click", "dermoscopy_fast"):
        assert thresholds.pop(task) == 0.65
    assert set(thresholds.values()) == {None}


# --- form ---


@pytest.mark.parametrize("name", FILES)
def test_no_key_is_given_twice(name):
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        assert len(set(keys)) == len(keys), keys
        return dict(pairs)

    json.loads((CONFIGS / name).read_text(), object_pairs_hook=unique)


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.json")))
def test_a_config_is_written_as_the_repository_writes_them(name):
    text = (CONFIGS / name).read_text()
    assert config_text(json.loads(text)) == text
    for line in text.splitlines():  # a transform, or a text that cannot be broken
        assert len(line) <= 120 or re.fullmatch(r' +\{"_target_": .*\},?| +("[^"]+": )?"[^"]*",?', line), line


@pytest.mark.parametrize("name", ["train.json", "inference.json"])
def test_knobs_come_first(name):
    """Data, method, machine, then the parts that they are put into; the first knob of each block tells it apart."""
    keys = list(json.loads((CONFIGS / name).read_text()))
    blocks = [keys.index(key) for key in ("dataset_dir", "encoder", "output_dir", "device", "network_def")]
    assert blocks == sorted(blocks)
    components = [key for key in keys if isinstance(json.loads((CONFIGS / name).read_text())[key], dict)]
    assert {"bundle_root", "network_def"} <= set(components)


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
        if "image" not in keys or transform["_target_"].endswith(".KeepOriginald"):
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
    assert {"encoder", "pool_sizes", "class_names", "pretrained"} <= shared
    shared -= {"pretrained"}  # inference loads the bundle's own weights
    assert {key: train[key] for key in shared} == {key: infer[key] for key in shared}


@pytest.mark.parametrize(("train", "infer"), TASKS)
def test_training_and_inference_say_the_same_of_images_and_classes(train, infer):
    """What must agree with a set of weights, also where no transform refers to it."""
    train, infer = merged(PROGRAMS[train]).get(), merged(PROGRAMS[infer]).get()
    for key in ("image_kind", "class_names", "windows", "spacing", "context_slices", "normalization"):
        assert train.get(key) == infer.get(key), key


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
