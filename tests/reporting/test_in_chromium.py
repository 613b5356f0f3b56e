# SPDX-License-Identifier: Apache-2.0
"""The report as a reader uses it: in Chromium, from disk, by mouse and by keyboard, on a desk and on a phone."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from bundle.pyraseg.reporting.page import write_report
from tests.helpers.browser import PHONE, Watched, browsing
from tests.helpers.evaluations import evaluate, photograph, volume
from tests.helpers.training_runs import write_log

NONE = "\N{EN DASH}"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as found:
        yield found


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a file; afterwards no page may have complained or asked for anything else."""
    opened = []

    def open_page(file: Path, **options: object) -> Page:
        opened.append(Watched(browser, file, **options))
        return opened[-1].page

    yield open_page
    for page in opened:
        page.close()


@pytest.fixture
def page(visit, evaluation, tmp_path) -> Page:
    return visit(write_report(evaluation, training_dir=write_log(tmp_path / "runs")))


def names(page: Page) -> list[str]:
    return page.locator("#list .open span").all_inner_texts()


def choice(page: Page, name: str) -> Locator:
    return page.get_by_role("combobox", name=name, exact=True)


def cells(page: Page, heading: str) -> list[str]:
    """Return a column of the list."""
    return page.locator(f'#list td[data-label="{heading}"]').all_inner_texts()


def test_the_worst_cases_come_first_and_a_click_turns_them_round(page):
    """case_10 is shifted most; case_11 has nothing to score and comes last either way."""
    page.get_by_role("button", name="Show more").click()
    dice = [float(text) for text in cells(page, "mean Dice")[:-1]]
    assert dice == sorted(dice) and names(page)[-1] == "case_11/ct" and cells(page, "mean Dice")[-1] == NONE
    heading = page.get_by_role("columnheader", name="mean Dice")
    expect(heading).to_have_attribute("aria-sort", "ascending")
    heading.get_by_role("button").click()
    expect(heading).to_have_attribute("aria-sort", "descending")
    page.get_by_role("button", name="Show more").click()
    assert [float(text) for text in cells(page, "mean Dice")[:-1]] == dice[::-1] and names(page)[-1] == "case_11/ct"


def test_names_are_sorted_as_people_count(page):
    page.get_by_role("columnheader", name="Case").get_by_role("button").click()
    assert names(page) == [f"case_{number:02d}/ct" for number in range(10)]
    choice(page, "Sort by").select_option("Case: Z to A")
    assert names(page)[0] == "case_11/ct"


def test_distances_are_worst_where_they_are_largest_or_unmeasurable(page):
    """case_03 missed the lesion, case_02 made one up: neither has a distance, both lead the list of the lesion."""
    choice(page, "Figure").select_option("HD95 (mm)")
    liver = page.get_by_role("columnheader", name="liver")
    liver.get_by_role("button").click()
    found = [float(text) for text in cells(page, "liver")]
    assert found == sorted(found, reverse=True) and found[0] > 3
    page.get_by_role("columnheader", name="lesion").get_by_role("button").click()
    assert set(names(page)[:2]) == {"case_02/ct", "case_03/ct"}


def test_filters(page):
    count = page.get_by_role("status")
    expect(count).to_have_text("12 of 12 cases")
    page.get_by_label("Name").fill("CASE_1")
    expect(count).to_have_text("2 of 12 cases")
    page.get_by_role("button", name="Clear").click()
    expect(count).to_have_text("12 of 12 cases")
    choice(page, "site").select_option("south")
    expect(count).to_have_text("5 of 12 cases")
    assert set(cells(page, "site")) == {"south"}
    page.get_by_role("button", name="Clear").click()
    choice(page, "Which is").select_option("missed")
    assert names(page) == ["case_03/ct"] and "missed" in cells(page, "lesion")[0]
    choice(page, "Which is").select_option("a false alarm")
    assert names(page) == ["case_02/ct"] and "false alarm" in cells(page, "lesion")[0]
    page.get_by_role("button", name="Clear").click()
    choice(page, "Class").select_option("liver")
    page.get_by_label("Worse than").fill("0.7")
    assert names(page) and all(float(text) < 0.7 for text in cells(page, "liver"))
    page.get_by_label("Name").fill("no such case")
    expect(count).to_have_text("0 of 12 cases")


def test_a_case_opens_its_slider_moves_and_outlines_can_be_put_out(page, evaluation):
    page.get_by_role("button", name="case_10/ct").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("case_10/ct")
    expect(dialog.locator("#where")).to_have_text(re.compile(r"^\d of 8$"))
    slider, image = dialog.get_by_label("Slice"), dialog.locator("#stage image")
    before, seen = image.get_attribute("href"), set()
    for value in range(5):
        slider.fill(str(value))
        expect(dialog.locator("#where")).to_have_text(f"{value + 3} of 8")  # the liver is in slices 3 to 7
        seen.add(dialog.locator("#stage path.outline").first.get_attribute("d"))
    assert before.startswith("data:image/webp;base64,")
    truth, prediction = dialog.locator("#stage .outline.truth"), dialog.locator("#stage .outline.prediction")
    expect(truth).to_have_count(1)
    style = "element => getComputedStyle(element).strokeDasharray"
    assert truth.evaluate(style) == "none" and prediction.evaluate(style) != "none"  # not by color alone
    dialog.get_by_role("checkbox", name="truth").uncheck()
    expect(truth).to_have_count(0)
    expect(prediction).to_have_count(1)
    dialog.get_by_role("checkbox", name="liver").uncheck()
    expect(prediction).to_have_count(0)
    figures = json.loads((evaluation / "summary.json").read_text())["classes"]["liver"]["metrics"]["dice"]["values"]
    row = dialog.get_by_role("row", name="Dice").first
    assert row.get_by_role("cell").first.inner_text() == f"{min(figures):.3f}"


def test_outlines_lie_where_the_organ_is_seen(page):
    """The picture as Chromium paints it: within the outline of the truth it is brighter than around it."""
    page.get_by_role("button", name="case_10/ct").click()
    inside, around = page.evaluate(
        """async () => {
          const image = document.querySelector("#stage image"), path = document.querySelector("#stage .outline.truth");
          const picture = new Image(); picture.src = image.getAttribute("href"); await picture.decode();
          const [width, height] = ["width", "height"].map((name) => Number(image.getAttribute(name)));
          const pen = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
          pen.drawImage(picture, 0, 0, width, height);
          const pixels = pen.getImageData(0, 0, width, height).data, shape = new Path2D(path.getAttribute("d"));
          const sums = [[0, 0], [0, 0]];
          for (let y = 0; y < height; y += 4) for (let x = 0; x < width; x += 4) {
            const to = sums[pen.isPointInPath(shape, x, y) ? 0 : 1];
            to[0] += pixels[4 * (y * width + x)]; to[1] += 1;
          }
          return sums.map(([sum, count]) => sum / count);
        }"""
    )
    assert inside > 160 and around < 85


def test_previous_and_next_follow_the_list(page):
    first, second = names(page)[:2]
    page.get_by_role("button", name=first).click()
    dialog, previous = page.get_by_role("dialog"), page.get_by_role("button", name="Previous")
    expect(previous).to_be_disabled()
    dialog.get_by_role("button", name="Next").click()
    expect(dialog.get_by_role("heading")).to_have_text(second)
    expect(dialog.get_by_role("button", name="Next")).to_be_focused()
    previous.click()
    expect(dialog.get_by_role("heading")).to_have_text(first)
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()


def test_a_dot_of_a_box_plot_opens_its_case(page):
    page.locator("#distributions circle[data-case='7']").first.click(force=True)
    expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text("case_07/ct")


def test_all_of_it_by_keyboard(page):
    """Tab to a heading and sort, to a filter and choose, to a case and open it, move its slider, close it again."""

    def tab_to(selector: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
                return
        raise AssertionError(f"{selector} cannot be reached by Tab")

    tab_to("#name")
    page.keyboard.type("case_0")
    expect(page.get_by_role("status")).to_have_text("10 of 12 cases")
    tab_to("#state")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("status")).to_have_text("10 of 12 cases")  # in the truth: all but case_11
    tab_to('th[data-key="name"] button')
    page.keyboard.press("Enter")
    assert names(page)[0] == "case_00/ct"
    assert page.evaluate("document.activeElement.textContent") == "Case"  # the focus stays on the heading
    page.keyboard.press("Space")
    assert names(page)[0] == "case_09/ct"
    tab_to("#list .open")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Slice")).to_be_focused()
    page.keyboard.press("Home")
    expect(dialog.locator("#where")).to_have_text("3 of 8")
    page.keyboard.press("ArrowRight")
    expect(dialog.locator("#where")).to_have_text("4 of 8")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert page.evaluate("document.activeElement.textContent") == "case_09/ct"


def test_on_a_phone_nothing_is_wider_than_the_screen(visit, evaluation, tmp_path):
    report = write_report(evaluation, training_dir=write_log(tmp_path / "runs"))
    page = visit(report, size=PHONE, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    choice(page, "Sort by").select_option("liver: best first")
    assert names(page)[:2] == ["case_00/ct", "case_01/ct"]
    page.get_by_role("button", name="case_00/ct").tap()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("#stage svg")).to_be_visible()
    assert dialog.evaluate("element => element.scrollWidth <= element.clientWidth")
    assert dialog.locator("#stage svg").bounding_box()["width"] > 300
    dialog.get_by_role("button", name="Close").tap()
    expect(dialog).to_be_hidden()


def test_photographs_have_no_slider(visit, tmp_path):
    cases = [photograph(f"images/{number}.png", shift=number) for number in range(3)]
    page = visit(write_report(evaluate(tmp_path.resolve(), cases, class_names=["background", "skin", "lesion"])))
    page.get_by_role("button", name="images/2.png").click()
    expect(page.get_by_label("Slice")).to_be_hidden()
    expect(page.locator("#stage .outline.truth")).to_have_count(1)


def test_one_class_has_no_mean_over_classes(visit, tmp_path):
    cases = [photograph(f"{number}.png", shift=number) for number in range(3)]
    for case in cases:
        case.truth[case.truth == 2], case.prediction[case.prediction == 2] = 1, 1
    page = visit(write_report(evaluate(tmp_path.resolve(), cases, class_names=["background", "lesion"])))
    assert names(page) == ["2.png", "1.png", "0.png"]
    headings = page.locator("#list thead th").all_inner_texts()
    assert [heading.split()[0] for heading in headings] == ["Case", "patient", "lesion", "uncertainty", "site"]
    page.get_by_label("Worse than").fill("0.99")
    assert names(page) == ["2.png", "1.png"]


def test_a_study_without_figures_or_pictures_opens(visit, tmp_path):
    case = volume("a/ct", shift=0)
    case.truth[:], case.prediction[:] = 0, 0
    folder = evaluate(tmp_path.resolve(), [case])
    (folder / "pictures.json").unlink()
    page = visit(write_report(folder))
    page.get_by_role("button", name="a/ct").click()
    expect(page.get_by_role("dialog")).to_contain_text("There is no picture of this case.")


def test_hostile_names_are_text(visit, tmp_path):
    names_of_cases = ["</script><script>throw 1</script>", "<img src=http:x onerror=throw>", "'\"&lt;\u2028"]
    cases = [volume(name.replace("/", "\\"), shift=1, site=name) for name in names_of_cases]
    page = visit(write_report(evaluate(tmp_path.resolve(), cases, class_names=["background", "<b>liver", "lesion"])))
    assert {name.replace("\u2028", " ") for name in names(page)} == {case.name.replace("\u2028", " ") for case in cases}
    for place in range(3):
        page.locator("#list .open").nth(place).click()
        page.keyboard.press("Escape")
    choice(page, "site").select_option(index=2)
    expect(page.get_by_role("status")).to_have_text("1 of 3 cases")


@pytest.mark.slow
def test_200_cases_of_real_size_open_and_sort(visit, large_evaluation):
    page = visit(write_report(large_evaluation))
    expect(page.get_by_role("status")).to_have_text("200 of 200 cases")
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("#list tbody tr")).to_have_count(20)
    page.get_by_role("columnheader", name="liver").get_by_role("button").click()
    page.locator("#list .open").first.click()
    expect(page.locator("#stage svg")).to_be_visible()
