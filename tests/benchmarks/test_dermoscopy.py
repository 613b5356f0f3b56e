# SPDX-License-Identifier: Apache-2.0
"""The dermoscopy benchmark: peers start alike, trainings are made once, tables come from what was kept."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.dermoscopy import __main__ as program
from benchmarks.dermoscopy import tables, unfreezing
from benchmarks.dermoscopy.plans import plans
from benchmarks.dermoscopy.tables import compact
from benchmarks.trials import config_hash, split_hashes
from bundle.pyraseg.core.errors import PyrasegError

TINY = ["--epochs=1", "--samples_per_epoch=4", "--batch_size=2", "--slice_size=[64,64]", "--num_workers=0"]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Write photographs of dark ellipses on skin, in names and sizes like those of ISIC."""
    folder = tmp_path_factory.mktemp("study")
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(20):
        center, radius = generator.uniform(24, 40, 2), generator.uniform(8, 20, 2)
        inside = ((x - center[0]) / radius[0]) ** 2 + ((y - center[1]) / radius[1]) ** 2 < 1
        photograph = np.where(inside[..., None], (90, 50, 40), (200, 160, 140)) + generator.normal(0, 5, (64, 64, 3))
        Image.fromarray(photograph.astype(np.uint8)).save(folder / "images" / f"ISIC_{number:07}.jpg")
        mask = Image.fromarray((inside * 255).astype(np.uint8))
        mask.save(folder / "masks" / f"ISIC_{number:07}_segmentation.png")
    return folder


def test_plans_of_one_stage_keep_rates_and_end():
    stages = [
        {
            "name": "new parts",
            "epoch_fraction": 0.2,
            "augmentation_strength": 0.5,
            "learning_rates": {"pyramid": 2e-3, "head": 1e-3},
        },
        {
            "name": "all",
            "epoch_fraction": 0.8,
            "final_lr_factor": 0.1,
            "learning_rates": {"encoder.stages.3": 1e-4, "pyramid": 1e-3},
        },
    ]
    found = plans(stages)
    rates = {"pyramid": 2e-3, "head": 1e-3}
    whole = {
        "name": "all parts",
        "epoch_fraction": 1.0,
        "final_lr_factor": 0.1,
        "learning_rates": rates | {"encoder.stages.3": 1e-4},
    }
    assert found["staged"] == {"plan#stages": stages}
    assert found["everything at once"] == {"plan#stages": [whole]}
    assert found["encoder frozen throughout"] == {
        "plan#stages": [{**whole, "name": "new parts", "learning_rates": rates}]
    }


@pytest.mark.slow
def test_a_training_is_made_once_and_its_figures_become_tables(study, tmp_path, capsys):
    places = ["--dataset-dir", str(study), "--work", str(tmp_path / "work"), "--cache", str(tmp_path / "cache")]
    places += ["--results", str(tmp_path / "results")]
    chosen = ["--only", "PSPNet fpn", "smp U-Net", *TINY]
    program.main([*places, *chosen])
    folders = [tmp_path / "results" / "networks" / f"{name}-seed0" for name in ("PSPNet_fpn", "smp_U-Net")]
    kept = [json.loads((folder / "run.json").read_text()) for folder in folders]
    assert [record["name"] for record in kept] == ["PSPNet fpn", "smp U-Net"]
    assert kept[0]["split"] == kept[1]["split"] and kept[0]["training_cases"] == 14
    assert all(
        {file.name for file in folder.iterdir()} == {"run.json", "log.csv", "validation.csv"} for folder in folders
    )
    first = tables.case_scores(folders[0] / "validation.csv")
    assert first["dice"].mean() == pytest.approx(kept[0]["validation"]["dice"], abs=1e-5)

    shutil.rmtree(tmp_path / "work" / "networks" / "PSPNet_fpn-seed0")  # nothing of it is needed again
    written = (folders[0] / "run.json").stat().st_mtime_ns
    (folders[1] / "run.json").unlink()  # as if killed
    program.main([*places, *chosen])
    assert (folders[0] / "run.json").stat().st_mtime_ns == written
    again = json.loads((folders[1] / "run.json").read_text())
    assert again["validation"] == kept[1]["validation"], "the same seed gives the same training"
    with pytest.raises(PyrasegError, match="other settings"):
        program.main([*places, *chosen, "--dropout", "0.5"])

    program.main([*places, "--only", "PSPNet fpn", "--seeds", "1", "--every", "2", *TINY])
    other = json.loads((folders[0].with_name("PSPNet_fpn-seed1") / "run.json").read_text())
    assert other["split"] == kept[0]["split"] and other["training_cases"] == 7, "a seed does not change the split"

    program.main([*places, "--only", "smp U-Net", *TINY, "--score-test"])
    assert len(tables.case_scores(folders[1] / "test.csv")["case"]) == 3
    page = tmp_path / "page.md"
    names = [
        "networks validation",
        "differences validation",
        "networks test",
        "differences test",
        "plans",
        "settings",
        "unfreezing",
    ]
    page.write_text("\n".join(f"<!-- begin {name} -->\n<!-- end {name} -->" for name in names))
    card = tmp_path / "card.md"
    card.write_text("<!-- begin shipped -->\n<!-- end shipped -->")
    tables.main(["--results", str(tmp_path / "results"), "--page", str(page), "--card", str(card)])
    assert tables.NOTHING in card.read_text()  # the included model has no scores there
    text = page.read_text()
    assert "| PSPNet fpn | smp U-Net |" in text and text.count("| smp U-Net | 6") == 2
    assert text.count(tables.NOTHING) == 4  # differences on test, plans, settings, unfreezing


@pytest.mark.slow
def test_statistics_move_where_nothing_learns(study, tmp_path):
    stage = {"name": "new parts", "epoch_fraction": 1.0, "learning_rates": {"pyramid": 1e-3, "head": 1e-3}}
    found = unfreezing.measure(**{
        "dataset_dir": str(study), "cache_dir": str(tmp_path / "cache"), "output_dir": str(tmp_path / "run"),
        "model_file": str(tmp_path / "model.pt"), "plan#stages": [stage], "epochs": 1, "samples_per_epoch": 32,
        "batch_size": 2, "slice_size": [64, 64], "num_workers": 0,
    })  # fmt: skip
    assert list(found["dice"]) == [0, *unfreezing.BATCHES] and found["validation_cases"] == 3
    assert len(set(found["dice"].values())) > 1


def test_a_name_that_is_none_is_refused(tmp_path):
    with pytest.raises(PyrasegError, match="there is no"):
        program.main(["settings", "--dataset-dir", str(tmp_path), "--only", "no such setting"])


def test_hashes_tell_what_matters():
    cases = {"test": [{"image": "/a/b.jpg"}, {"image": "/a/c.jpg"}]}
    moved = {"test": [{"image": "/elsewhere/c.jpg"}, {"image": "/elsewhere/b.jpg"}]}
    assert split_hashes(cases) == split_hashes(moved)
    assert split_hashes(cases)["test"]["cases"] == 2
    assert split_hashes(cases) != split_hashes({"test": [{"image": "/a/b.jpg"}]})
    assert config_hash({"epochs": 1, "device": "cpu"}) == config_hash({"device": "cuda", "epochs": 1})
    assert config_hash({"epochs": 1}) != config_hash({"epochs": 2})


def test_scores_are_kept_by_the_name_of_the_photograph(tmp_path):
    scores = tmp_path / "scores.csv"
    scores.write_text("case,class,dice,iou\nimages/ISIC_1.jpg,lesion,0.80000000,0.66666667\n")
    assert compact(scores) == "case,dice,jaccard\nISIC_1,0.800000,0.666667\n"


def test_near_copies_of_the_test_part_are_left_out_of_a_row_of_the_card(tmp_path):
    folder, results = tmp_path / tables.INCLUDED, tmp_path / "dermoscopy"
    folder.mkdir(parents=True)
    results.mkdir()
    cases = {part: {"cases": 2, "sha256": "0" * 64} for part in ("training", "validation", "test")}
    record = {"seed": 0, "split": cases, "epochs": 1, "samples_per_epoch": 2, "best_epoch": 1}
    record |= {"batch_size": 1, "processor_minutes": 1.0, "device": "a processor"}
    record |= {"versions": dict.fromkeys(("torch", "monai", "timm"), "1")}
    (folder / "run.json").write_text(json.dumps(record))
    for part in ("validation", "test"):
        (folder / f"{part}.csv").write_text("case,dice,iou\nfirst,0.8,0.6\nsecond,0.8,0.6\ncopied,1.0,1.0\n")
    leaks = {
        "pairs": [{"images": {"copied": "test", "other": "training"}}, {"images": {"a": "training", "b": "validation"}}]
    }
    (results / "leaks.json").write_text(json.dumps(leaks))
    assert tables.leaked_cases(results) == ["copied"]
    rows = {
        row.split(" | ")[0].removeprefix("| "): row for row in tables.card_table(results).splitlines() if "|" in row
    }
    assert "| 0.733 [" in rows["test"] and "| 0.333 [" in rows["test"] and "| 0.867 [" in rows["test"]
    assert rows["test, without near copies"].count("0.600 [0.600, 0.600]") == 1  # 0.6 is under the threshold of 0.65
    assert "0.000 [0.000, 0.000]" in rows["test, without near copies"]
