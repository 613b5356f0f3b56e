# SPDX-License-Identifier: Apache-2.0
"""The benchmark of clicks: its rival, its figures from curves, and the tables of the docs."""

import json

import numpy as np
import pytest

from benchmarks.clicks import BARS, PAGE, RESULTS, RIVAL, SEED, WAYS, by_random_walker, main, summary, tables
from bundle.pyraseg.evaluation import SimulatedUser


def test_the_random_walker_follows_clicks_of_both_kinds():
    columns, rows = np.indices((60, 60))
    truth = np.hypot(columns - 30, rows - 30) < 15
    plain = np.where(np.hypot(columns - 30, rows - 20) < 15, 0.97, 0.02)
    user = SimulatedUser(truth)
    answer = by_random_walker(plain, **RIVAL)
    errors = [int(((plain > 0.5) != truth).sum())]
    last = plain
    for _ in range(4):
        assert user.click(last > 0.5)
        last = answer(user, last)
        errors.append(int(((last > 0.5) != truth).sum()))
        assert all((last[int(column), int(row)] > 0.5) == kind for column, row, kind in user.clicks)
    assert {kind for *_, kind in user.clicks} == {True, False} and errors[-1] < errors[0] / 2


def test_clicks_to_a_bar_are_counted_from_curves():
    curves = np.array([[0.96, 0.96, 0.96], [0.5, 0.86, 0.91], [0.2, 0.3, 0.4], [0.8, 0.96, 0.9]])
    found = summary(curves, ["a", "b", "c", "d"])
    assert [dice[0] for dice in found["dice"]] == pytest.approx(curves.mean(axis=0).round(4).tolist(), abs=1e-4)
    assert {bar: (each["clicks"][0], each["never"]) for bar, each in found["bars"].items()} == {
        "0.85": ((0 + 1 + 2 + 1) / 4, 0.25),
        "0.90": ((0 + 2 + 2 + 1) / 4, 0.25),
        "0.95": ((0 + 2 + 2 + 1) / 4, 0.5),
    }


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_page_shows_the_results(file):
    report = json.loads(file.read_text())
    assert tables(report) in PAGE.read_text(encoding="utf-8")
    assert report["seed"] == SEED and report["part"] == ("validation" if "validation" in file.stem else "test")
    assert report["unprompted_equal"] and set(report["ways"]) <= set(WAYS)
    if "random walker" in report["ways"]:
        assert report["rival"] == RIVAL
    for way in report["ways"].values():
        assert len(way["dice"]) == report["clicks"] + 1 and list(way["bars"]) == [f"{bar:.2f}" for bar in BARS]
        assert way["dice"][0] == report["ways"]["network"]["dice"][0]


def test_tables_are_written_between_their_markers(tmp_path):
    page = tmp_path / "page.md"
    names = [file.stem for file in RESULTS.glob("*.json")]
    page.write_text("".join(f"<!-- begin {name} -->\n<!-- end {name} -->\n" for name in names))
    main(["--page", str(page)])
    assert page.read_text().count("| network |") == 2 * len(names) > 0
