# SPDX-License-Identifier: Apache-2.0
"""Charts against what NumPy says of the same values."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from bundle.pyraseg.figures.charts import DASHES, WIDTH, Axis, Box, Line, box_plot, line_chart

VALUES = [0.2, 0.5, 0.6, 0.61, 0.7, 0.72, 0.8]


def parts(svg: str, kind: str) -> list[dict[str, str]]:
    """Return the attributes of the elements of a class, or of a tag."""
    found = [element.attrib for element in ElementTree.fromstring(svg).iter()]
    tags = [element.tag for element in ElementTree.fromstring(svg).iter()]
    return [of for tag, of in zip(tags, found, strict=True) if kind in (tag, of.get("class"))]


def horizontal(svg: str) -> Axis:
    """Return the axis of a chart, from the places of its ticks."""
    texts = [(float(of.get("x")), of.text) for of in ElementTree.fromstring(svg).iter("text")]
    ticks = [(x, float(text)) for x, text in texts if text.replace(".", "").replace("-", "").isdigit()]
    return np.poly1d(np.polyfit([value for _, value in ticks], [x for x, _ in ticks], 1))


def test_a_box_has_the_quartiles_the_median_and_whiskers():
    svg = box_plot("Dice", [Box("liver", "#e69f00", VALUES, range(7), (0.59, 0.45, 0.7))])
    at = horizontal(svg)
    q1, median, q3 = np.percentile(VALUES, [25, 50, 75])
    low = min(value for value in VALUES if value >= q1 - 1.5 * (q3 - q1))
    (box,), (middle,) = parts(svg, "box"), parts(svg, "median")
    whisker, second, rest = box["d"].split("M")[1:]
    assert [float(x) for x in (whisker.split()[0], whisker.split("H")[1])] == pytest.approx([at(low), at(q1)], abs=0.2)
    assert float(second.split()[0]) == pytest.approx(at(q3), abs=0.2)
    assert float(second.split("H")[1]) == pytest.approx(at(max(VALUES)), abs=0.2)
    assert float(rest.split("H")[1].split("V")[0]) == pytest.approx(at(q3), abs=0.2)
    assert float(middle["d"][1:].split()[0]) == pytest.approx(at(median), abs=0.2)
    dots = parts(svg, "circle")
    assert [float(dot["cx"]) for dot in dots] == pytest.approx([at(value) for value in VALUES], abs=0.2)
    assert [int(dot["data-case"]) for dot in dots] == list(range(7))


def test_everything_stays_inside():
    boxes = [Box("a class with a very long name", "#000", [-512.25, 1000.0], [0, 1], (300.0, -800.0, 1300.0))]
    lines = [Line("loss", "#fff", [(1, 0.00001), (12, 0.00123)])]
    for svg in (box_plot("volume", boxes), line_chart("rate", lines, x_name="epoch", y_name="rate")):
        height = float(ElementTree.fromstring(svg).get("viewBox").split()[3])
        for text in ElementTree.fromstring(svg).iter("text"):
            length, x = 7 * len(text.text), float(text.get("x"))
            left = x - {"start": 0, "middle": length / 2, "end": length}[text.get("text-anchor")]
            assert left >= 0 and left + length <= WIDTH and 0 < float(text.get("y")) < height, text.text


def test_a_mark_before_the_first_point_stays_on_the_axis():
    lines = [Line("dice", "#fff", [(2, 0.5), (12, 0.9)])]
    svg = line_chart("Dice", lines, x_name="epoch", y_name="Dice", marks=[(1.5, "all parts")], whole=True)
    (mark,), start = parts(svg, "mark"), float(parts(svg, "grid")[-1]["d"][1:].split()[0])
    assert start <= float(mark["d"][1:].split()[0]) <= WIDTH


@pytest.mark.parametrize("values", [[], [0.5]])
def test_classes_with_no_or_one_value_are_drawn(values):
    svg = box_plot("Dice", [Box("liver", "#e69f00", values, range(len(values)), None)])
    assert len(parts(svg, "circle")) == len(values)


def test_lines_differ_in_dashes_and_pass_through_their_points():
    lines = [Line(name, "#fff", [(1, 0.1 * number), (2, 0.5), (4, 0.9)]) for number, name in enumerate("abcdefg")]
    svg = line_chart("Dice", lines, x_name="epoch", y_name="Dice", whole=True)
    drawn = parts(svg, "line")[::1]
    assert {line["stroke-dasharray"] for line in drawn} == set(DASHES) and len(DASHES) == len(lines)
    curves = [line["d"] for line in drawn if line["d"].count("L") == 2]
    assert len(curves) == 7
    x = [float(point.split()[0]) for point in curves[0][1:].split("L")]
    assert (x[2] - x[0]) == pytest.approx(3 * (x[1] - x[0]), abs=0.2)


def test_what_counts_has_whole_ticks():
    assert all(tick == round(tick) for tick in Axis([1, 12], 0, 100, whole=True).ticks)
    assert all(tick == round(tick) for tick in Axis([1, 2], 0, 100, whole=True).ticks)


def test_names_are_escaped():
    svg = box_plot("<b>", [Box("<script>", "#000", [1.0], [0])])
    assert "<script>" not in svg and [text.text for text in ElementTree.fromstring(svg).iter("text")][-1] == "<script>"
