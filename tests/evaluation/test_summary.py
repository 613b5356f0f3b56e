# SPDX-License-Identifier: Apache-2.0
"""What the rows of all cases come to, by hand."""

import math

import pytest

from bundle.pyraseg.evaluation.bootstrap import mean_interval
from bundle.pyraseg.evaluation.cases import LESIONS, METRICS, SIZES
from bundle.pyraseg.evaluation.summary import (
    FEW_PATIENTS,
    by_column,
    figure,
    mean_dice_of_cases,
    summarize_rows,
    thirds,
)

NONE = dict.fromkeys((*METRICS, *SIZES, *LESIONS), math.nan)
NAMES = ["liver", "lesion"]


def row(case: str, name: str, dice: float, *, truth: int = 10, predicted: int = 10, **others) -> dict:
    known = {"case": case, "class": name, "patient": others.pop("patient", case)}
    return NONE | known | {"dice": dice, "truth_voxels": truth, "predicted_voxels": predicted} | others


ROWS = [
    row("a", "liver", 0.8, truth=5),
    row("a", "lesion", math.nan, truth=0, predicted=0),
    row("b", "liver", 0.6, truth=7),
    row("b", "lesion", 0.0, truth=0, predicted=3),  # a false alarm
    row("c", "liver", 0.0, truth=9, predicted=0),  # missed
    row("c", "lesion", 0.5),
]


def test_classes_by_hand():
    found = summarize_rows(ROWS, [], NAMES, resamples=100)
    liver, lesion = found["classes"]["liver"], found["classes"]["lesion"]
    assert {key: liver[key] for key in ("cases", "absent", "false_alarms", "missed")} == {
        "cases": 3, "absent": 0, "false_alarms": 0, "missed": 1,
    }  # fmt: skip
    assert liver["metrics"]["dice"]["mean"] == pytest.approx(1.4 / 3)
    assert liver["metrics"]["dice"]["values"] == pytest.approx([0, 0.6, 0.8])
    assert liver["truth_size"] == {"low": 5, "median": 7, "high": 9, "unit": "px"}
    assert {key: lesion[key] for key in ("cases", "absent", "false_alarms", "missed")} == {
        "cases": 1, "absent": 2, "false_alarms": 1, "missed": 0,
    }  # fmt: skip
    only = lesion["metrics"]["dice"]
    assert (only["mean"], only["low"], only["high"], only["patients"]) == (0.5, None, None, 1)
    assert set(lesion["metrics"]) == {"dice"}  # of the others no case has a value
    assert found["mean"]["dice"]["mean"] == pytest.approx((1.4 / 3 + 0.5) / 2)


def test_the_interval_is_the_bootstraps_and_marked_below_20_patients():
    scores = [n / 40 for n in range(2 * FEW_PATIENTS)]
    patients = [f"p{n // 2}" for n in range(2 * FEW_PATIENTS)]
    many = figure(scores, patients, resamples=500)
    expected = mean_interval(scores, patients=patients, resamples=500)
    assert (many["mean"], many["low"], many["high"]) == (expected.mean, expected.low, expected.high)
    assert many["reliable"] and many["cases"] == 40 and "values" not in many
    few = figure(scores[2:], patients[2:], resamples=500)
    assert not few["reliable"] and few["patients"] == 19
    assert few["values"] == pytest.approx([(scores[n] + scores[n + 1]) / 2 for n in range(2, 40, 2)])
    assert figure([math.nan], ["p1"], resamples=10) is None


def test_detection_is_over_lesions_and_false_positives_over_all_cases():
    counts = [(0, 0, 2), (3, 2, 1), (1, 1, 0)]
    rows = [
        row(f"c{n}", "lesion", 0.5, truth=there, lesions=there, lesions_found=found, false_positive_lesions=extra)
        for n, (there, found, extra) in enumerate(counts)
    ]
    lesions = [
        {"case": case, "class": "lesion", "patient": case, "size": size, "found": found}
        for case, size, found in (("c1", 0.1, 0), ("c1", 2.0, 1), ("c1", 3.0, 1), ("c2", 1.0, 1))
    ]
    found = summarize_rows(rows, lesions, NAMES, resamples=100)["classes"]["lesion"]["detection"]
    assert (found["lesions"], found["found"]) == (4, 3)
    assert found["sensitivity"]["mean"] == 0.75 and found["sensitivity"]["patients"] == 2
    assert found["false_positives_per_case"]["mean"] == 1.0 and found["false_positives_per_case"]["cases"] == 3
    assert found["by_size"]["smallest third"]["sizes"] == [0.1, 1.0]
    assert found["by_size"]["smallest third"]["sensitivity"]["mean"] == 0.5
    assert found["by_size"]["largest third"]["sizes"] == [3.0, 3.0]


def test_thirds():
    assert thirds([5, 1, 4, 2, 3]) == {"smallest third": [1, 3], "middle third": [4, 2], "largest third": [0]}
    assert thirds([1, 2]) == {}


def test_groups_of_a_column():
    sites = {"a": "north", "b": "north", "c": None}
    rows = [{**r, "site": sites[r["case"]]} for r in ROWS]
    found = by_column(rows, [], NAMES, "site", resamples=100)
    assert list(found) == ["north", "not stated"]
    assert found["north"]["classes"]["liver"]["metrics"]["dice"]["mean"] == pytest.approx(0.7)
    assert found["north"]["classes"]["lesion"]["false_alarms"] == 1
    assert found["not stated"]["classes"]["liver"]["missed"] == 1


def test_groups_of_sizes_are_of_each_class():
    found = by_column(ROWS, [], NAMES, "size", resamples=100)
    dice = [of["classes"]["liver"]["metrics"]["dice"]["mean"] for of in found.values()]
    assert list(found) == ["smallest third", "middle third", "largest third"] and dice == [0.8, 0.6, 0]
    assert all(set(of["classes"]) == {"liver"} for of in found.values())  # one case has a lesion: no thirds
    ml = [{**r, "truth_ml": 100 - r["truth_voxels"]} for r in ROWS]
    found = by_column(ml, [], NAMES, "size", resamples=100)
    assert found["smallest third"]["classes"]["liver"]["metrics"]["dice"]["mean"] == 0


def test_a_false_alarm_counts_for_the_case_that_a_person_should_see():
    assert mean_dice_of_cases(ROWS) == pytest.approx({"a": 0.8, "b": 0.3, "c": 0.25})
    assert math.isnan(mean_dice_of_cases([row("d", "liver", math.nan, truth=0, predicted=0)])["d"])
