# SPDX-License-Identifier: Apache-2.0
"""Every program that configs are made for, and the files it is made of."""

import pytest
from monai.bundle import ConfigParser

from tests.helpers.commands import ROOT

CONFIGS = ROOT / "configs"
#: Tasks beside the default one: each is an overlay on train.json and one on inference.json.
OVERLAYS = (
    "dermoscopy",
    "dermoscopy_click",
    "dermoscopy_fast",
    "lungs",
    "hippocampus",
    "heart",
    "heart_click",
    "vessels",
    "lung_ct",
    "spleen",
    "nerves",
    "voc",
)
#: Those of 2-D images, which share the overlay of photographs.
PHOTOGRAPHS = ("dermoscopy", "dermoscopy_click", "dermoscopy_fast", "lungs", "vessels", "nerves", "voc")
#: Those of volumes in 3-D.
VOLUMES = ("hippocampus",)
#: Those whose networks clicks correct.
CLICKS = ("dermoscopy_click", "heart_click")

#: Forms of a task that stand on it.
FORMS = {"dermoscopy_click": "dermoscopy", "dermoscopy_fast": "dermoscopy", "heart_click": "heart"}


def stack(program: str, task: str) -> list[str]:
    """Return the files of a task: a base, the overlay of photographs where it is of 2-D images, and its own.

    A form of another task stands on it, one that sees volumes in 3-D on their overlay as well, and one for corrections
    on that of clicks.
    """
    base, suffix = ("inference.json", "_inference") if program == "infer" else ("train.json", "")
    shared = [f"photographs{suffix}.json"] if task in PHOTOGRAPHS else []
    of_base = [f"{FORMS[task]}{suffix}.json"] if task in FORMS else []
    volumes = [f"volumes{suffix}.json"] if task in VOLUMES else []
    clicks = [f"click{suffix}.json"] if task in CLICKS else []
    return [base, *shared, *of_base, *volumes, *clicks, f"{task}{suffix}.json"]


#: What is run, and the files it is made of: a base, then overlays.
PROGRAMS = {
    "train": ["train.json"],
    "evaluate": ["train.json", "evaluate.json"],
    "calibrate": ["train.json", "calibrate.json"],
    "guard": ["train.json", "guard.json"],
    "infer": ["inference.json"],
    "infer on ONNX Runtime": ["inference.json", "inference_onnx.json"],
    "infer dermoscopy on ONNX Runtime": [*stack("infer", "dermoscopy"), "inference_onnx.json"],
    "infer in TensorRT": ["inference.json", "inference_trt.json"],
    "infer in int8": ["inference.json", "inference_onnx.json", "inference_int8.json"],
    "train in several processes": ["train.json", "multi_gpu_train.json"],
    "train in a federation": ["train.json", "federated.json"],
    "train dermoscopy in several processes": [*stack("train", "dermoscopy"), "multi_gpu_train.json"],
    "train dermoscopy in a federation": [*stack("train", "dermoscopy"), "federated.json"],
    **{f"train {task}": stack("train", task) for task in OVERLAYS},
    **{f"evaluate {task}": [*stack("train", task), "evaluate.json"] for task in OVERLAYS},
    **{f"calibrate {task}": [*stack("train", task), "calibrate.json"] for task in OVERLAYS},
    **{f"guard {task}": [*stack("train", task), "guard.json"] for task in OVERLAYS},
    **{f"infer {task}": stack("infer", task) for task in OVERLAYS},
}

#: The training and the inference of each task.
TASKS = [("train", "infer"), *((f"train {task}", f"infer {task}") for task in OVERLAYS)]

FILES = sorted(path.name for path in CONFIGS.glob("*.json") if not path.name.endswith("metadata.json"))
programs = pytest.mark.parametrize("program", PROGRAMS)


def paths(files: list[str]) -> list[str]:
    return [str(CONFIGS / name) for name in files]


def merged(files: list[str]) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(paths(files))
    return parser
