# SPDX-License-Identifier: Apache-2.0
"""The values of a submitted label are told by the names that come with them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.monai_label.classes import Task, as_classes, meant
from tests.helpers.commands import ROOT


@pytest.fixture
def tasks(tmp_path):
    """Return the default task, in which a spleen has a second name, and that of the photographs."""
    folders = []
    for name, overlays in (
        ("phantom", ()),
        (
            "dermoscopy",
            ("photographs.json", "photographs_inference.json", "dermoscopy.json", "dermoscopy_inference.json"),
        ),
    ):
        folders.append(tmp_path / name / "configs")
        folders[-1].mkdir(parents=True)
        for config in ("train.json", "inference.json"):
            content = json.loads((ROOT / "configs" / config).read_text())
            for overlay in overlays:
                content |= json.loads((ROOT / "configs" / overlay).read_text())
            if name == "phantom":
                content["label_names"] = {"spleen": ["Milz"]}
            (folders[-1] / config).write_text(json.dumps(content))
    return [Task.of(folder.parent) for folder in folders]


def named(**names):
    return {"label_info": [{"name": name, "idx": value} for name, value in names.items()]}


def test_slicer_names_its_segments_in_an_order_of_its_own(tasks):
    task, classes = meant(tasks, [1, 2], named(Kidney=1, LIVER=2))
    assert (task.name, classes) == ("phantom", {1: 4, 2: 1})
    label = np.array([[0, 1], [2, 2]])
    np.testing.assert_array_equal(as_classes(label, classes), [[0, 4], [1, 1]])


def test_others_name_them_without_values(tasks):
    task, classes = meant(tasks, [1, 3], {"label_info": [{"name": name} for name in ("liver", "lesion", "Milz")]})
    assert (task.name, classes) == ("phantom", {1: 1, 3: 3})


def test_a_name_of_one_bundle_alone_chooses_it(tasks):
    assert meant(tasks, [1], named(lesion=1))[0].name == "phantom"  # both have it: the first
    assert meant(tasks[::-1], [1], named(lesion=1))[1] == {1: 1}
    assert meant(tasks[::-1], [1, 2], named(lesion=1, liver=2))[1] == {1: 2, 2: 1}


def test_an_inference_names_its_model(tasks):
    assert meant(tasks, [1], {"model": "dermoscopy", "params": {}})[0].name == "dermoscopy"


def test_the_only_bundle_needs_no_names(tasks):
    assert meant(tasks[:1], [0, 4], {})[1] == {4: 4}


@pytest.mark.parametrize(
    ("info", "values", "message"),
    [
        ({}, [1], "names no classes, but 2 bundles"),
        (named(liver=1), [1, 2], r"holds \[2\]"),
        (named(liver=1, cyst=2), [1, 2], "liver, cyst are not all classes of one bundle"),
        ({"model": "phantom"}, [7], "phantom has 5 classes"),
        ({"label_info": {"liver": 1}}, [1], "label_info is no list"),
        ({"label_info": ["liver"]}, [1], "label_info is no list"),
        (named(liver="one"), [1], "label_info is no list"),
    ],
)
def test_what_nobody_knows_is_refused(tasks, info, values, message):
    with pytest.raises(PyrasegError, match=message):
        meant(tasks, values, info)


def test_codes_come_with_the_classes(tasks):
    assert [segment.type.value for segment in tasks[0].segments] == ["10200004", "52988006", "78961009", "64033007"]


def test_a_class_without_a_code_is_told_where_one_is_needed(tasks):
    uncoded = replace(tasks[0], terminology={})
    assert meant([uncoded], [4], {})[1] == {4: 4}
    with pytest.raises(PyrasegError, match="the terminology has none for liver, lesion, spleen, kidney"):
        _ = uncoded.segments
