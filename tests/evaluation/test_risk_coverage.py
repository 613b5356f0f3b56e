# SPDX-License-Identifier: Apache-2.0
import pytest

from bundle.pyraseg.evaluation.summary import risk_coverage


def test_by_hand():
    found = risk_coverage([0.5, 0.1, 0.3], [0.9, 0.0, 0.3])
    assert [point["coverage"] for point in found["curve"]] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [point["risk"] for point in found["curve"]] == pytest.approx([0, 0.15, 0.4])
    assert found["area"] == found["area_best"] == pytest.approx(0.55 / 3)
    assert found["area_random"] == pytest.approx(0.4)


def test_the_wrong_order_is_worse_than_none():
    found = risk_coverage([0.1, 0.5], [1.0, 0.0])
    assert found["area"] == pytest.approx(0.75)
    assert found["area"] > found["area_random"] > found["area_best"]


def test_equal_uncertainties_keep_the_order_of_the_cases():
    assert [point["risk"] for point in risk_coverage([0, 0], [0.2, 0.4])["curve"]] == pytest.approx([0.2, 0.3])
