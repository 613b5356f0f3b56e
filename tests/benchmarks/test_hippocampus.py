# SPDX-License-Identifier: Apache-2.0
"""The comparison on the hippocampus: lengths that cost what they should, label maps scored, runs made once."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from monai.networks import one_hot

from benchmarks.costs import FEWEST_EPOCHS, VALIDATIONS, Costs, fitting
from benchmarks.hippocampus import nnunet, score, trials
from benchmarks.hippocampus.study import PREDICTED, label_file, read_run, read_split, write_run
from bundle.pyraseg.core.errors import PyrasegError

AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])
SHAPE = (20, 24, 12)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Write volumes of a bright ellipsoid in two parts, in the Decathlon's manner."""
    folder = tmp_path_factory.mktemp("study")
    generator = np.random.default_rng(0)
    x, y, z = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(12):
        center = generator.uniform(-2, 2, 3) + np.array(SHAPE) / 2
        inside = ((x - center[0]) / 5) ** 2 + ((y - center[1]) / 8) ** 2 + ((z - center[2]) / 4) ** 2 < 1
        label = np.where(inside, np.where(y > center[1], 1, 2), 0).astype(np.uint8)
        image = (label * 100 + generator.normal(100, 10, SHAPE)).astype(np.float32)
        for kind, values in (("images", image), ("labels", label)):
            nibabel.save(nibabel.Nifti1Image(values, AFFINE), folder / kind / f"hippocampus_{number:03}.nii.gz")
    return folder


def make_run(folder: Path, study: Path, *, name: str, shift: int, minutes: float = 5.0) -> Path:
    """Write a finished run whose label maps are the truth, shifted along the first axis."""
    cases, split = read_split(study)
    for part in PREDICTED:
        for case, (_, label) in cases[part].items():
            path = label_file(folder, part, case)
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.roll(np.asanyarray(nibabel.load(label).dataobj), shift, axis=0)
            nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)
    training = {"processor_minutes": 4.9, "steps": 100, "batch_size": 4, "parameters": 2_340_000}
    record = {"name": name, "minutes": minutes, "seed": 0, "split": split, "seconds_a_volume": {}}
    record["training"] = training | {"versions": {"torch": "2"}}
    record["seconds_a_volume"] = {"processor_seconds": 1.234}
    write_run(folder, record)
    return folder


@pytest.mark.parametrize("seconds", [60, 300, 3600])
@pytest.mark.parametrize("costs", [Costs(0.3, 2.0, 0.1), Costs(1.0, 5.0, 0.5), Costs(0.05, 0.1, 0.01)])
def test_a_training_costs_its_time(seconds, costs):
    length = fitting(costs, seconds, batch_size=4, val_interval=2)
    spent = length.seconds(costs, batch_size=4)
    assert seconds - length.epochs * costs.step < spent <= seconds
    assert length.epochs >= FEWEST_EPOCHS and length.val_interval >= 2 and length.samples_per_epoch % 4 == 0
    validated = sum(epoch % length.val_interval == 0 or epoch == length.epochs for epoch in range(1, length.epochs + 1))
    assert validated == length.validations()
    assert validated == 1 or validated * costs.validation <= VALIDATIONS * seconds


def test_too_few_minutes_are_refused():
    with pytest.raises(PyrasegError, match="too short"):
        fitting(Costs(1.0, 5.0, 0.5), 10, batch_size=4, val_interval=2)


def test_dice_is_monai_s(tmp_path):
    generator = np.random.default_rng(1)
    maps = generator.integers(0, 3, (2, *SHAPE)).astype(np.uint8)
    paths = [tmp_path / f"{number}.nii.gz" for number in range(2)]
    for values, path in zip(maps, paths, strict=True):
        nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)
    predicted, truth = (one_hot(torch.from_numpy(values)[None, None], 3) for values in maps)
    expected = DiceMetric(include_background=False)(predicted, truth)[0]
    assert score.dice_of(*paths) == pytest.approx(expected.tolist(), abs=1e-6)


def test_label_maps_that_cannot_be_scored_are_refused(tmp_path):
    truth, other = tmp_path / "truth.nii.gz", tmp_path / "other.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE), truth)
    with pytest.raises(PyrasegError, match="did not predict"):
        score.dice_of(other, truth)
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), np.diag([2.0, 1, 1, 1])), other)
    with pytest.raises(PyrasegError, match="does not lie on the grid"):
        score.dice_of(other, truth)
    nibabel.save(nibabel.Nifti1Image(np.full(SHAPE, 3, np.uint8), AFFINE), other)
    with pytest.raises(PyrasegError, match="other values than 0 to 2"):
        score.dice_of(other, truth)


def test_runs_become_a_table(study, tmp_path):
    results, page = tmp_path / "results", tmp_path / "page.md"
    page.write_text("<!-- begin hippocampus -->\n<!-- end hippocampus -->\n")
    options = ["--results", str(results), "--page", str(page)]
    (results).mkdir()
    score.main([str(study), *options])
    assert score.NOTHING in page.read_text()
    runs = [
        make_run(tmp_path / "ours", study, name=score.OURS, shift=0),
        make_run(tmp_path / "peer", study, name="DynUNet", shift=2),
        make_run(tmp_path / "longer", study, name="DynUNet", shift=1, minutes=60.0),
    ]
    score.main([str(study), *map(str, runs), *options])
    compared = json.loads((results / "compared.json").read_text())
    assert [(row["name"], row["minutes"]) for row in compared] == [(score.OURS, 5), ("DynUNet", 5), ("DynUNet", 60)]
    ours, peer, longer = compared
    assert ours["test"]["mean"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    difference = peer[f"{score.OURS} minus this, test"]
    assert difference["mean"] == pytest.approx(1 - peer["test"]["mean"]["mean"])
    assert difference["low"] < difference["mean"] < difference["high"]
    both = [peer["test"][name]["mean"] for name in score.CLASSES]
    assert np.mean(both) == pytest.approx(peer["test"]["mean"]["mean"])
    assert not any("minus" in key for key in (*ours, *longer)), "ours alone, and a run of other minutes"
    text = page.read_text()
    assert (
        text.count("| DynUNet |") == 2 and "| 100 x 4 | 2.3 M | 1.000 [1.000, 1.000] |" in text and "| 1.23 |" in text
    )
    kept = [path.read_text() for path in results.rglob("*") if path.is_file()]
    assert len(kept) == 3 * 3 + 1 and not any(str(tmp_path) in content for content in kept)


def test_a_run_of_another_split_is_refused(study, tmp_path):
    run = make_run(tmp_path / "run", study, name="DynUNet", shift=0)
    fewer = tmp_path / "fewer"
    shutil.copytree(study, fewer)
    for kind in ("images", "labels"):
        (fewer / kind / "hippocampus_000.nii.gz").unlink()
    with pytest.raises(PyrasegError, match="of the split"):
        score.keep(run, fewer, tmp_path / "results")
    (run / "run.json").unlink()
    with pytest.raises(PyrasegError, match="not finished"):
        score.keep(run, study, tmp_path / "results")


def test_nnunet_gets_the_test_part_to_predict_alone(study, tmp_path):
    cases, _ = read_split(study)
    nnunet.write_raw(cases, tmp_path / "raw")
    names = {
        path.name: sorted(file.name for file in path.iterdir()) for path in tmp_path.glob("raw/*") if path.is_dir()
    }
    known = sorted([*cases["training"], *cases["validation"]])
    assert names["imagesTr"] == [f"{case}_0000.nii.gz" for case in known]
    assert names["labelsTr"] == [f"{case}.nii.gz" for case in known]
    assert names["images_test"] == [f"{case}_0000.nii.gz" for case in sorted(cases["test"])]
    assert names["images_validation"] == [f"{case}_0000.nii.gz" for case in sorted(cases["validation"])]
    described = json.loads((tmp_path / "raw" / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "anterior": 1, "posterior": 2}
    assert described["numTraining"] == len(known)


@pytest.mark.slow
def test_a_run_is_made_once_and_scored(study, tmp_path):
    tiny = ["--batch_size", "2", "--slice_size", "[64,64]", "--spacing", "1.0", "--pretrained", "false"]
    command = ["PSPNet on slices", str(study), "--minutes", "0.15", "--work", str(tmp_path / "work"), *tiny]
    trials.main(command)
    folder = tmp_path / "work" / "PSPNet_on_slices_0.15min_seed0"
    record = read_run(folder)
    epochs = json.loads((folder / "epochs.json").read_text())
    assert list(map(int, epochs)) == list(range(1, record["training"]["epochs"] + 1))
    assert record["training"]["processor_minutes"] == pytest.approx(sum(epochs.values()) / 60)
    assert record["seconds_a_volume"]["processor_seconds"] > 0

    weights = (folder / "training" / "best.pt").stat().st_mtime_ns
    (folder / "run.json").unlink()
    (folder / "test.json").unlink()  # as if killed while it predicted
    trials.main(command)
    assert (folder / "training" / "best.pt").stat().st_mtime_ns == weights, "it was not trained again"
    again = read_run(folder)
    assert again["training"] == record["training"]
    with pytest.raises(PyrasegError, match="other options"):
        trials.main([*command, "--dropout", "0.5"])

    kept = score.keep(folder, study, tmp_path / "results")
    (found,) = score.kept(tmp_path / "results")
    assert found["test"][1].shape == (len(found["test"][0]), 2) and kept.name == folder.name
