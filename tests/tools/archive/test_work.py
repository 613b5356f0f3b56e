# SPDX-License-Identifier: Apache-2.0
"""A worker's results, beside the bundle's own inference, and what it says of a series that it cannot do."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pydicom
import pytest

from bundle.pyraseg.core import PyrasegError, file_digest
from bundle.pyraseg_tools.archive import AGAIN, DONE, FAILED, Job, Row
from bundle.pyraseg_tools.archive.work import SeriesWorker, scratch
from tests.helpers import dicom_files as files
from tests.helpers.exported import Exported
from tests.helpers.guards import made_up_guard
from tests.helpers.pacs_series import small_series
from tests.tools.archive.conftest import due, masks


@pytest.fixture
def worker(job, tmp_path):
    """Return what makes a worker."""

    def make(*target: object, **more: object) -> SeriesWorker:
        (folder := tmp_path / "scratch").mkdir(exist_ok=True)
        return SeriesWorker(job(*target, **more), folder)

    return make


@pytest.fixture
def one(tmp_path: Path, listed) -> Row:
    small_series(tmp_path / "a", "one", slices=4, seed=1)
    return listed(tmp_path / "a")[0]


def test_every_voxel_is_as_the_bundle_has_it(model, listed, worker, tmp_path):
    root = tmp_path / "a"
    sources = {path.parent.name: path for number in range(3) for path in small_series(root, f"s{number}", seed=number)}
    positions = np.array([[0, 0, number] for number in range(3)], float)
    pixels = np.random.default_rng(9).integers(-200, 300, (3, 20, 24)).astype(np.int16)
    uids = {"StudyInstanceUID": files.uid("frames"), "SeriesInstanceUID": files.uid("frames", 1)}
    files.write_enhanced(root / "frames" / "a.dcm", pixels, positions, **uids)
    working, truths = worker(), []
    for row in due(listed(root)):
        outcome = working.work(row)
        assert outcome.state == DONE and not outcome.reason and not outcome.found
        folder = root / Path(row.files[0]).parent
        truth = model.truth(str(folder))
        truths.append(truth)
        result = tmp_path / "results" / f"{outcome.name}.dcm"
        seg = pydicom.dcmread(result)
        assert seg.StudyInstanceUID == row.study and seg.ReferencedSeriesSequence[0].SeriesInstanceUID == row.series
        if folder.name in sources:
            assert np.array_equal(masks(result, folder.iterdir()), truth)
        for number, name in enumerate(("liver", "spleen"), 1):  # voxels of 1 mm³
            assert outcome.volumes[name] == pytest.approx(np.count_nonzero(truth == number) / 1000)
        assert outcome.seconds.keys() == {"fetching", "segmenting", "delivering"}
        figures = json.loads(result.with_suffix(".json").read_text())
        assert figures == {"volumes": outcome.volumes, "unlike": None}
        again = working.work(row)
        assert again.found and (again.name, again.volumes) == (outcome.name, outcome.volumes)
    assert len(truths) == 4 and not np.array_equal(truths[0], truths[1])
    assert not list((tmp_path / "scratch").iterdir())


def test_two_runs_make_the_same_bytes_wherever_the_images_lie(one, worker, tmp_path):
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    results = []
    for source in "ab":
        outcome = worker(tmp_path / f"to {source}").work(replace(one, source=str(tmp_path / source)))
        results.append((outcome.name, (tmp_path / f"to {source}" / f"{outcome.name}.dcm").read_bytes()))
    assert results[0] == results[1]


def test_other_settings_make_another_result(one, worker, job, tmp_path):
    """What is selected, or the form of the SEG, changes the object: it may neither be taken for the other nor share its
    UIDs."""
    workers = [worker(), worker(seg_type="LABELMAP"), worker(select={"SeriesInstanceUID": one.series})]
    outcomes = [each.work(one) for each in workers]
    assert [outcome.state for outcome in outcomes] == [DONE] * 3 and not any(outcome.found for outcome in outcomes)
    found = [pydicom.dcmread(file) for file in (tmp_path / "results").rglob("*.dcm")]
    assert len({seg.SOPInstanceUID for seg in found}) == 3
    assert len({each.job.key for each in workers}) == 3
    assert job().key == job(threads=2, unlike="warn").key == job().model_hash


def test_each_broken_series_is_named_with_its_reason(one, worker, tmp_path, listed):
    root = tmp_path / "a"
    (path, *_) = small_series(root, "torn")
    path.write_bytes(path.read_bytes()[:-100])
    lone = files.write_image(
        root / "lone" / "x.dcm", np.zeros((20, 24), np.int16), SeriesInstanceUID=files.uid("lone"), Modality="CT"
    )
    small_series(root, "changed")
    rows = {Path(row.files[0]).parent.name: row for row in due(listed(root))}
    (root / "changed" / "slice_000.dcm").write_bytes(lone.read_bytes())
    working = worker()
    for name, reason in (
        ("torn", "slice_000.dcm"),
        ("lone", "has no patient position"),
        ("changed", "when they were listed"),
    ):
        outcome = working.work(rows[name])
        assert outcome.state == FAILED and reason in outcome.reason and outcome.series == rows[name].series
        assert "Secret" not in outcome.text and "SECRET" not in outcome.text and not outcome.no_way
    assert working.work(one).state == DONE
    assert len(list((tmp_path / "results").rglob("*.dcm"))) == 1


def test_what_is_no_fault_of_the_series_may_be_tried_again(one, worker, tmp_path, limit_files):
    working = worker()
    (tmp_path / "a").rename(tmp_path / "away")
    outcome = working.work(one)
    assert (outcome.state, outcome.no_way) == (AGAIN, True) and "Mount it" in outcome.reason
    (tmp_path / "away").rename(tmp_path / "a")
    limit_files(300)
    outcome = working.work(one)
    limit_files(-1)
    assert (outcome.state, outcome.no_way) == (AGAIN, True) and "Free some space" in outcome.reason
    assert not list((tmp_path / "results").rglob("*.dcm"))
    shutil.rmtree(tmp_path / "scratch")
    outcome = working.work(one)
    assert (outcome.state, outcome.no_way) == (AGAIN, False) and "No such file" in outcome.reason
    (tmp_path / "scratch").mkdir()
    assert working.work(one).state == DONE


def test_a_worker_with_another_model_does_nothing(job, tmp_path):
    shutil.copy(job().model, tmp_path / "other.onnx")
    with (tmp_path / "other.onnx").open("ab") as file:
        file.write(b" ")
    with pytest.raises(PyrasegError, match="is another model"):
        SeriesWorker(replace(job(), model=tmp_path / "other.onnx"), tmp_path)


def test_a_guard_of_infinite_distance_leaves_json_that_others_read(tmp_path, one, guarded):
    """A flat image may be infinitely far from those of the training; JSON has no infinity."""
    (tmp_path / "scratch").mkdir()
    made = Job(guarded, file_digest(guarded), str(tmp_path / "results"), tmp_path / "images", unlike="warn")
    outcome = SeriesWorker(made, tmp_path / "scratch").work(one)
    assert outcome.state == DONE and outcome.unlike == 1e9

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads(outcome.text, parse_constant=refuse)
    (figures,) = (tmp_path / "results").rglob("*.json")
    assert json.loads(figures.read_text(), parse_constant=refuse)["unlike"] == 1e9


@pytest.fixture
def guarded(model: Exported, tmp_path: Path) -> Path:
    """Return the model with a guard to which everything is infinitely far."""
    guard = replace(made_up_guard(9), residual=1e-320)
    graph = onnx.load(model.path)
    graph.metadata_props.add(key="guard", value=guard.text)
    onnx.save(graph, tmp_path / "guarded.onnx")
    return tmp_path / "guarded.onnx"


def test_images_of_killed_processes_are_removed_and_those_of_others_stay(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for name in (f"{socket.gethostname()}-{ended.pid}", f"{socket.gethostname()}-{os.getppid()}", "elsewhere-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image").touch()
    (tmp_path / f"{socket.gethostname()}-notes").mkdir()
    with scratch(tmp_path) as own:
        assert own.stat().st_mode & 0o77 == 0
        assert {path.name for path in tmp_path.iterdir()} == {
            own.name,
            f"{socket.gethostname()}-{os.getppid()}",
            f"{socket.gethostname()}-notes",
            "elsewhere-1",
        }
    assert not own.exists()
