# SPDX-License-Identifier: Apache-2.0
"""The simulation of the interval's coverage: what it draws, and the table of the docs from what it found."""

import json

import numpy as np
import pytest

from benchmarks.bootstrap_coverage import CASES, PAGE, RESULTS, coverage, main, table


@pytest.mark.parametrize("name", CASES)
def test_the_mean_that_is_called_true_is_true(name):
    draw, mean = CASES[name]
    scores, patients = draw(np.random.default_rng(0), 200_000)
    assert len(scores) == len(patients) and scores.mean() == pytest.approx(mean, abs=0.003)
    assert scores.min() >= 0 and scores.max() <= 1


def test_coverage_of_few_patients_lies_below_that_of_many():
    draw, mean = CASES["organ, one case a patient"]
    few, many = (coverage(draw, mean, patients=n, repeats=150, resamples=200, seed=1) for n in (3, 60))
    assert few["interval"] < 0.85 < many["interval"] and few["mean_width"] > many["mean_width"]


def test_page_shows_the_results():
    report = json.loads(RESULTS.read_text())
    assert table(report["rows"]) in PAGE.read_text(encoding="utf-8")
    assert report["repeats"] == 2000 and {row["patients"] for row in report["rows"]} >= {5, 20, 85}


def test_writes_results_and_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "benchmarks.bootstrap_coverage.measure", lambda repeats, resamples: json.loads(RESULTS.read_text())["rows"]
    )
    page, output = tmp_path / "page.md", tmp_path / "out" / "coverage.json"
    page.write_text("before\n<!-- begin coverage -->\n<!-- end coverage -->\nafter\n")
    main(["--page", str(page), "--output", str(output)])
    assert json.loads(output.read_text())["rows"] == json.loads(RESULTS.read_text())["rows"]
    assert page.read_text().startswith("before") and "| 300 |" in page.read_text()
    assert capsys.readouterr().out.startswith("Written to")
