# SPDX-License-Identifier: Apache-2.0
"""A data set's fingerprint as a table of its cases and a page to read."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bundle.pyraseg.core import write_csv
from bundle.pyraseg.data import ClassCounts
from bundle.pyraseg.labels import annotated_classes
from bundle.pyraseg_tools.fingerprint.measuring import CaseFingerprint
from bundle.pyraseg_tools.fingerprint.proposal import Proposal
from bundle.pyraseg_tools.fingerprint.rules import Setting


def write_cases(
    path: Path, cases: Sequence[CaseFingerprint], odd: Mapping[str, Sequence[str]], class_names: Sequence[str]
) -> None:
    """Write a CSV with a row a case: size, spacing, intensities, pixels of each class, empty slices, what is odd."""
    figures = ["min", "p0.5", "p99.5", "max", "foreground_p0.5", "foreground_p50", "foreground_p99.5"]
    pixels = [f"pixels_{name}" for name in class_names]
    rows = []
    for case in cases:
        row = {"case": case.name, "part": case.part, "odd": "; ".join(odd.get(case.name, []))}
        row |= {"annotated": "; ".join(case.item.get("annotated") or ["all"])}
        if case.size:
            row |= {"size": " x ".join(map(str, case.size)), "modality": case.modality, "units": case.units}
            row |= {"units_by": case.evidence}
            row |= {"spacing_mm": " x ".join(f"{s:g}" for s in case.spacing or ())}
            row |= dict(zip(figures, (f"{v:.6g}" for v in (*case.extent, *(case.foreground or ()))), strict=False))
            row |= dict(zip(pixels, case.counts.sum(axis=0).tolist(), strict=True))
            row |= {"slices": len(case.counts), "empty_slices": case.empty_slices}
        rows.append(row)
    head = ["case", "part", "size", "spacing_mm", "modality", "units", "units_by"]
    write_csv(path, [*head, *figures, *pixels, "slices", "empty_slices", "annotated", "odd"], rows)


def class_table(counts: ClassCounts) -> str:
    """Return a Markdown table of the classes: pixels, share, images or slices that show each.

    Where some were annotated for some of the classes only, it has how many were for each, of which the share is.
    """
    partial = bool((counts.annotated_images != counts.annotated_images.max()).any())
    rows = ["| class | pixels | share | slices or images |", "|---|---|---|---|"]
    if partial:
        rows = ["| class | pixels | share | slices or images | of those annotated for it |", "|---|---|---|---|---|"]
    columns = (counts.class_names, counts.pixels, counts.shares, counts.images, counts.annotated_images)
    for name, pixels, share, images, annotated in zip(*columns, strict=True):
        rows.append(f"| {name} | {pixels:,} | {share:.4%} | {images:,} |" + f" {annotated:,} |" * partial)
    return "\n".join(rows)


def settings_table(settings: Mapping[str, Setting]) -> str:
    """Return a Markdown table of the proposed settings and their reasons."""
    rows = ["| key | value | why |", "|---|---|---|"]
    return "\n".join(rows + [f"| `{key}` | `{json.dumps(s.value)}` | {s.reason} |" for key, s in settings.items()])


def report(
    cases: Sequence[CaseFingerprint],
    odd: Mapping[str, Sequence[str]],
    counts: ClassCounts,
    proposals: Mapping[str, Proposal],
    choice: str = "",
) -> str:
    """Return the page: cases, classes of the training part, what to look at, the proposals and their reasons.

    Args:
        cases: all cases.
        odd: reasons by name.
        counts: of the training part.
        proposals: by the name of their file, the one to begin with first.
        choice: why it is the first, in a sentence, where there are several.
    """
    parts = Counter(case.part for case in cases)
    usable = [case for case in cases if case.size]
    empty = [case for case in usable if case.is_empty]
    listed = [f"- `{case.name}` ({case.part}): {'; '.join(odd[case.name])}" for case in cases if case.name in odd]
    return (
        "\n".join(
            [
                "# Fingerprint",
                "",
                f"{len(cases)} cases: {', '.join(f'{n} {part}' for part, n in parts.items())}. "
                f"{len(cases) - len(usable)} cannot be used, {len(empty)} have no label, {len(odd)} look odd.",
                *_annotated(cases, counts.class_names),
                "",
                *_ranges(usable),
                "",
                *_units(usable),
                "## Classes of the training part",
                "",
                class_table(counts),
                *(f"\nThe class {name!r} is absent: its weight is that of the rarest class." for name in counts.absent),
                "",
                "![Histograms](histograms.png)",
                "",
                "## Look at these",
                "",
                *(listed or ["Nothing looks odd."]),
                "",
                "![Odd cases, then ordinary ones, with the outlines of their labels](pairs.png)",
                "",
                "## Proposal",
                "",
                "Rules of thumb applied to the training part: edit the files. Memory and seconds are measured, not how "
                "good a network becomes.",
                "",
                *([choice, ""] if choice else []),
                *(line for name, proposal in proposals.items() for line in _proposal(name, proposal)),
            ]
        ).rstrip("\n")
        + "\n"
    )


def _proposal(name: str, proposal: Proposal) -> list[str]:
    """Return a section for a proposal, whose file has this name."""
    return [f"### `{name}`", "", settings_table(proposal.settings), "", *(f"- {note}" for note in proposal.notes), ""]


def _annotated(cases: Sequence[CaseFingerprint], class_names: Sequence[str]) -> list[str]:
    """Return how many cases were annotated for each class; nothing where all were for all."""
    masks = np.stack([annotated_classes(case.item, class_names) for case in cases])
    if masks.all():
        return []
    counts = ", ".join(f"{name} in {n}" for name, n in zip(class_names[1:], masks[:, 1:].sum(axis=0), strict=True))
    return ["", f"{(~masks.all(axis=1)).sum()} cases were annotated for some classes only: {counts} of {len(cases)}."]


def _units(cases: Sequence[CaseFingerprint]) -> list[str]:
    """Return what intensities are taken as, and why: a line for each answer."""
    reasons = Counter((case.units, case.modality, case.evidence.partition(":")[0]) for case in cases if case.evidence)
    examples = {(c.units, c.modality, c.evidence.partition(":")[0]): c for c in reversed(cases)}
    lines = []
    for (units, modality, by), count in reasons.most_common():
        example = examples[units, modality, by]
        what = f"{units or 'no common unit'}{f' ({modality})' if modality else ''}"
        lines.append(f"- {count} images: {what}, as for `{example.name}`: {example.evidence}")
    remedy = "Where this is wrong, say so: `--modality CT` is in HU, any other is not. A DICOM header is believed."
    return ["## Units", "", *lines, "", remedy, ""] if lines else []


def _ranges(cases: Sequence[CaseFingerprint]) -> list[str]:
    def row(name: str, values: Sequence[float]) -> str:
        return f"| {name} | {min(values):.4g} | {np.median(values):.4g} | {max(values):.4g} |"

    lines = ["| of a case | smallest | median | largest |", "|---|---|---|---|"]
    for axis, name in enumerate(("width, pixels", "height, pixels", "slices")):
        if values := [case.size[axis] for case in cases if len(case.size) > axis]:
            lines.append(row(name, values))
    for axis, name in enumerate(("pixel width, mm", "pixel height, mm", "slice spacing, mm")):
        if values := [case.spacing[axis] for case in cases if case.spacing]:
            lines.append(row(name, values))
    for place, name in enumerate(("0.5th percentile under the labels", "median under the labels", "99.5th percentile")):
        if values := [case.foreground[place] for case in cases if case.foreground]:
            lines.append(row(name, values))
    return lines
