# SPDX-License-Identifier: Apache-2.0
"""The files of an evaluation and its table on the screen, from an engine that hands out known cases."""

import csv
import json

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.evaluation.calibration import BoundaryCalibration
from bundle.pyraseg.evaluation.cases import CaseScorer
from bundle.pyraseg.evaluation.summary import POLICY
from bundle.pyraseg.evaluation.table import WORK, CaseTable, ScoreTable, check_columns
from bundle.pyraseg.evaluation.text import format_summary
from bundle.pyraseg.transforms import geometry_of
from bundle.pyraseg.transforms.postprocessing import write_temperature
from tests.helpers.holder import is_taken

CLASSES = ["background", "liver", "lesion"]
IMAGE = MetaTensor(torch.zeros(1, 4, 3, 2), affine=np.diag([1.0, 1.0, 2.0, 1.0]))

#: Class of every voxel, prediction and truth.
CASES = [
    ("111111112222200000000000", "111111001100000000000000"),  # liver 6 hit, 2 extra, 2 missed; a lesion made up
    ("111100000000000000000000", "111100000000000000000000"),  # liver right, no lesion
    ("222000000000000000000000", "022200000000000000000000"),  # no liver; lesion 2 hit, 1 extra, 1 missed
]
COLUMNS = (
    "case,class,dice,iou,thresholded_iou,cldice,precision,recall,hd95_mm,hd95_px,surface_dice,"
    "volume_difference_ml,absolute_volume_difference_ml,truth_voxels,predicted_voxels,truth_ml,lesions,lesions_found,predicted_lesions,"
    "false_positive_lesions,uncertainty,patient,site"
)


def volume(text: str) -> torch.Tensor:
    return torch.tensor([int(digit) for digit in text], dtype=torch.uint8).reshape(1, 2, 3, 4).permute(0, 3, 2, 1)


@pytest.fixture
def evaluated(tmp_path) -> Engine:
    """Return an engine that evaluates the cases above, with everything that an evaluation may have."""
    root = tmp_path.resolve() / "data"
    items = [
        {"image": str(root / name), "patient": patient, "site": site}
        for name, patient, site in (("a/ct", "DOE", "north"), ("b/ct", "DOE", "south"), ("c.nii.gz", "ROE", "north"))
    ]
    model = tmp_path / "model.pt"
    model.write_bytes(b"weights")
    write_temperature(model, 2.0)

    def step(engine: Engine, case: int) -> list[dict]:
        prediction, truth = map(volume, CASES[case])
        sure = torch.nn.functional.one_hot(prediction[0].long(), 3).permute(3, 0, 1, 2) * 0.7 + 0.1
        engine.state.batch = [{"original": IMAGE}]
        uncertainty = torch.tensor([0.1 * (case + 1), float("nan")], dtype=torch.float64)
        return [{"pred": prediction.float(), "truth": truth, "probabilities": sure, "uncertainty": uncertainty}]

    engine = Engine(step)
    ScoreTable(
        tmp_path / "out",
        cases=items,
        dataset_dir=tmp_path / "data",
        scorer=CaseScorer(CLASSES, ["lesion"]),
        calibration=BoundaryCalibration(CLASSES, margin=1, model_file=model),
        by=["size", "site"],
        resamples=200,
    ).attach(engine)
    return engine


@pytest.fixture
def summary(evaluated, tmp_path) -> dict:
    evaluated.run(range(3))
    return json.loads((tmp_path / "out" / "summary.json").read_text())


@pytest.mark.parametrize(("cases", "error"), [(range(2, 4), IndexError), (range(1), RuntimeError)])  # there are three
def test_an_evaluation_that_failed_lets_other_processes_have_its_folder(evaluated, tmp_path, cases, error):
    """It fails at a case, or where it is to write its table."""
    taken = []
    evaluated.add_event_handler(Events.ITERATION_COMPLETED, lambda: taken.append(is_taken(tmp_path / "out", WORK)))
    with pytest.raises(error):
        evaluated.run(cases)
    assert taken == [True] and not is_taken(tmp_path / "out", WORK)


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_row_a_case_and_class(summary, tmp_path):
    found = rows(tmp_path / "out" / "scores.csv")
    assert ",".join(found[0]) == COLUMNS
    assert [(row["case"], row["class"]) for row in found] == [
        (case, name) for case in ("a/ct", "b/ct", "c.nii.gz") for name in ("liver", "lesion")
    ]
    names = ("dice", "iou", "precision", "recall", "truth_voxels", "predicted_voxels")
    expected = [
        [0.75, 0.6, 0.75, 0.75, 8, 8],
        [0, 0, 0, None, 0, 5],  # a false alarm: there is nothing to recall
        [1, 1, 1, 1, 4, 4],
        [None, None, None, None, 0, 0],
        [None, None, None, None, 0, 0],
        [2 / 3, 0.5, 2 / 3, 2 / 3, 3, 3],
    ]
    for row, values in zip(found, expected, strict=True):
        assert [float(row[name]) if row[name] else None for name in names] == [
            value if value is None else pytest.approx(value, abs=1e-8) for value in values
        ]
    assert [row["volume_difference_ml"] for row in found][:2] == ["0.00000000", "0.01000000"]
    assert [row["uncertainty"] for row in found] == ["0.10000000", "", "0.20000000", "", "0.30000000", ""]
    assert [row["site"] for row in found[::2]] == ["north", "south", "north"]


def test_patients_are_numbers(summary, tmp_path):
    assert [row["patient"] for row in rows(tmp_path / "out" / "scores.csv")[::2]] == ["p1", "p1", "p2"]
    for path in (tmp_path / "out").iterdir():
        assert not {"DOE", "ROE"} & set(path.read_text().replace(",", " ").split()), path


def test_other_files(summary, tmp_path):
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "scores.csv", "lesions.csv", "review.csv", "summary.json",
    }  # fmt: skip
    (lesion,) = rows(tmp_path / "out" / "lesions.csv")
    assert lesion["case"] == "c.nii.gz" and lesion["found"] == "1" and lesion["patient"] == "p2"
    assert float(lesion["size"]) == pytest.approx(0.006) and float(lesion["covered"]) == pytest.approx(2 / 3)
    assert [(row["case"], row["uncertainty"]) for row in rows(tmp_path / "out" / "review.csv")] == [
        ("c.nii.gz", "0.30000000"), ("b/ct", "0.20000000"), ("a/ct", "0.10000000"),
    ]  # fmt: skip


def test_summary_by_hand(summary):
    assert (summary["format"], summary["cases"], summary["patients"], summary["unit"]) == (1, 3, 2, "patients")
    liver, lesion = summary["classes"]["liver"], summary["classes"]["lesion"]
    assert liver["metrics"]["dice"]["mean"] == pytest.approx(0.875)
    assert liver["metrics"]["dice"]["low"] is None  # both cases are of one patient
    assert (lesion["cases"], lesion["absent"], lesion["false_alarms"]) == (1, 2, 1)
    assert lesion["detection"]["sensitivity"]["mean"] == 1
    assert lesion["detection"]["false_positives_per_case"]["mean"] == pytest.approx(2 / 3)  # two islands in one case
    assert summary["mean"]["dice"]["mean"] == pytest.approx((0.875 + 2 / 3) / 2)
    assert list(summary["by"]["site"]) == ["north", "south"]
    assert summary["by"]["site"]["south"]["classes"]["liver"]["metrics"]["dice"]["mean"] == 1
    assert summary["calibration"]["temperature"] == 2
    assert set(summary["calibration"]["calibrated"]) == set(CLASSES[1:])
    # 1 - Dice by growing uncertainty: 0.625 (a false alarm counts), 0, 1/3.
    assert [point["risk"] for point in summary["uncertainty"]["curve"]] == pytest.approx(
        [0.625, 0.3125, 0.319444], abs=1e-5
    )
    assert summary["uncertainty"]["review"] == ["c.nii.gz", "b/ct", "a/ct"]


@pytest.mark.parametrize(
    ("items", "unit"),
    [
        ([{"patient": "a"}, {"patient": "b"}], "patients"),
        ([{"patient": "a"}, {"patient": "b", "patient_known": False}], "cases"),
        ([{"patient": "a"}, {}], "cases"),
    ],
)
def test_where_a_patient_is_not_known_nobody_speaks_of_patients(items, unit):
    table = CaseTable(CaseScorer(CLASSES), resamples=200)
    for name, item in zip("ab", items, strict=True):
        table.add(name, item, volume(CASES[1][0]), volume(CASES[1][1]), IMAGE)
    summary = table.summary()
    assert summary["unit"] == unit
    text = format_summary(summary).replace(POLICY, "")
    assert f"fewer than 20 {unit}" in text and f"Dice of each {unit[:-1]}:" in text
    assert unit == "patients" or "patient" not in text
    assert "Dice by" not in format_summary({**summary, "by": {"size": {}}})  # two cases have no thirds


def test_what_is_printed(summary, capsys):
    text = format_summary(summary)
    assert [line.split()[:3] for line in text.splitlines()[1:3]] == [
        ["liver", "0.875", "0.800"],
        ["lesion", "0.667", "0.500"],
    ]
    assert "mean    0.771 [0.667, 0.875]?" in text
    assert "fewer than 20 patients" in text and "liver: 0.875" in text
    assert "lesion: 1 of 1 lesions found" in text and "false positives a case 0.67" in text
    assert "Look first at: c.nii.gz, b/ct, a/ct" in text
    assert POLICY in text and "nan" not in text.lower() and "None" not in text
    assert max(map(len, text.splitlines()[:-1])) < 160


def test_the_table_is_printed_at_the_end(evaluated, tmp_path, capsys):
    evaluated.run(range(3))
    assert format_summary(json.loads((tmp_path / "out" / "summary.json").read_text())) in capsys.readouterr().out


def test_a_second_evaluation_starts_anew(evaluated, tmp_path):
    evaluated.run(range(3))
    first = (tmp_path / "out" / "summary.json").read_bytes()
    evaluated.run(range(3))
    assert (tmp_path / "out" / "summary.json").read_bytes() == first


def test_no_files_of_an_evaluation_that_lacks_cases(evaluated, tmp_path):
    with pytest.raises(RuntimeError, match="2 of 3 cases"):
        evaluated.run(range(2))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("column", ["patient", "dice", "case"])
def test_no_figures_by_what_names_a_case_or_is_a_figure(column):
    with pytest.raises(PyrasegError, match=f"There are no figures by '{column}'"):
        check_columns([column], [{"patient": "DOE", "dice": 1, "case": "x"}])


def test_a_column_that_no_case_has_is_refused_before_anything_is_computed():
    with pytest.raises(PyrasegError, match="'scanner' were requested, but no case of the data list has it"):
        check_columns(["size", "scanner"], [{"image": "a", "scanner": None}])
    check_columns(["size", "scanner"], [{"image": "a"}, {"image": "b", "scanner": "A"}])


def test_a_study_without_any_class_has_a_summary(tmp_path, capsys):
    """Neither truth nor prediction holds anything: there is nothing to score, and nothing breaks."""
    background = torch.zeros(1, 4, 3, 2, dtype=torch.uint8)
    probabilities = torch.nn.functional.one_hot(background[0].long(), 3).permute(3, 0, 1, 2).float()

    def step(engine: Engine, case: int) -> list[dict]:
        engine.state.batch = [{"original": IMAGE}]
        uncertainty = torch.full((2,), float("nan"))
        return [{"pred": background, "truth": background, "probabilities": probabilities, "uncertainty": uncertainty}]

    engine = Engine(step)
    ScoreTable(
        tmp_path / "out",
        cases=[{"image": str(tmp_path.resolve() / name), "patient": name} for name in "ab"],
        dataset_dir=tmp_path,
        scorer=CaseScorer(CLASSES, ["lesion"]),
        calibration=BoundaryCalibration(CLASSES, margin=1),
        by=["size"],
    ).attach(engine)
    engine.run(range(2))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["classes"]["liver"]["absent"] == 2 and summary["mean"] == {}
    assert summary["uncertainty"] == {"review": ["a", "b"]}
    assert "liver   none" in capsys.readouterr().out


# --- cases that were annotated for some of the classes ---


def test_what_was_not_annotated_has_no_row_and_counts_nowhere(tmp_path, capsys):
    """Case a is annotated for the lesion, b for the liver, c for both."""
    annotated = [["lesion"], ["liver"], None]
    names = [str(tmp_path / "data" / name) for name in "abc"]
    items = [
        {"image": name, "patient": name} | ({"annotated": told} if told else {})
        for name, told in zip(names, annotated, strict=True)
    ]

    def step(engine: Engine, case: int) -> list[dict]:
        prediction, truth = map(volume, CASES[case])
        if case == 0:
            truth[truth == 1] = 0
        sure = torch.nn.functional.one_hot(prediction[0].long(), 3).permute(3, 0, 1, 2) * 0.7 + 0.1
        engine.state.batch = [{"original": IMAGE}]
        uncertainty = torch.tensor([0.2, 0.6], dtype=torch.float64)
        return [{"pred": prediction.float(), "truth": truth, "probabilities": sure, "uncertainty": uncertainty}]

    engine = Engine(step)
    ScoreTable(
        tmp_path / "out",
        cases=items,
        dataset_dir=tmp_path / "data",
        scorer=CaseScorer(CLASSES, ["lesion"]),
        calibration=BoundaryCalibration(CLASSES, margin=1),
        by=["size"],
        resamples=200,
    ).attach(engine)
    engine.run(range(3))
    found = rows(tmp_path / "out" / "scores.csv")
    expected = [("a", "lesion"), ("b", "liver"), ("c", "liver"), ("c", "lesion")]
    assert [(row["case"], row["class"]) for row in found] == expected
    assert [float(row["uncertainty"]) for row in found] == [0.6, 0.2, 0.2, 0.6]
    review = rows(tmp_path / "out" / "review.csv")
    assert {row["case"]: float(row["uncertainty"]) for row in review} == {"a": 0.6, "b": 0.2, "c": 0.4}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    counts = ("cases", "absent", "false_alarms", "not_annotated")
    assert list(summary["classes"]) == ["liver", "lesion"]
    assert [summary["classes"]["liver"][count] for count in counts] == [1, 1, 0, 1]
    assert [summary["classes"]["lesion"][count] for count in counts] == [1, 1, 1, 1]  # what a made up is a false alarm
    alone = BoundaryCalibration(CLASSES, margin=1)
    for name, annotated_in in (("liver", (1, 2)), ("lesion", (0, 2))):
        alone.start()
        for case in annotated_in:
            prediction, truth = map(volume, CASES[case])
            truth[truth == 1] = 0 if case == 0 else 1
            sure = torch.nn.functional.one_hot(prediction[0].long(), 3).permute(3, 0, 1, 2) * 0.7 + 0.1
            alone.add(sure, prediction, truth, geometry_of(IMAGE))
        expected = json.loads(json.dumps(alone.summary()["uncalibrated"][name]))
        assert summary["calibration"]["uncalibrated"][name] == expected
    assert "not annotated" in capsys.readouterr().out


def test_a_class_that_no_case_was_annotated_for_is_told_as_such():
    table = CaseTable(CaseScorer(CLASSES), resamples=200)
    for case in CASES[1:]:
        prediction, truth = map(volume, case)
        truth[truth == 2] = 0
        table.add("x" + case[0], {"image": "x", "annotated": ["liver"]}, prediction, truth, IMAGE)
    lesion = table.summary()["classes"]["lesion"]
    assert (lesion["cases"], lesion["absent"], lesion["false_alarms"], lesion["not_annotated"]) == (0, 0, 0, 2)
    assert lesion["metrics"] == {}
