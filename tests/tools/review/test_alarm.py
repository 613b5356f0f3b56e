# SPDX-License-Identifier: Apache-2.0
"""The alarm rings when fewer results are accepted than chance explains, and seldom otherwise."""

from math import comb

import numpy as np
import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.review.alarm import Rule, chance, judge
from tests.helpers.reviews import reviewed


@pytest.mark.parametrize(
    ("accepted", "counts"), [((40, 5), (50, 20)), ((45, 17), (50, 20)), ((3, 0), (5, 4)), ((0, 0), (6, 3))]
)
def test_the_probability_is_the_hypergeometric_sum(accepted, counts):
    (before, now), (first, last) = accepted, counts
    total = before + now
    ways = sum(comb(last, k) * comb(first, total - k) for k in range(now + 1))
    assert chance(accepted, counts) == pytest.approx(ways / comb(first + last, total), rel=1e-9)


def test_rings_when_fewer_are_accepted_and_says_how_many():
    (found,) = judge(reviewed("+" * 45 + "~" * 5 + "+" * 8 + "-" * 12), Rule())
    assert found.rings and found.text.startswith("all results: 8 of the last 20 accepted, 45 of the first 50: fewer")
    (found,) = judge(reviewed("+" * 45 + "~" * 5 + "+" * 18 + "-" * 2), Rule())
    assert not found.rings and "within chance" in found.text
    (found,) = judge(reviewed("-" * 50 + "+" * 20), Rule())
    assert not found.rings  # better is no alarm


def test_too_few_results_are_told():
    (found,) = judge(reviewed("+" * 69), Rule())
    assert not found.rings and found.text == "There are 69 results; the comparison begins at 70."


def test_one_scanner_rings_alone():
    """The other one hides it in all results; the level is shared by the three comparisons."""
    good = reviewed("+" * 200, scanner="Maker One")
    worse = reviewed("+" * 50 + "-" * 20, scanner="Maker Two", start=200)
    reviews = [*worse[:50], *good[:150], *worse[50:], *good[150:]]
    found = {one.text.partition(":")[0]: one for one in judge(reviews, Rule())}
    assert set(found) == {"all results", "scanner Maker One", "scanner Maker Two"}
    assert [name for name, one in found.items() if one.rings] == ["scanner Maker Two"]
    assert "level 0.017" in found["scanner Maker Two"].text


def test_false_alarms_are_as_rare_as_the_level_says():
    draws = np.random.default_rng(0).random((300, 70)) < 0.8
    rung = sum(chance((int(row[:50].sum()), int(row[50:].sum())), (50, 20)) < 0.05 for row in draws)
    assert rung / 300 <= 0.05


def test_the_dice_has_a_limit_of_its_own():
    rule = Rule(first=2, last=4, least_dice=0.8)
    reviews = [*reviewed("~~", dice=0.1), *reviewed("+~~+", dice=0.7, start=2)]
    assert [one.text for one in judge(reviews, rule) if one.rings] == [
        "liver: mean Dice 0.700 in 2 corrections, below 0.8."
    ]
    assert not any(one.rings for one in judge(reviews, Rule(first=2, last=4, least_dice=0.65)))
    assert len(judge(reviewed("+" * 6), rule)) == 1  # no correction, no Dice


@pytest.mark.parametrize("values", [{"first": 0}, {"last": 0}, {"level": 0}, {"level": 1}, {"least_dice": 1.5}])
def test_rules_that_cannot_be(values):
    with pytest.raises(PyrasegError, match="Give"):
        Rule(**values)


def test_the_rule_is_told_in_words():
    text = str(Rule(first=30, last=10, level=0.01, least_dice=0.8))
    assert "of the last 10 results" in text and "first 30" in text and "level 0.01" in text and "below 0.8" in text
    assert "No limit is set" in str(Rule())
