# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG, for a dark page: colors never tell alone, rows have names and lines have dashes."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.cbook import boxplot_stats
from matplotlib.ticker import MaxNLocator

WIDTH = 400
RIGHT = 22  # right margin: half of the last tick's text
ROW = 36  # height of a box with its points
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "2 6", "5 2 2 2 2 2")
CHARACTER = 7.0  # width of one at most, in the page's font at 12 units


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Args:
        name: for the legend.
        color: as SVG knows them.
        points: (x, y) each, ascending in x.
    """

    name: str
    color: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Box:
    """The values of a class.

    Args:
        name: of the row.
        color: as SVG knows them.
        values: that are drawn as dots.
        cases: whose they are, for a click on a dot.
        mean: of the values and the ends of its interval; None where there is none.
    """

    name: str
    color: str
    values: Sequence[float]
    cases: Sequence[int]
    mean: tuple[float, float | None, float | None] | None = None


class Axis:
    """Places of values between two ends of a chart, and the ticks there."""

    def __init__(self, values: Sequence[float], start: float, end: float, *, whole: bool = False) -> None:
        low, high = min(values), max(values)
        if low == high:
            low, high = low - 0.5, high + 0.5
        ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
        self.ticks = [float(tick) for tick in ticks]
        self.low, self.high = self.ticks[0], self.ticks[-1]
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def box_plot(title: str, boxes: Sequence[Box]) -> Markup:
    """Draw a row a class: box from quartile to quartile, whiskers, a dot a case, the mean with its interval below.

    Whiskers reach the furthest values within 1.5 times the box. Classes without values stay empty.
    """
    left = 14 + CHARACTER * min(18, max(len(box.name) for box in boxes))
    height = 8 + ROW * len(boxes)
    ends = [end for box in boxes if box.mean for end in box.mean if end is not None]
    values = [value for box in boxes for value in box.values] + ends
    axis = Axis(values or [0, 1], left, WIDTH - RIGHT)
    parts = [_x_axis(axis, 4, height)]
    for number, box in enumerate(boxes):
        middle = 4 + ROW * (number + 0.5)
        parts.append(_text(left - 8, middle + 4, _short(box.name, 18), anchor="end"))
        if len(box.values):
            parts.append(_box(axis, middle, box))
        if box.mean:
            parts.append(_mean(axis, middle + 11, *box.mean))
    return _svg(title, height + 22, parts)


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_name: str,
    y_name: str,
    marks: Sequence[tuple[float, str]] = (),
    diagonal: bool = False,
    whole: bool = False,
) -> Markup:
    """Draw lines over an axis from 0 (unless they are negative), with a legend below.

    Args:
        title: read to those who cannot see the chart.
        lines: at least one with a point.
        x_name: of the axis.
        y_name: of the axis, above it.
        marks: places on x with a vertical line, and what it stands for.
        diagonal: whether to draw what would be right, y = x.
        whole: whether x counts something.
    """
    points = [point for line in lines for point in line.points]
    bottom = 220
    y = Axis([point[1] for point in points] + [0] + [1] * diagonal, bottom, 26)
    left = 14 + CHARACTER * max(len(f"{tick:g}") for tick in y.ticks)
    across = [point[0] for point in points] + [place for place, _ in marks] + [0, 1] * diagonal
    x = Axis(across, left, WIDTH - RIGHT, whole=whole)
    parts = [_x_axis(x, 26, bottom, name=x_name), _text(4, 14, y_name)]
    for tick in y.ticks:
        parts.append(Markup('<path class="grid" d="M{:.1f} {:.1f}H{:.1f}"/>').format(x.start, y(tick), x.end))
        parts.append(_text(x.start - 6, y(tick) + 4, f"{tick:g}", anchor="end"))
    if diagonal:
        ends = (x(0), y(0), x(1), y(1))
        parts.append(Markup('<path class="mark" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(*ends))
    for place, name in marks:
        mark = Markup('<path class="mark" d="M{:.1f} {}V{}"><title>{}</title></path>')
        parts.append(mark.format(x(place), 26, bottom, name))
    for number, line in enumerate(lines):
        parts.append(_line([(x(a), y(b)) for a, b in line.points], line.color, number))
    legend, end = _legend(lines, bottom + 58) if len(lines) > 1 else ([], bottom + 40)
    return _svg(title, end, parts + legend)


def _box(axis: Axis, middle: float, box: Box) -> Markup:
    (found,) = boxplot_stats(box.values)
    q1, median, q3, low, high = (axis(found[key]) for key in ("q1", "med", "q3", "whislo", "whishi"))
    top, bottom = middle - 10, middle + 4
    center = (top + bottom) / 2
    dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.4" data-case="{}"><title>{:.3f}</title></circle>')
    dots = []
    for number, (value, case) in enumerate(zip(box.values, box.cases, strict=True)):
        up = (number * 0.618034) % 1  # the golden ratio spreads neighbors without chance
        dots.append(dot.format(axis(value), top + 1 + up * (bottom - top - 2), case, value))
    path = (
        f"M{low:.1f} {center:.1f}H{q1:.1f}M{q3:.1f} {center:.1f}H{high:.1f}"
        f"M{q1:.1f} {top:.1f}H{q3:.1f}V{bottom:.1f}H{q1:.1f}Z"
    )
    middle_line = f"M{median:.1f} {top:.1f}V{bottom:.1f}"
    shape = '<g stroke="{0}" fill="{0}"><path class="box" d="{1}"/><path class="median" d="{2}"/>{3}</g>'
    return Markup(shape).format(box.color, path, middle_line, Markup("").join(dots))


def _mean(axis: Axis, y: float, mean: float, low: float | None, high: float | None) -> Markup:
    place = axis(mean)
    path = f"M{place:.1f} {y - 4:.1f}l4 4l-4 4l-4 -4z"
    if low is not None and high is not None:
        start, end = f"{axis(low):.1f}", f"{axis(high):.1f}"
        path += f"M{start} {y:.1f}H{end}M{start} {y - 3:.1f}v6M{end} {y - 3:.1f}v6"
    return Markup('<path class="mean" d="{}"/>').format(path)


def _line(points: Sequence[tuple[float, float]], color: str, number: int) -> Markup:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    line = Markup('<path class="line" stroke="{}" stroke-dasharray="{}" d="{}"/>')
    drawn = line.format(color, DASHES[number % len(DASHES)], path)
    if len(points) > 30:
        return drawn
    dot = Markup('<circle fill="{}" cx="{:.1f}" cy="{:.1f}" r="2.2"/>')
    return drawn + Markup("").join(dot.format(color, x, y) for x, y in points)


def _legend(lines: Sequence[Line], top: float) -> tuple[list[Markup], float]:
    parts, x, y = [], 10.0, top
    for number, line in enumerate(lines):
        name = _short(line.name, 36)
        width = 44 + CHARACTER * len(name)
        if x > 10 and x + width > WIDTH:
            x, y = 10.0, y + 18
        parts += [_line([(x, y - 4), (x + 26, y - 4)], line.color, number), _text(x + 32, y, name)]
        x += width
    return parts, y + 8


def _x_axis(axis: Axis, top: float, bottom: float, *, name: str = "") -> Markup:
    parts = []
    for tick in axis.ticks:
        parts.append(Markup('<path class="grid" d="M{:.1f} {}V{}"/>').format(axis(tick), top, bottom))
        parts.append(_text(axis(tick), bottom + 15, f"{tick:g}", anchor="middle"))
    if name:
        parts.append(_text((axis.start + axis.end) / 2, bottom + 34, name, anchor="middle"))
    return Markup("").join(parts)


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _svg(title: str, height: float, parts: Sequence[Markup]) -> Markup:
    start = Markup('<svg class="chart" viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">').format(
        WIDTH, height, title
    )
    return start + Markup("").join(parts) + Markup("</svg>")
