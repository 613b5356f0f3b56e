# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the search for copies of volumes: its heads, its changes, and the tables of the docs."""

import json

import numpy as np
import pytest

from benchmarks.copies import CHANGES, PAGE, PEOPLE, RESULTS, SEED, SIZE, main, person, searched, table


@pytest.fixture(scope="module")
def people() -> list[np.ndarray]:
    return [person(index, 32) for index in range(4)]


def test_people_are_alike_but_not_the_same(people):
    assert (people[0] == person(0, 32)).all()
    correlations = np.corrcoef([head.ravel() for head in people])[np.triu_indices(4, 1)]
    assert correlations.min() > 0.5 and correlations.max() < 0.98


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_changes(people, name):
    copy = np.asarray(CHANGES[name](people[0]))
    assert copy.ndim == 3 and np.isfinite(copy).all() and copy.std() > 0
    assert copy.shape != people[0].shape or (copy != people[0]).any()


def test_a_pair_that_was_not_planted_is_told_as_false(people):
    volumes = [*people, people[1][::-1]]
    report, alike = searched(volumes, {(1, 4): "mirrored"})
    assert report["false_pairs"] == [] and (1, 4) in alike
    report, _ = searched(volumes, {})
    assert [pair["pair"] for pair in report["false_pairs"]] == [[1, 4]]


def test_page_shows_the_results():
    report = json.loads(RESULTS.read_text())
    assert table(report) in PAGE.read_text(encoding="utf-8")
    assert (report["seed"], report["people"], report["size"]) == (SEED, PEOPLE, SIZE)
    assert [copy["change"] for copy in report["copies"]] == list(CHANGES)


def test_writes_results_and_page(tmp_path, monkeypatch, capsys):
    stored = json.loads(RESULTS.read_text())
    monkeypatch.setattr("benchmarks.copies.measure", lambda people, size: {**stored, "people": people, "size": size})
    page, output = tmp_path / "page.md", tmp_path / "copies.json"
    page.write_text("before\n<!-- begin copies -->\n<!-- end copies -->\nafter\n")
    main(["--page", str(page), "--output", str(output)])
    assert json.loads(output.read_text())["copies"] == stored["copies"]
    assert page.read_text().startswith("before") and "| inverted |" in page.read_text()
    assert capsys.readouterr().out.startswith("Written to")
