# SPDX-License-Identifier: Apache-2.0
"""The benchmark of DICOM SEG types: what it measures is read back, and the page shows it."""

import json

import pytest

from benchmarks.seg_kinds import PAGE, RESULTS, WRITERS, ellipsoids, measure, table


def test_every_class_is_there():
    assert len(set(ellipsoids((40, 64, 64), 20).ravel().tolist())) > 18


@pytest.mark.slow
def test_a_small_one_is_read_by_others():
    rows = measure((12, 32, 24), 5)
    assert [row["name"] for row in rows] == list(WRITERS)
    assert all(row["highdicom_reads"] and row["dcmqi_reads"] and row["dciodvfy_errors"] == [] for row in rows)
    assert rows[2]["frames"] < rows[1]["frames"]


def test_page_shows_the_results():
    report = json.loads(RESULTS.read_text())
    assert table(report) in PAGE.read_text(encoding="utf-8")
    assert all(row["highdicom_reads"] and row["dcmqi_reads"] for row in report["results"])
