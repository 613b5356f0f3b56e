# SPDX-License-Identifier: Apache-2.0
"""From DICOM to a Pascal VOC tree, and from there to a trained, evaluated and applied network."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg_tools.commands.voc import main
from bundle.pyraseg_tools.datasets.phantom.study import write_phantom_study
from tests.helpers.commands import config_files, monai_bundle

pytestmark = pytest.mark.slow


def test_a_tree_is_trained_on_evaluated_and_segmented(tmp_path):
    write_phantom_study(tmp_path / "study", patients=8, size=72)
    tree = tmp_path / "tree"
    options = ["--class-names", "background", "liver", "lesion", "spleen", "kidney"]
    main(
        [str(tmp_path / "study"), str(tree), *options, "--label-pattern", "../labels.nii.gz", "--workers", "0",
         "--window", "center=90,width=180", "soft_tissue", "center=0,width=1000"]
    )  # fmt: skip
    tests = (tree / "ImageSets/Segmentation/test.txt").read_text().split()
    unknown = tree / "SegmentationClass" / f"{tests[0]}.png"  # a mask with VOC's void, as its own masks have
    mask = Image.open(unknown)
    mask.putdata(np.where(np.arange(mask.width * mask.height) % 9 == 0, 255, np.asarray(mask).ravel()).tolist())
    mask.save(unknown)

    common = ("--dataset_dir", str(tree), "--model_file", str(tmp_path / "model.pt"), "--num_workers", "0",
              "--slice_size", "[72,72]", "--batch_size", "8")  # fmt: skip
    trained = monai_bundle(
        "run", "training", "--config_file", config_files("train.json", "photographs.json", "voc.json"), "--epochs", "1",
        "--samples_per_epoch", "32", "--cache_dir", str(tmp_path / "cache"), "--output_dir", str(tmp_path / "runs"),
        *common, cwd=tmp_path,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stdout + trained.stderr
    counts = [len((tree / "ImageSets/Segmentation" / f"{part}.txt").read_text().split()) for part in ("train", "val")]
    assert f"Cases of 8 patients: {counts[0]} training, {counts[1]} validation, {len(tests)} test" in trained.stdout

    evaluated = monai_bundle(
        "run", "evaluating", "--config_file",
        config_files("train.json", "photographs.json", "voc.json", "evaluate.json"),
        "--output_dir", str(tmp_path / "scores"), *common, cwd=tmp_path,
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    rows = list(csv.DictReader((tmp_path / "scores" / "scores.csv").open()))
    assert len(rows) == 4 * len(tests)

    inputs = tmp_path / "inputs"
    inputs.mkdir()
    shutil.copy(tree / "JPEGImages" / f"{tests[0]}.jpg", inputs)
    inferred = monai_bundle(
        "run", "inferring", "--config_file",
        config_files("inference.json", "photographs_inference.json", "voc_inference.json"),
        "--dataset_dir",
        str(inputs), "--output_dir", str(tmp_path / "out"), "--model_file", str(tmp_path / "model.pt"),
        "--slice_size", "[72,72]", cwd=tmp_path,
    )  # fmt: skip
    assert inferred.returncode == 0, inferred.stdout + inferred.stderr
    assert Image.open(tmp_path / "out" / f"{tests[0]}.png").size == mask.size
