# SPDX-License-Identifier: Apache-2.0
"""Tell what a series is and what of it can be read, from headers, and from the pixels of what may be copies."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os.path import commonpath
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import describe
from bundle.pyraseg.dicom.frame import counted
from bundle.pyraseg.dicom.frames import in_stack
from bundle.pyraseg.dicom.geometry import Geometry
from bundle.pyraseg.dicom.phases import Phases
from bundle.pyraseg.dicom.scan import Series
from bundle.pyraseg.dicom.selection import Selection, SeveralStacks, read_selection, selection_text
from bundle.pyraseg.dicom.wanted import ALL_PHASES


@dataclass(frozen=True)
class SeriesFacts:
    """Hold what a person chooses a series by, and a program.

    Attributes:
        uid: that chooses it; `series_uid` is the Series Instance UID, "" where the files have none.
        number, description, modality, body_part: of the header, without names of patients; "" where it has none.
        folder, files: that holds its files, and their paths in there.
        size: rows, columns and slices of what is read, or of all where nothing is; rows and columns are 0 where they
            differ.
        pixel_spacing: mm between rows and between columns; None where unknown.
        slice_spacing: the smallest and the largest step in mm; None where unknown.
        choices: what `--select` takes to read one of several stacks, each with the number of its slices.
        phases: how many phases can be chosen with `--phase`; 0 where it is one stack, or nothing numbers them.
        phases_by: attribute that numbers them, what they are, and which are incomplete, in words; or "".
        phases_in: what `--select` takes besides, or "".
        problem: why it is not read as it is, or "".
        notes: what reading tells.
    """

    uid: str
    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    number: str
    description: str
    modality: str
    body_part: str
    folder: str
    files: tuple[str, ...]
    size: tuple[int, int, int]
    pixel_spacing: tuple[float, float] | None
    slice_spacing: tuple[float, float] | None
    choices: tuple[tuple[str, int], ...]
    phases: int
    phases_by: str
    phases_in: str
    problem: str
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as JSON has them."""
        rows, columns, slices = self.size
        facts = asdict(self) | {"rows": rows, "columns": columns, "slices": slices}
        facts["choices"] = [{"select": select, "slices": count} for select, count in self.choices]
        return {name: value for name, value in facts.items() if name != "size"}


def series_facts(series: Series, select: str | Selection | None = None) -> SeriesFacts:
    """Return what there is to know of a series.

    Args:
        series: of a scan whose headers have what is selected by.
        select: the slices to read, see `read_selection`.
    """
    notes: list[str] = []
    chosen = read_selection(select)
    problem, choices = "", []
    phases: Phases | None = None
    given: Selection = {}
    frames, geometry = None, None
    try:
        try:
            _, frames, geometry = in_stack(series, chosen, tell=notes.append)
        except SeveralStacks as error:
            problem, choices, phases, given = str(error), error.choices, error.phases, error.given
            if choices:  # spacing and size are those of the first one
                _, frames, geometry = in_stack(series, read_selection(choices[0][0]), tell=lambda _: None)
            elif phases is not None:
                _, frames, geometry = in_stack(series, given, phase=1, tell=lambda _: None)
    except Exception as error:  # reading the series tells of it; no fault of one keeps others from being listed
        why = describe(error)
        problem, choices = f"{problem} The first of these choices is not read: {why}" if problem else why, []
        phases = None
    sizes = {(int(header.Rows), int(header.Columns)) for header in series.headers}
    rows, columns = (int(frames[0].header.Rows), int(frames[0].header.Columns)) if frames else (0, 0)
    if not frames and len(sizes) == 1:
        rows, columns = sizes.pop()
    first = series.headers[0]
    folder = Path(commonpath([file.parent for file in series.files]))
    return SeriesFacts(
        uid=series.uid,
        series_uid=series.instance_uid,
        study_uid=series.study_uid,
        frame_of_reference_uid=str(first.get("FrameOfReferenceUID") or ""),
        number=series.number,
        description=series.description,
        modality=series.modality,
        body_part=str(first.get("BodyPartExamined") or ""),
        folder=str(folder),
        files=tuple(file.relative_to(folder).as_posix() for file in series.files),
        size=(rows, columns, len(frames) if frames else series.frames),
        pixel_spacing=None
        if geometry is None
        else (float(geometry.pixel_spacing[0]), float(geometry.pixel_spacing[1])),
        slice_spacing=_steps(geometry),
        choices=tuple(choices),
        phases=0 if phases is None else len(phases),
        phases_by="" if phases is None else str(phases),
        phases_in=selection_text(given) if phases is not None else "",
        problem=problem,
        notes=tuple(notes),
    )


def _steps(geometry: Geometry | None) -> tuple[float, float] | None:
    if geometry is None or len(geometry) < 2:
        return None
    return float(geometry.gaps.min()), float(geometry.gaps.max())


COLUMNS = ("name", "modality", "number", "description", "body part", "size", "spacing in mm", "series UID")
#: Characters of a description in the table, and choices that it lists; JSON has all.
WIDEST, MOST_CHOICES = 40, 8
#: What stands above the choices.
HOW = "is not read as it is, but with one of"
#: Steps between slices are told as one where the largest is at most so much of the smallest.
NEARLY_EVEN = 1.01


def series_table(rows: Sequence[tuple[str, SeriesFacts]]) -> list[str]:
    """Return the lines of a table: one for each series, with what can be chosen in it and why it is not read below.

    Args:
        rows: what the results of a series are called, and its facts.
    """
    cells = [(name, *_cells(facts)) for name, facts in rows]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *cells, strict=True)]
    lines = []
    for row, facts in zip([COLUMNS, *cells], [None, *(facts for _, facts in rows)], strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if facts is not None:
            lines += [f"    {line}" for line in _below(facts)]
    return lines


def _cells(facts: SeriesFacts) -> tuple[str, ...]:
    rows, columns, slices = facts.size
    size = f"{columns}x{rows}x{slices}" if rows else counted(slices, "slice")
    text = facts.description if len(facts.description) <= WIDEST else f"{facts.description[: WIDEST - 3]}..."
    spacing = "x".join(f"{step:.4g}" for step in reversed(facts.pixel_spacing or ()))
    if facts.slice_spacing is not None:
        low, high = facts.slice_spacing
        spacing += f"x{(low + high) / 2:.4g}" if high <= low * NEARLY_EVEN else f"x({low:.4g} to {high:.4g})"
    return facts.modality, facts.number, text, facts.body_part, size, spacing, facts.uid


def _below(facts: SeriesFacts) -> list[str]:
    """Return what stands below the line of a series."""
    lines: list[str] = []
    if facts.phases:
        before = f"--select {shlex.quote(facts.phases_in)} " if facts.phases_in else ""
        lines = [
            f"has {facts.phases_by}",
            HOW,
            f"    {before}--phase 1 to --phase {facts.phases}, or each with {before}--phase {ALL_PHASES}",
        ]
    if facts.choices:
        more = len(facts.choices) - MOST_CHOICES
        typed = [
            f"--select {shlex.quote(select)} ({counted(n, 'slice')})" for select, n in facts.choices[:MOST_CHOICES]
        ]
        lines = [*(lines or [HOW]), *(f"    {line}" for line in typed)]
        lines += [f"    and {more} more of this kind"] if more > 0 else []
    if lines:
        return lines
    return [f"is not read: {facts.problem}"] if facts.problem else [f"{note}." for note in facts.notes]
