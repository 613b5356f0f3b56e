# SPDX-License-Identifier: Apache-2.0
"""Write what was measured of a task's included model between the markers of its model card."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.tasks.networks import OURS
from benchmarks.tasks.runs import Run, read_runs
from benchmarks.tasks.tables import NAMES, NOTHING, figure_of, markdown, mean, text
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

#: What a training draws its samples from, by the kind of image.
SAMPLES = {"photograph": "photographs", "projection": "radiographs", "volume": "slices"}


def card_of(task: str, docs: Path) -> Path:
    """Return the model card of a task."""
    return docs / f"{task}_card.md"


def write_cards(tasks: Sequence[str], results: Path, docs: Path) -> None:
    """Write the tables of those cards that have the markers."""
    for task in tasks:
        card = card_of(task, docs)
        if card.is_file() and "<!-- begin figures -->" in (content := card.read_text(encoding="utf-8")):
            card.write_text(replace_between_markers(content, "figures", card_table(task, results)), encoding="utf-8")


def card_table(task: str, results: Path) -> str:
    """Return the training, the split and the scores of the model that is included: ours, of the first seed.

    Args:
        task: its name.
        results: folder of the results of whole trainings, with a folder a task.
    """
    run = next((run for run in read_runs(results, task) if run.name == OURS and run.is_scored("test")), None)
    if run is None:
        return NOTHING
    columns = _columns(task, run)
    rows = []
    for part in ("training", "validation", "test"):
        of_part = run.record["split"][part]
        cells = [part, str(of_part["cases"]), f"`{of_part['sha256'][:12]}`"]
        rows.append(cells + [""] * len(columns) if part == "training" else cells + _figures(run, part, columns))
    head = ["part", "cases", "SHA-256 of their names", *(title for title, _, _ in columns)]
    return "\n".join([markdown(head, rows), "", _training(run.record)])


def _columns(task: str, run: Run) -> list[tuple[str, str, str | None]]:
    """Return the title, the figure and the class (None: the mean of all) of every column."""
    figures = sorted(run.figures("test"), key=lambda name: name != figure_of(task))
    classes = run.scores("test", figures[0]).classes
    of_classes = [(f"{NAMES[figures[0]]}, {name}", figures[0], name) for name in classes if len(classes) > 1]
    return [*of_classes, *((NAMES[figure], figure, None) for figure in figures)]


def _figures(run: Run, part: str, columns: list[tuple[str, str, str | None]]) -> list[str]:
    scores = [(run.scores(part, figure), name) for _, figure, name in columns]
    return [text(mean(found if name is None else found.of_class(name))) for found, name in scores]


def _training(record: dict[str, Any]) -> str:
    """Return in two lines how the model was trained, and what that took."""
    knobs, versions = record["knobs"], record["versions"]
    in_patches = "patch_size" in knobs or isinstance(knobs.get("photograph_size"), list)
    unit = "patches" if in_patches else SAMPLES[knobs["image_kind"]]
    made = ", ".join(f"{name} {versions[name]}" for name in ("torch", "monai", "timm"))
    return (
        f"Training: seed {record['seed']}, {record['epochs']} epochs of {record['samples_per_epoch']} {unit}, batches "
        f"of {record['batch_size']}; the best by validation Dice was epoch {record['best_epoch']}.\n"
        f"It took {record['processor_minutes']:.0f} minutes of one thread of {record['device']}, with {made}."
    )
