# SPDX-License-Identifier: Apache-2.0
"""What was measured of partial labels is what the docs say."""

import json

from benchmarks.partial_labels import ARMS, PAGE, RESULTS, table


def test_the_table_is_that_of_the_docs():
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert {of["arm"] for of in content["runs"]} == set(ARMS)
    assert table(content) in PAGE.read_text(encoding="utf-8")


def test_a_table_by_hand():
    dice = {"liver": 0.9, "lesion": 0.5, "spleen": 0.8, "kidney": 0.6}
    runs = [{"arm": arm, "dice": dice} for arm in ARMS] + [{"arm": "all", "dice": {**dice, "liver": 0.7}}]
    assert table({"runs": runs}).splitlines()[2] == "| all annotations | 0.800 | 0.500 | 0.800 | 0.600 | 0.675 |"
