# SPDX-License-Identifier: Apache-2.0
"""Shares and their intervals against the beta distribution that they are defined by, groups, and the Dice."""

import math

import numpy as np
import pytest
from scipy.stats import beta

from bundle.pyraseg_tools.review.figures import all_figures, dice_figure, figures_of, share
from tests.helpers.reviews import reviewed


@pytest.mark.parametrize(("count", "of"), [(0, 12), (3, 10), (17, 40), (25, 25)])
def test_intervals_are_exact(count, of):
    """Clopper and Pearson: quantiles of beta distributions; at the ends 1 - (alpha / 2) ** (1 / n)."""
    found = share(count, of)
    low = 0 if count == 0 else beta.ppf(0.025, count, of - count + 1)
    high = 1 if count == of else beta.ppf(0.975, count + 1, of - count)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-9)
    assert found["mean"] == count / of and found["reliable"] == (of >= 20)
    if count == 0:
        assert high == pytest.approx(1 - 0.025 ** (1 / of))


def test_figures_of_groups():
    reviews = [*reviewed("++~"), *reviewed("~-", scanner="Maker Two", weights="f" * 12, dice=0.5, start=40)]
    found = all_figures(reviews)
    assert list(found["month"]) == ["2026-01", "2026-02"]
    assert {name: of["results"] for name, of in found["scanner"].items()} == {"Maker One": 3, "Maker Two": 2}
    assert list(found["model"]) == ["pyraseg_phantom 0123456789ab", "pyraseg_phantom ffffffffffff"]
    one = found["scanner"]["Maker One"]
    assert one["shares"]["accepted"]["mean"] == pytest.approx(2 / 3) and one["shares"]["rejected"]["count"] == 0
    assert one["dice"]["liver"]["mean"] == 0.9 and one["dice"]["liver"]["low"] is None
    assert found["all"]["all"]["dice"]["liver"]["mean"] == pytest.approx(0.7)


def test_the_interval_of_the_dice_is_about_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(0.8, 0.05, 400)
    found = dice_figure(list(values), [str(number) for number in range(400)])
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_results_of_one_image_count_as_one():
    assert dice_figure([0.5, 0.7, 0.9], ["2.25.1"] * 3)["low"] is None


def test_only_corrections_have_a_dice():
    assert figures_of(reviewed("++-"))["dice"] == {}
