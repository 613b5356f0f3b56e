# SPDX-License-Identifier: Apache-2.0
"""Draw which room imports which, from the code: docs/images/architecture.svg.

python -m scripts.draw_architecture

A room stands one row above the highest room that it imports. An arrow that follows from others is left out.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
WIDTH, BOX, HEIGHT, STEP = 960, 150, 34, 84  # pixels: of the picture, of a box, and from a row to the next
#: Fill and border of the boxes: what a model package ships, and what only makers and sites need.
COLORS = {False: ("#e8f1fa", "#3b78b5"), True: ("#fbf0e1", "#b9772b")}


def room_of(module: str) -> str | None:
    """Return the room of a module: the folder below `bundle/pyraseg`, or `tools/` and the one below the tools."""
    _, package, *rest = module.split(".")
    if not rest or rest[0] == "__main__":
        return None
    return rest[0] if package == "pyraseg" else f"tools/{rest[0]}"


def imports() -> dict[str, set[str]]:
    """Return which rooms each room imports."""
    graph = grimp.build_graph("bundle.pyraseg", "bundle.pyraseg_tools", cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        if room := room_of(module):
            others = {room_of(other) for other in graph.find_modules_directly_imported_by(module)}
            found.setdefault(room, set()).update(other for other in others if other and other != room)
    return found


def rows(below: dict[str, set[str]]) -> list[list[str]]:
    """Return the rooms in rows from the lowest up, each near the middle of those that it imports."""

    @cache
    def row(room: str) -> int:
        return max((1 + row(other) for other in below[room]), default=0)

    result: list[list[str]] = [[] for _ in range(1 + max(map(row, below)))]
    for room in sorted(below):
        result[row(room)].append(room)
    place: dict[str, float] = {}
    for line in result:
        line.sort(key=lambda room: (room.startswith("tools/"), _mean(place[other] for other in below[room]), room))
        place |= {room: (number + 1) / (len(line) + 1) for number, room in enumerate(line)}
    return result


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.5


def told_by_others(below: dict[str, set[str]], room: str, other: str) -> bool:
    """Return whether a room reaches another by way of a third."""

    @cache
    def reaches(start: str) -> bool:
        return start == other or any(map(reaches, below[start]))

    return any(reaches(third) for third in below[room] - {other})


def drawing() -> str:
    """Return the picture as SVG."""
    below = imports()
    lines = rows(below)
    height = STEP * len(lines) + 30
    place = {
        room: (WIDTH * (number + 1) / (len(line) + 1), height - 50 - STEP * index)
        for index, line in enumerate(lines)
        for number, room in enumerate(line)
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="15" text-anchor="middle" role="img" aria-label="Which room imports which">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#8a949e"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for room in sorted(below):
        for other in sorted(below[room]):
            if told_by_others(below, room, other):
                continue
            (x, y), (u, v) = place[room], place[other]
            y, v = y + HEIGHT / 2, v - HEIGHT / 2 - 1
            bend = (v - y) / 2
            parts.append(
                f'<path d="M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {u:.0f} {v - bend:.0f} {u:.0f} {v:.0f}" '
                'fill="none" stroke="#8a949e" stroke-width="1.2" marker-end="url(#tip)"/>'
            )
    for room, (x, y) in place.items():
        fill, border = COLORS[room.startswith("tools/")]
        parts.append(
            f'<rect x="{x - BOX / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{BOX}" height="{HEIGHT}" rx="6" '
            f'fill="{fill}" fill-opacity="0.75" stroke="{border}"/><text x="{x:.0f}" y="{y + 5:.0f}">{room}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
    print(f"Wrote {PICTURE.relative_to(ROOT)}")
