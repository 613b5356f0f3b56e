# SPDX-License-Identifier: Apache-2.0
"""The figures of an evaluation as a CSV file and as a table."""

import csv

import pytest
import torch
from ignite.engine import Engine

from bundle.pyraseg.evaluation.table import POLICY, ScoreTable, format_table

CLASSES = ["background", "liver", "lesion"]

#: True positives, false positives and false negatives of liver and lesion in three cases.
COUNTS = torch.tensor([[[6, 2, 2], [0, 5, 0]], [[4, 0, 0], [0, 0, 0]], [[0, 0, 9], [1, 1, 2]]])

TABLE = f"""\
class    Dice    IoU  precision  recall  cases  without it  false alarms
liver   0.583  0.533      0.875   0.583      3           0             0
lesion  0.400  0.250      0.500   0.333      1           2             1
mean    0.492
{POLICY}"""


@pytest.fixture
def evaluated(tmp_path) -> Engine:
    """Return an engine that ends an evaluation with the counts above."""
    cases = [{"image": str(tmp_path.resolve() / "data" / name)} for name in ("a/ct", "b/ct", "c.nii.gz")]
    engine = Engine(lambda engine, batch: None)
    engine.state.metric_details = {"val_mean_dice": COUNTS}
    ScoreTable(tmp_path / "out", cases=cases, dataset_dir=tmp_path / "data", class_names=CLASSES).attach(engine)
    return engine


def test_table_by_hand():
    assert format_table(COUNTS, CLASSES) == TABLE


def test_table_of_a_class_that_no_case_holds():
    lines = format_table(COUNTS[:2], CLASSES).splitlines()
    assert lines[2] == "lesion    nan    nan        nan     nan      0           2             1"


def test_csv_has_a_row_a_case_and_class(evaluated, tmp_path, capsys):
    evaluated.run([0])
    assert TABLE in capsys.readouterr().out
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["case", "class", "dice", "iou", "precision", "recall", "truth_voxels", "predicted_voxels"]
    assert [row[:2] for row in rows] == [
        [case, name] for case in ("a/ct", "b/ct", "c.nii.gz") for name in ("liver", "lesion")
    ]
    expected = [
        [0.75, 0.6, 0.75, 0.75, 8, 8],
        [0, 0, 0, None, 0, 5],  # a false alarm: there is nothing to recall
        [1, 1, 1, 1, 4, 4],
        [None, None, None, None, 0, 0],
        [0, 0, None, 0, 9, 0],  # missed: there is nothing whose precision could be told
        [0.4, 0.25, 0.5, 1 / 3, 3, 2],
    ]
    for row, values in zip(rows, expected, strict=True):
        assert [float(text) if text else None for text in row[2:]] == [
            value if value is None else pytest.approx(value, abs=1e-8) for value in values
        ]


def test_no_half_written_csv(evaluated, tmp_path):
    evaluated.state.metric_details = {"val_mean_dice": COUNTS[:2]}  # not as many as cases
    with pytest.raises(ValueError):
        evaluated.run([0])
    assert not any((tmp_path / "out").iterdir())
