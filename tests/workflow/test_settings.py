# SPDX-License-Identifier: Apache-2.0
"""The settings that belong to weights are those that a config runs with, and equal where they mean the same."""

from pathlib import Path

import pytest

from bundle.pyraseg.core import PROGRAMS, task_files, task_names
from bundle.pyraseg.workflow.config import read_config
from bundle.pyraseg.workflow.settings import model_settings

CONFIGS = Path(__file__).parents[2] / "configs"
TASKS = [None, *task_names(CONFIGS)]
NETWORKS = ("PSPNet", "VolumePSPNet", "click_network")


def settings(program: str, task: str | None = None, **options: object):
    files = task_files(CONFIGS, program, task)
    return model_settings(read_config(files, {key.replace("__", "#"): value for key, value in options.items()}))


@pytest.mark.parametrize("task", [task for task in TASKS if task != "phantom"], ids=str)
def test_all_programs_of_a_task_have_the_same(task: str | None) -> None:
    train = settings("train", task).values
    assert train["class_names"] and train["preprocessing"] and train["network"] in NETWORKS
    for program in PROGRAMS:
        if program not in ("train", "metadata"):
            assert settings(program, task).values == train


CHANGES = {
    "class_names": ["background", "kidney", "lesion", "spleen", "liver"],
    "windows": [{"center": 0, "width": 1000}, "soft_tissue", {"center": 90, "width": 180}],
    "modality": "MR",
    "body_part": ["HEAD"],
    "plane": ["coronal"],
    "pet_units": "stored",
    "spacing": 5,
    "context_slices": 2,
    "encoder": "efficientnet_lite0",  # the same weights with other padding
    "output_stride": 32,
    "pool_sizes": [1, 2, 3, 6],
    "decoder": "plain",
    "bottleneck": 64,
    "preprocessing__transforms__2__output_range": [0, 1],
    "preprocessing__transforms__4__mode": "nearest",
}


@pytest.mark.parametrize(("option", "value"), CHANGES.items(), ids=CHANGES)
def test_each_option_that_changes_what_is_seen_or_meant_differs(option: str, value: object) -> None:
    changed = settings("inference", **{option: value})
    (name,) = changed.differing(settings("train").values)
    assert changed.options[name] == option.replace("__", "#")


@pytest.mark.parametrize(
    ("task", "option", "value", "names"),
    [
        ("dermoscopy", "slice_size", [128, 128], {"slice_size", "photograph_size"}),
        ("vessels", "photograph_size", [512, 480], {"photograph_size"}),
        ("vessels", "slice_size", [512, 512], {"slice_size"}),
        ("lungs", "windows", ["header"], {"windows"}),
        ("dermoscopy", "normalization", {"mean": [0.4, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}, {None}),
        ("dermoscopy", "image_kind", "projection", None),
    ],
)
def test_photographs_and_radiographs(task: str, option: str, value: object, names: set | None) -> None:
    extra = {"windows": ["lung"]} if option == "image_kind" else {}
    changed = settings("inference", task, **{option: value}, **extra)
    differing = changed.differing(settings("train", task).values)
    if names is None:
        assert {"image_kind", "preprocessing"} <= set(differing)
    else:
        assert {changed.options.get(name) for name in differing} == names


@pytest.mark.parametrize(
    "windows",
    [
        [
            {"center": 90, "width": 180.0, "function": "LINEAR"},
            {"center": 40, "width": 400},
            {"center": 0.0, "width": 1e3},
        ],
        [{"width": 180, "center": 90}, "soft_tissue", {"center": 0, "width": 1000}],
    ],
)
def test_the_same_windows_in_other_words_do_not_differ(windows: list) -> None:
    assert not settings("inference", windows=windows, spacing=2.50).differing(settings("train").values)


FREE = {"batch_size": 3, "dropout": 0.5, "pretrained": True, "tta_flips": [[0]], "min_size": 10, "overlap": 0.5}


@pytest.mark.parametrize(("option", "value"), FREE.items(), ids=FREE)
def test_what_belongs_to_no_weights_does_not_count(option: str, value: object) -> None:
    assert settings("inference", **{option: value}).values == settings("train").values
