# SPDX-License-Identifier: Apache-2.0
"""The figures of an evaluation as a CSV file, case by case, and as a table on the screen."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from torch import Tensor

from bundle.pyraseg.evaluation.scores import mean_dice, ratios, summarise
from bundle.pyraseg.files import replacing

logger = logging.getLogger(__name__)

POLICY = (
    "Means are over the cases whose truth holds the class. Cases without it are counted apart: "
    "a false alarm is one in which some voxel was predicted as the class."
)


class ScoreTable:
    """Write `scores.csv` and print the means when an evaluation ends.

    The CSV has a row a case and class: name of the case, class, Dice, IoU, precision, recall, voxels of the truth and
    of the prediction. A ratio with nothing below the line is left blank; where the truth lacks the class and the
    prediction has it, Dice is 0, and the row does not count in the means.

    Args:
        output_dir: folder of `scores.csv`.
        cases: items of the data list, in the order of the evaluation.
        dataset_dir: cases are named by the path of their image below it.
        class_names: names of all classes, background first.
    """

    def __init__(
        self, output_dir: str | Path, *, cases: Sequence[dict], dataset_dir: str | Path, class_names: Sequence[str]
    ) -> None:
        self.path = Path(output_dir) / "scores.csv"
        root = Path(dataset_dir).expanduser().resolve()
        self.names = [Path(case["image"]).relative_to(root).as_posix() for case in cases]
        self.class_names = list(class_names)

    def attach(self, engine: Engine) -> None:
        ProgressBar(desc="Evaluating", disable=None).attach(engine)
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        (counts,) = engine.state.metric_details.values()
        self._write(counts)
        print(format_table(counts, self.class_names))
        logger.info("Scores of %d cases are in %s", len(counts), self.path)

    def _write(self, counts: Tensor) -> None:
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["case", "class", "dice", "iou", "precision", "recall", "truth_voxels", "predicted_voxels"])
            for name, of_case in zip(self.names, counts, strict=True):
                for class_name, of_class in zip(self.class_names[1:], of_case, strict=True):
                    hits, extra, missed = of_class.tolist()
                    scores = ["" if value != value else f"{value:.8f}" for value in ratios(of_class).tolist()]
                    table.writerow([name, class_name, *scores, int(hits + missed), int(hits + extra)])


def format_table(counts: Tensor, class_names: Sequence[str]) -> str:
    """Return the means of every class as aligned text, with the policy for classes that a case lacks."""
    scores = summarise(counts, class_names)
    width = max(len("class"), *(len(score.name) for score in scores))
    lines = [f"{'class':{width}}   Dice    IoU  precision  recall  cases  without it  false alarms"]
    lines += [
        f"{s.name:{width}}  {s.dice:5.3f}  {s.iou:5.3f}  {s.precision:9.3f}  {s.recall:6.3f}"
        f"  {s.cases:5d}  {s.absent:10d}  {s.false_alarms:12d}"
        for s in scores
    ]
    lines += [f"{'mean':{width}}  {mean_dice(scores):5.3f}", POLICY]
    return "\n".join(lines)
