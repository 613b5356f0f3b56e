# SPDX-License-Identifier: Apache-2.0
"""The page of the reviews in Chromium, from disk: it asks for nothing, complains of nothing, and fits a phone."""

import pytest

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg_tools.review.alarm import Rule
from bundle.pyraseg_tools.review.page import charts, moving_dice, moving_shares, write_review_report
from tests.helpers.browser import DESKTOP, PHONE, Watched, browsing
from tests.helpers.reviews import reviewed


def test_the_page_in_a_browser(tmp_path):
    reviews = [*reviewed("+" * 50), *reviewed("~" * 15 + "-" * 5, weights="f" * 12, start=50)]
    write_review_report(reviews, tmp_path, rule=Rule(least_dice=0.95))
    with browsing() as browser:
        for size in (DESKTOP, PHONE):
            watched = Watched(browser, tmp_path / "reviews.html", size=size)
            page = watched.page
            assert page.get_by_role("heading", name="The alarm rings").is_visible()
            assert page.locator("li.bad").count() == 2 and page.locator("svg.chart").count() == 2
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            watched.close()


def test_figures_move_over_the_last_results():
    """Of four results the last two at a time; a Dice is known where one of them was amended."""
    reviews = [*reviewed("++"), *reviewed("~", dice=0.6, start=2), *reviewed("~-", dice=0.8, start=3)]
    accepted, amended, rejected = moving_shares(reviews, 2)
    assert accepted == [(2, 1), (3, 0.5), (4, 0), (5, 0)]
    assert amended == [(2, 0), (3, 0.5), (4, 1), (5, 0.5)] and rejected == [(2, 0), (3, 0), (4, 0), (5, 0.5)]
    assert moving_dice(reviews, 2) == {"liver": [(3, 0.6), (4, 0.7), (5, 0.8)]}


def test_charts_say_where_another_model_begins():
    found = charts([*reviewed("++"), *reviewed("~-", weights="f" * 12, start=2)], 2)
    assert list(found) == ["Decisions, of the last 2", "Dice of result and correction, of those among the last 2"]
    assert all("pyraseg_phantom ffffffffffff" in chart for chart in found.values())


def test_without_corrections_there_is_no_dice():
    assert list(charts(reviewed("+-"), 20)) == ["Decisions, of the last 20"]


def test_nothing_to_show(tmp_path):
    with pytest.raises(PyrasegError, match="Nothing was reviewed"):
        write_review_report([], tmp_path, rule=Rule())
