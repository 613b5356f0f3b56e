# SPDX-License-Identifier: Apache-2.0
"""The figures of a sweep, against closed forms."""

import csv
import json
import math
from pathlib import Path

import pytest

from bundle.pyraseg_tools.sweep.results import compared, seed_interval, table_text, write_tables
from bundle.pyraseg_tools.sweep.settings import Setting
from bundle.pyraseg_tools.sweep.trials import Trial

PATIENTS = 24
#: Quantiles 0.975 of Student's t by degrees of freedom, from the table of any textbook.
STUDENT = {2: 4.302653, 3: 3.182446, 4: 2.776445}


@pytest.mark.parametrize("dice", [[0.7, 0.72, 0.74], [0.8, 0.9, 0.7, 0.6], [0.5, 0.51, 0.52, 0.53, 0.54]])
def test_the_interval_over_seeds_is_that_of_student(dice):
    count = len(dice)
    mean = sum(dice) / count
    error = math.sqrt(sum((value - mean) ** 2 for value in dice) / (count - 1) / count)
    half = STUDENT[count - 1] * error
    assert seed_interval(dice) == pytest.approx((mean - half, mean + half), abs=1e-6)


@pytest.mark.parametrize("dice", [[], [0.7], [0.7, 0.8]])
def test_few_seeds_have_no_interval(dice):
    assert seed_interval(dice) is None


def finished(folder: Path, rate: float, seed: int, *, gain: float) -> Trial:
    """Return a run whose liver has Dice 0.5 + n / 100 + gain for patient n; the lesion 0.1 less, in even ones alone."""
    setting = Setting({"learning_rate": rate})
    trial = Trial(
        setting, seed, folder / setting.folder / f"seed{seed}", (), {}, {"config": {}, "split": "", "data": ""}
    )
    trial.begin()
    trial.validation.mkdir()
    lines = ["case,class,dice,truth_voxels,patient"]
    for n in range(PATIENTS):
        dice = 0.5 + n / 100 + gain
        lines += [f"c{n},liver,{dice:.6f},9,p{n}"]
        lines += [f"c{n},lesion,{dice - 0.1:.6f},9,p{n}" if n % 2 == 0 else f"c{n},lesion,,0,p{n}"]
    (trial.validation / "scores.csv").write_text("\n".join(lines) + "\n")
    record = {"setting": {"learning_rate": rate}, "seed": seed, "best_epoch": 4, "epochs": 6, "seconds": 2.5}
    trial.record.write_text(json.dumps(record))
    return trial


#: Mean over classes of the means over patients, without a gain: n / 100 has the mean 0.115, over even n 0.11.
BASE = ((0.5 + 0.115) + (0.4 + 0.11)) / 2


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    """Return three seeds of a setting, two of another one that is 0.05 better, and one that is not trained yet."""
    found = [finished(tmp_path, 0.1, seed, gain=(seed - 1) * 0.02) for seed in (0, 1, 2)]
    found += [finished(tmp_path, 0.2, seed, gain=0.05) for seed in (0, 1)]
    setting = Setting({"learning_rate": 0.3})
    return [*found, Trial(setting, 0, tmp_path / setting.folder / "seed0", (), {}, {})]


def test_the_table_has_the_means_the_intervals_and_what_lies_between(trials, tmp_path):
    rows = compared(trials, resamples=500)
    assert [row.name for row in rows] == ["learning_rate=0.2", "learning_rate=0.1", "learning_rate=0.3"]
    best, other, none = rows
    assert best.mean == pytest.approx(BASE + 0.05) and best.interval is None and best.behind is None
    assert other.mean == pytest.approx(BASE)
    half = STUDENT[2] * 0.02 / math.sqrt(3)
    assert other.interval == pytest.approx((BASE - half, BASE + half), abs=1e-6)
    # Every patient has the same difference, so that no draw of patients has another.
    assert [other.behind[key] for key in ("difference", "low", "high")] == pytest.approx([0.05] * 3)
    assert other.behind["patients"] == PATIENTS and other.behind["class"] == "mean"
    assert not none.dice and none.behind is None
    write_tables(tmp_path, rows)
    with (tmp_path / "settings.csv").open(newline="") as file:
        settings = list(csv.DictReader(file))
    assert [row["learning_rate"] for row in settings] == ["0.2", "0.1", "0.3"]
    assert [(row["seeds"], row["planned"]) for row in settings] == [("2", "2"), ("3", "3"), ("0", "1")]
    assert float(settings[1]["low"]) == pytest.approx(BASE - half, abs=1e-6) and settings[0]["low"] == ""
    assert float(settings[1]["behind_best"]) == pytest.approx(0.05) and settings[2]["dice"] == ""
    with (tmp_path / "runs.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    assert [(row["learning_rate"], row["seed"]) for row in runs] == [
        *zip(["0.2"] * 2 + ["0.1"] * 3, "01012", strict=True)
    ]
    assert [float(row["dice"]) for row in runs[2:]] == pytest.approx([BASE - 0.02, BASE, BASE + 0.02])


def test_the_text_says_what_is_few(trials):
    lines = table_text(compared(trials, resamples=500), unit="patients").splitlines()
    assert lines[1].split()[:6] == ["learning_rate=0.2", "2", "of", "2", f"{BASE + 0.05:.3f}", "few"]
    assert lines[2].split()[-3:] == ["+0.050", "[+0.050,", "+0.050]"]
    assert lines[3].split() == ["learning_rate=0.3", "0", "of", "1", "none"]
    assert lines[4].startswith("few: fewer than 3 seeds")


def test_nothing_finished_is_no_table_of_figures(trials):
    (row,) = compared(trials[-1:])
    assert math.isnan(row.mean) and row.interval is None
