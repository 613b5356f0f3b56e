# SPDX-License-Identifier: Apache-2.0
"""The page itself: what it holds, that it holds together, and how large it gets."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.evaluation.text import format_figure
from bundle.pyraseg.reporting.page import choose_views, write_report
from bundle.pyraseg.transforms.label import UNKNOWN
from tests.helpers.evaluations import evaluate, photograph, volume
from tests.helpers.training_runs import write_log


def data_of(page: Path) -> dict:
    """Return the data that the page's program reads."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())[1])


class Text(HTMLParser):
    """Collect the text of a page, without its styles and programs, and the addresses in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.text, self.addresses, self.inside = "", [], []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:
        self.inside.append("")

    def handle_data(self, data: str) -> None:
        if self.inside and self.inside[-1] not in ("style", "script"):
            self.text += data


def test_a_case_that_was_not_annotated_for_a_class_shows_nothing_of_it(tmp_path):
    """The first case lacks the first class: classes keep their order and colors, and no outline of it is drawn."""
    lesions_alone = volume("a", shift=1, lesion="missed")
    lesions_alone.truth[lesions_alone.truth == 1] = 0
    cases = [replace(lesions_alone, annotated=("lesion",)), volume("b", shift=1), volume("c", shift=2, lesion="alarm")]
    page = write_report(evaluate(tmp_path, cases))
    data = data_of(page)
    assert [of["name"] for of in data["classes"]] == ["liver", "lesion"]
    truth = data["columns"].index("truth_voxels")
    assert [[of_class[truth] for of_class in case["scores"]] for case in data["cases"]] == [
        [None, 4], [240, 0], [240, 0],
    ]  # fmt: skip
    shown = [{number for view in case["views"] for number in view["prediction"]} for case in data["cases"]]
    assert shown == [set(), {"1"}, {"1", "2"}]
    full = write_report(evaluate(tmp_path / "full", cases[1:]))
    assert "<th>not annotated</th>" in page.read_text() and "<th>not annotated</th>" not in full.read_text()


def test_the_figures_are_those_of_the_summary(evaluation):
    page = Text(write_report(evaluation))
    summary = json.loads((evaluation / "summary.json").read_text())
    text = " ".join(page.text.split())
    liver = summary["classes"]["liver"]["metrics"]
    for metric in ("dice", "iou", "precision", "recall", "surface_dice"):
        assert format_figure(liver[metric]) in text, metric
    assert format_figure(liver["hd95_mm"], 1) in text
    assert format_figure(summary["mean"]["dice"]) in text
    assert format_figure(summary["by"]["site"]["south"]["classes"]["liver"]["metrics"]["dice"]) in text
    assert format_figure(summary["classes"]["lesion"]["detection"]["false_positives_per_case"], 2) in text
    assert summary["policy"] in text
    assert f"{summary['uncertainty']['area']:.3f}" in text


def test_nothing_is_fetched_from_anywhere(evaluation, tmp_path):
    page = write_report(evaluation, training_dir=write_log(tmp_path / "runs"))
    assert all(address.startswith("#") or address == "data:," for address in Text(page).addresses)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket|import\(", page.read_text())
    assert "default-src &#39;none&#39;" in page.read_text() or "default-src 'none'" in page.read_text()


def test_names_of_others_cannot_become_a_program(tmp_path):
    names = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"&amp;', "x\u2028y"]
    cases = [volume(f"{number}{name}".replace("/", "\\"), shift=1, site=name) for number, name in enumerate(names)]
    folder = evaluate(tmp_path.resolve(), cases, class_names=["background", "<i>liver", "lesion"])
    page = write_report(folder)
    text = page.read_text()
    assert "<script>alert" not in text and "<img src=x" not in text and "<i>" not in text
    assert [case["name"] for case in data_of(page)["cases"]] == [case.name for case in cases]


def test_names_can_be_hidden(evaluation):
    page = write_report(evaluation, hide_names=True)
    assert "case_00" not in page.read_text() and "/ct" not in page.read_text()
    assert [case["name"] for case in data_of(page)["cases"]][:2] == ["case 1", "case 2"]


def test_the_same_evaluation_gives_the_same_bytes(evaluation, tmp_path):
    first = write_report(evaluation).read_bytes()
    assert write_report(evaluation, path=tmp_path / "again.html").read_bytes() == first


def test_a_case_opens_at_its_most_telling_slice_and_slices_ascend(evaluation):
    data = data_of(write_report(evaluation))
    pictures = json.loads((evaluation / "pictures.json").read_text())["cases"]
    for case, of in zip(data["cases"], pictures, strict=True):
        slices = [view["slice"] for view in case["views"]]
        assert slices == sorted(slices) and slices[case["first"]] == of["views"][0]["slice"]
        assert case["depth"] == 8


def test_an_evaluation_without_pictures_or_record_has_a_page(evaluation):
    (evaluation / "pictures.json").unlink()
    page = write_report(evaluation)
    assert all(case["views"] == [] for case in data_of(page)["cases"])
    assert "not recorded" in Text(page).text


def test_what_nobody_labeled_is_counted_as_in_the_scores(tmp_path):
    case = volume("a/ct", shift=3)
    case.truth[:, 12:] = UNKNOWN
    (shown,) = data_of(write_report(evaluate(tmp_path.resolve(), [case])))["cases"]
    assert len(shown["views"]) == 5


def test_photographs_and_volumes_together_have_a_page(tmp_path):
    """Sizes in ml and in pixels: lesions then have no common unit."""
    cases = [volume("a/ct", shift=1, lesion="missed"), photograph("b.png", shift=1), photograph("c.png", shift=2)]
    data = data_of(write_report(evaluate(tmp_path.resolve(), cases)))
    assert {"hd95_mm", "hd95_px"} <= set(data["columns"])


def test_a_study_in_which_nothing_is_there_has_a_page(tmp_path):
    case = volume("a/ct", shift=0)
    case.truth[:], case.prediction[:] = 0, 0
    data = data_of(write_report(evaluate(tmp_path.resolve(), [case])))
    assert data["metrics"] and data["cases"][0]["scores"][0][data["columns"].index("truth_voxels")] == 0


def test_patients_that_nobody_named_are_not_spoken_of(evaluation):
    summary = json.loads((evaluation / "summary.json").read_text())
    (evaluation / "summary.json").write_text(json.dumps({**summary, "unit": "cases"}))
    page = write_report(evaluation)
    text = " ".join(Text(page).text.split())
    assert f"{summary['cases']} cases." in text and "intervals over cases" in text and "Dice of each case" in text
    assert data_of(page)["unit"] == "cases"


@pytest.mark.parametrize(("best", "found"), [(b"weights", True), (b"other weights", False)])
def test_the_curves_of_the_training_are_found_by_its_weights(evaluation, best, found):
    weights = {"file": "model.pt", "sha256": hashlib.sha256(b"weights").hexdigest()}
    made_of = {"dataset": "d", "weights": weights, "split": {"hash": "abc"}, "seed": 0, "config": {}}
    (evaluation / "evaluation.json").write_text(json.dumps({**made_of, "revision": "none", "versions": {}}))
    (write_log(evaluation.parent / "training") / "best.pt").write_bytes(best)
    text = Text(write_report(evaluation)).text
    assert ("best epoch of the training whose curves are shown" in text) is found
    assert ("learning rate" in text.lower()) is found


@pytest.mark.parametrize("name", ["scores.csv", "summary.json"])
def test_a_missing_file_is_named(evaluation, name):
    (evaluation / name).unlink()
    with pytest.raises(PyrasegError, match="Give the output folder of `evaluating`"):
        write_report(evaluation)
    assert not (evaluation / "report.html").exists()


def test_files_of_several_evaluations_are_refused(evaluation, tmp_path):
    other = evaluate(tmp_path.resolve() / "other", [volume("x/ct", shift=1)])
    for name in ("summary.json", "pictures.json"):
        mixed = shutil.copytree(evaluation, tmp_path / f"mixed {name}")
        shutil.copy(other / name, mixed)
        with pytest.raises(PyrasegError, match=f"{name} and scores.csv .* are of different cases"):
            write_report(mixed)


def test_pictures_of_another_model_are_refused(tmp_path):
    """As an evaluation without a report leaves them behind, whose scores are newer."""
    older = evaluate(tmp_path.resolve() / "older", [volume("a/ct", shift=1), volume("b/ct", shift=1, lesion="alarm")])
    newer = evaluate(tmp_path.resolve() / "newer", [volume("a/ct", shift=1), volume("b/ct", shift=1)])
    shutil.copy(older / "pictures.json", newer)
    with pytest.raises(PyrasegError, match="are of different cases or predictions"):
        write_report(newer)


@pytest.mark.parametrize("name", ["summary.json", "pictures.json", "evaluation.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": 99}'])
def test_what_is_no_such_file_is_refused(evaluation, name, content):
    (evaluation / name).write_text(content)
    with pytest.raises(PyrasegError, match=rf"{name} .* Evaluate again"):
        write_report(evaluation)


def test_a_folder_is_no_place_for_a_page(evaluation, tmp_path):
    with pytest.raises(PyrasegError, match=r"is a folder\. Name the file"):
        write_report(evaluation, path=tmp_path)


def test_a_training_without_a_log_is_refused(evaluation, tmp_path):
    with pytest.raises(PyrasegError, match=r"There is no file .*log\.csv"):
        write_report(evaluation, training_dir=tmp_path)
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(PyrasegError, match="Give the output folder of `training`"):
        write_report(evaluation, training_dir=tmp_path)


def test_curves_of_the_training(evaluation, tmp_path):
    text = Text(write_report(evaluation, training_dir=write_log(tmp_path / "runs"))).text
    assert all(name in text for name in ("Loss", "Validation", "Learning rates", "encoder", "all parts"))


def test_each_case_has_a_view_before_the_worst_have_more(monkeypatch):
    views = [[{"slice": number, "of": case} for number in range(4)] for case in range(3)]
    monkeypatch.setattr("bundle.pyraseg.reporting.page.ROOM", 6 * len(json.dumps(views[0][0])))
    chosen = choose_views(views, [0.9, 0.2, 0.5])
    assert [[view["slice"] for view in case] for case in chosen] == [[0], [0, 1, 2, 3], [0]]


@pytest.mark.slow
def test_200_cases_of_real_size_stay_below_10_mb(large_evaluation, tmp_path):
    """The pictures are more than a page holds: each case has one, the worst have all of theirs."""
    assert (large_evaluation / "pictures.json").stat().st_size > 20e6
    page = write_report(large_evaluation, training_dir=write_log(tmp_path / "runs", epochs=200))
    assert 8e6 < page.stat().st_size < 10e6
    shown = [len(case["views"]) for case in data_of(page)["cases"]]
    assert len(shown) == 200 and min(shown) == 1 and max(shown) >= 8
    by_dice = sorted(data_of(page)["cases"], key=lambda case: case["scores"][0][0])
    assert len(by_dice[0]["views"]) == max(shown) and len(by_dice[-1]["views"]) == 1
