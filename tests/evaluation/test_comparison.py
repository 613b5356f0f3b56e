# SPDX-License-Identifier: Apache-2.0
"""Differences of two models by hand and against the plain interval of the differences."""

import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.evaluation.bootstrap import compare, mean_interval, read_scores


def scores(dice: dict[tuple[str, str], float | None], **others: float) -> dict:
    rows = {}
    for (case, name), value in dice.items():
        text = "" if value is None else str(value)
        rows[case, name] = {"case": case, "class": name, "patient": case[0], "truth_voxels": "9", "dice": text}
        rows[case, name] |= {key: str(value) for key, value in others.items()}
    return rows


def test_classes_and_their_mean():
    first = scores({("a1", "x"): 0.9, ("a2", "x"): 0.8, ("b1", "x"): 0.7, ("a1", "y"): 0.5, ("b1", "y"): 0.6})
    second = scores({("a1", "x"): 0.8, ("a2", "x"): 0.8, ("b1", "x"): 0.5, ("a1", "y"): 0.6, ("b1", "y"): 0.8})
    x, y, mean = compare(first, second, metrics=["dice"], resamples=500)
    assert (x["class"], x["cases"], x["patients"], x["reliable"]) == ("x", 3, 2, False)
    assert x["difference"] == pytest.approx(0.1) and y["difference"] == pytest.approx(-0.15)
    assert mean["difference"] == pytest.approx((0.1 - 0.15) / 2) and mean["class"] == "mean"
    expected = mean_interval([0.1, 0.0, 0.2], patients="aab", resamples=500)
    assert (x["low"], x["high"]) == pytest.approx((expected.low, expected.high))


def test_twenty_patients_are_reliable():
    names = [(chr(97 + n), "x") for n in range(20)]
    random = np.random.default_rng(0)
    first = scores({name: 0.5 + 0.01 * random.random() for name in names})
    (row,) = compare(first, scores({name: 0.4 for name in names}), metrics=["dice"], resamples=100)
    assert row["reliable"] and row["low"] > 0.1


def test_what_one_model_missed_is_counted_and_left_out():
    first = scores({("a", "x"): 0.9, ("b", "x"): None, ("c", "x"): 0.7, ("d", "x"): None})
    second = scores({("a", "x"): 0.8, ("b", "x"): 0.4, ("c", "x"): 0.7, ("d", "x"): None})
    (row,) = compare(first, second, metrics=["dice"], resamples=100)
    assert (row["cases"], row["left_out"]) == (2, 1) and row["difference"] == pytest.approx(0.05)


def test_a_case_without_the_class_is_no_case():
    first = scores({("a", "x"): 0.9, ("b", "x"): 0.0, ("c", "x"): 0.7})
    first["b", "x"]["truth_voxels"] = "0"
    (row,) = compare(first, first, metrics=["dice"], resamples=100)
    assert row["cases"] == 2 and row["difference"] == row["high"] == 0


def test_other_cases_or_labels_are_refused():
    first = scores({("a", "x"): 0.9, ("b", "x"): 0.1})
    with pytest.raises(PyrasegError, match="1 of them are in one alone, such as b / x"):
        compare(first, scores({("a", "x"): 0.9}), metrics=["dice"])
    with pytest.raises(PyrasegError, match="The truth of a / x has 9 voxels in one evaluation and 8 in the other"):
        compare(first, scores({("a", "x"): 0.9, ("b", "x"): 0.1}, truth_voxels=8), metrics=["dice"])
    with pytest.raises(PyrasegError, match="No case has the metric 'hd95_mm'"):
        compare(first, first, metrics=["hd95_mm"])
    one = scores({("a", "x"): 0.9})
    with pytest.raises(PyrasegError, match="Fewer than two patients"):
        compare(one, one, metrics=["dice"])


def test_what_is_no_table_of_scores_is_refused(tmp_path):
    with pytest.raises(PyrasegError, match=r"There is no file .*Give the output folder of `evaluating`"):
        read_scores(tmp_path)
    (tmp_path / "scores.csv").write_text("case,class,dice\na,x,0.5\n")
    with pytest.raises(PyrasegError, match="lacks patient, truth_voxels"):
        read_scores(tmp_path)
    (tmp_path / "scores.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PyrasegError, match="cannot be read as a CSV file"):
        read_scores(tmp_path / "scores.csv")
