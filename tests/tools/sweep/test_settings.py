# SPDX-License-Identifier: Apache-2.0
"""The combinations of a sweep, and the names of their folders."""

import itertools

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.sweep.settings import Setting, grid, parse_choices


def test_every_combination_comes_once_and_has_a_folder_of_its_own():
    choices = parse_choices(["learning_rate=0.001,2e-3", "plan#stages#0#warm_up=0,0.1", "encoder=resnet18,resnet34"])
    found = [tuple(setting.values.values()) for setting in grid(choices)]
    expected = [*itertools.product((0.001, 0.002), (0, 0.1), ("resnet18", "resnet34"))]
    assert found == expected
    folders = [setting.folder for setting in grid(choices)]
    assert len(set(folders)) == 8 and not any(set("#/\\ :") & set(name) for name in folders)


def test_no_choice_is_the_one_setting_of_the_config():
    assert [setting.values for setting in grid(parse_choices([]))] == [{}]


def test_the_order_of_options_is_no_other_folder_for_short_names():
    one, other = Setting({"a": 1, "b": 2}), Setting({"b": 2, "a": 1})
    assert one.folder[-8:] == other.folder[-8:]


def test_long_values_are_told_apart():
    first, second = (Setting({"windows": ["soft_tissue"] * 30 + [last]}) for last in ("bone", "lung"))
    assert first.folder != second.folder and len(first.folder) < 80


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("pool_sizes=[1,2],[1,3]", [[1, 2], [1, 3]]),
        ("windows=['bone'],[{'center': 90, 'width': 180}, 'lung']", [["bone"], [{"center": 90, "width": 180}, "lung"]]),
        ("amp=true,false", [True, False]),
        ("patience=null,3", [None, 3]),
        ("start_from=models/a.pt,models/123", ["models/a.pt", "models/123"]),
        ('note="a, b",c', ["a, b", "c"]),
    ],
)
def test_values_are_read_as_those_of_a_command_line(text, values):
    assert [*parse_choices([text]).values()] == [values]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["learning_rate"], "no choice of values"),
        (["learning_rate="], "no choice of values"),
        (["learning_rate=0.1,"], "no choice of values"),
        (["=3"], "no choice of values"),
        (["learning_rate=0.1,1e-1"], "takes the value 0.1 twice"),
        (["learning_rate=0.1", "learning_rate=0.2"], "is set twice"),
    ],
)
def test_what_is_no_choice_is_refused(words, message):
    with pytest.raises(PyrasegError, match=message):
        parse_choices(words)
