# SPDX-License-Identifier: Apache-2.0
"""The program `pyraseg review`, as a user runs it on files that highdicom wrote."""

import csv
import json

import numpy as np
import pydicom
import pytest
from scipy.stats import beta

from bundle.pyraseg.commands.console import main
from bundle.pyraseg_tools.review.log import ReviewLog
from tests.helpers.reviews import reviewed, write_by_highdicom, write_scan

RESULT = np.zeros((3, 8, 8), np.uint8)
RESULT[1, 2:6, 2:6] = 1
CORRECTED = RESULT.copy()
CORRECTED[1, 5, 2:6] = 0


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Return a result, its correction and options that say where everything is."""
    monkeypatch.chdir(tmp_path)
    scan = write_scan(tmp_path / "scan")
    result = write_by_highdicom(tmp_path / "result.dcm", scan, RESULT)
    corrected = write_by_highdicom(tmp_path / "corrected.dcm", scan, CORRECTED, "SEMIAUTOMATIC")
    return result, corrected, [str(result), "--images", str(scan), "--reviewer", "radiologist"]


def stored(path="runs/reviews.jsonl"):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_each_decision_is_stored(files, capsys):
    result, corrected, options = files
    uid = pydicom.dcmread(result).SOPInstanceUID
    for own in (["--accept"], ["--reject"], ["--amended", str(corrected)]):
        assert main(["review", *options, *own]) == 0
    told = stored()
    assert [one["decision"] for one in told] == ["accepted", "rejected", "amended"]
    assert {one["result"]["uid"] for one in told} == {uid}
    assert told[2]["correction"] == pydicom.dcmread(corrected).SOPInstanceUID
    assert told[2]["dice"] == pytest.approx({"liver": 2 * 12 / 28})
    assert {one["manufacturer"] for one in told} == {"Maker"} and {one["model_name"] for one in told} == {"Scanner 7"}
    assert "amended: a result of pyraseg_phantom 0123456789ab; Dice liver 0.857" in capsys.readouterr().out


def test_a_correction_that_changes_nothing_accepts(files, tmp_path):
    _, _, options = files
    same = write_by_highdicom(tmp_path / "same.dcm", tmp_path / "scan", RESULT, "SEMIAUTOMATIC")
    assert main(["review", *options, "--amended", str(same)]) == 0
    (told,) = stored()
    assert told["decision"] == "accepted" and told["dice"] == {"liver": 1}


def test_what_is_no_review_is_refused(files, tmp_path, capsys, monkeypatch):
    result, corrected, options = files
    other = write_by_highdicom(tmp_path / "other.dcm", tmp_path / "scan", CORRECTED)
    elsewhere = [str(result), "--images", str(write_elsewhere(tmp_path)), *options[3:]]
    for words, message in [
        ([str(corrected), *options[1:], "--accept"], "Segment Algorithm Type is SEMIAUTOMATIC"),
        ([*options, "--amended", str(other)], "made by a program alone"),
        ([*options[:3], "--accept"], "Nobody is named who decides"),
        ([*options[:3], "--accept", "--reviewer", "SECRET-ID"], "as the patient"),
        ([*elsewhere, "--accept"], "of none of the 1 series"),
    ]:
        assert main(["review", *words]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    for words in ([str(result), "--accept"], options, [*options, "--accept", "--reject"]):
        with pytest.raises(SystemExit) as error:
            main(["review", *words])
        assert error.value.code == 2
    monkeypatch.setenv("PYRASEG_REVIEWER", "reader")
    assert main(["review", *options[:3], "--accept"]) == 0 and stored()[0]["reviewer"] == "reader"


def write_elsewhere(folder):
    for file in write_scan(folder / "elsewhere").glob("*.dcm"):
        image = pydicom.dcmread(file)
        image.SeriesInstanceUID = image.FrameOfReferenceUID = "2.25.7"
        image.SOPInstanceUID += ".7"
        image.save_as(file)
    return folder / "elsewhere"


def test_the_report_shows_and_rings(tmp_path, capsys):
    log = ReviewLog(tmp_path / "reviews.jsonl")
    for review in [*reviewed("+" * 45 + "~" * 5), *reviewed("~" * 12 + "+" * 8, scanner="Maker Two", start=50)]:
        log.add(review)
    before = log.path.read_bytes()
    words = ["review", "--report", str(tmp_path / "out"), "--reviews", str(log.path)]
    assert main(words) == 1
    assert "ALARM: all results: 8 of the last 20 accepted, 45 of the first 50" in capsys.readouterr().out
    with (tmp_path / "out" / "reviews.csv").open(newline="") as file:
        rows = {(row["by"], row["group"], row["figure"]): row for row in csv.DictReader(file)}
    found = rows["scanner", "Maker Two", "share accepted"]
    assert (found["count"], found["of"], float(found["value"])) == ("8", "20", 0.4)
    assert float(found["low"]) == pytest.approx(beta.ppf(0.025, 8, 13), abs=1e-6)
    assert float(rows["all", "all", "Dice liver"]["value"]) == pytest.approx(0.9)
    page = (tmp_path / "out" / "reviews.html").read_text()
    assert "The alarm rings" in page and "Fisher&#39;s exact test" in page and "Maker Two" in page
    assert "radiologist" not in page and "2.25." not in page
    assert main([*words, "--level", "0.00001"]) == 0
    assert "No alarm" in (tmp_path / "out" / "reviews.html").read_text()
    assert log.path.read_bytes() == before


def test_texts_of_headers_are_escaped_in_the_page(tmp_path):
    log = ReviewLog(tmp_path / "reviews.jsonl")
    log.add(reviewed("~", scanner="<script>alert(1)</script> One")[0])
    assert main(["review", "--report", str(tmp_path / "out"), "--reviews", str(log.path)]) == 0
    assert "<script>alert" not in (tmp_path / "out" / "reviews.html").read_text()


def test_no_reviews_are_told(tmp_path, capsys):
    assert main(["review", "--report", str(tmp_path / "out"), "--reviews", str(tmp_path / "absent")]) == 1
    assert "There is no file of reviews" in capsys.readouterr().err
