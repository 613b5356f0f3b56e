# SPDX-License-Identifier: Apache-2.0
"""The page shows what a click takes, and it is within what was promised."""

import json

from benchmarks.click_speed import PAGE, RESULTS, table


def test_page_shows_the_results():
    report = json.loads(RESULTS.read_text())
    assert table(report) in PAGE.read_text(encoding="utf-8")
    clicks = {(row["form"], row["side"]): row["click_processor_ms"] for row in report["rows"]}
    assert report["threads"] == 1 and report["repeats"] == 30 and clicks["float", 256] < 60
