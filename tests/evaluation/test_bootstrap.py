# SPDX-License-Identifier: Apache-2.0
"""Bootstrap intervals against distributions that are known in closed form."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.evaluation.bootstrap import Interval, difference_interval, mean_interval


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize(("ones", "cases"), [(30, 100), (7, 50)])
def test_the_resampled_mean_of_zeros_and_ones_is_binomial(ones, cases, level):
    interval = mean_interval([1] * ones + [0] * (cases - ones), level=level, resamples=50_000)
    tails = binom.ppf([(1 - level) / 2, (1 + level) / 2], cases, ones / cases) / cases
    assert interval.mean == pytest.approx(ones / cases)
    assert [interval.low, interval.high] == pytest.approx(tails, abs=1.01 / cases)  # a step of the distribution


def test_many_values_have_the_interval_of_the_central_limit():
    scores = np.random.default_rng(1).beta(5, 2, size=2000)
    interval = mean_interval(scores)
    half = norm.ppf(0.975) * scores.std() / np.sqrt(len(scores))
    assert [interval.low, interval.high] == pytest.approx([scores.mean() - half, scores.mean() + half], abs=0.03 * half)


def test_a_patient_is_drawn_with_all_cases():
    of_patients = np.random.default_rng(2).random(40)
    twice = np.repeat(of_patients, 2)
    alone = mean_interval(of_patients)
    together = mean_interval(twice, patients=[f"p{n // 2}" for n in range(80)])
    assert together == alone  # a second copy of every case tells nothing new
    independent = mean_interval(twice)
    assert independent.high - independent.low == pytest.approx((alone.high - alone.low) / np.sqrt(2), rel=0.05)


def test_the_mean_is_over_cases_not_over_patients():
    assert mean_interval([0.0, 1.0, 1.0, 1.0], patients=["a", "b", "b", "b"]).mean == 0.75


def test_paired_scores_forget_what_is_hard_for_both():
    generator = np.random.default_rng(3)
    hardness, noise = generator.random(300), 0.01 * generator.standard_normal(300)
    ours, theirs = hardness + 0.02 + noise, hardness
    interval = difference_interval(ours, theirs)
    half = norm.ppf(0.975) * noise.std() / np.sqrt(300)
    assert interval.mean == pytest.approx(0.02 + noise.mean())
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.05)
    reverse = difference_interval(theirs, ours)
    assert [reverse.low, reverse.high] == pytest.approx([-interval.high, -interval.low], abs=0.1 * half)
    assert difference_interval(hardness + 0.25, hardness).high == pytest.approx(0.25)


def test_a_case_without_the_class_is_no_case():
    assert mean_interval([0.5, np.nan, 0.7, 0.9, np.nan], patients=list("aabcd")) == mean_interval([0.5, 0.7, 0.9])
    assert difference_interval([0.5, np.nan, 0.7], [0.4, 0.2, 0.3]) == difference_interval([0.5, 0.7], [0.4, 0.3])


def test_the_same_seed_gives_the_same_interval():
    scores = np.random.default_rng(4).random(30)
    assert mean_interval(scores, seed=5) == mean_interval(scores, seed=5) != mean_interval(scores, seed=6)


def test_what_has_no_interval_is_refused():
    with pytest.raises(PyrasegError, match="with a score are 1"):
        mean_interval([0.5, 0.6], patients=["a", "a"])
    with pytest.raises(PyrasegError, match="with a score are 0"):
        mean_interval([np.nan, np.nan])
    with pytest.raises(PyrasegError, match="3 patients for scores of shape"):
        mean_interval([0.5, 0.6], patients="abc")
    with pytest.raises(PyrasegError, match="not of the same cases"):
        difference_interval([0.5], [0.4, 0.6])


def test_an_interval_reads_as_reports_write_it():
    assert str(Interval(0.81234, 0.79, 0.8349)) == "0.812 [0.790, 0.835]"
