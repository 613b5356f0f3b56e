# SPDX-License-Identifier: Apache-2.0
"""The program that prints class weights, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.errors import PyrasegError
from bundle.pyraseg.losses import DiceFocalLoss
from scripts.class_weights import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return four training images of 100 pixels, each with 10 pixels of lesion."""
    folder = tmp_path_factory.mktemp("photographs")
    mask = np.zeros((10, 10), np.uint8)
    mask[0] = 255
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for case in range(4):
        Image.fromarray(mask).save(folder / "images" / f"{case}.png")
        Image.fromarray(mask).save(folder / "labels" / f"{case}.png")
    items = [{"image": f"images/{case}.png", "label": f"labels/{case}.png"} for case in range(4)]
    (folder / "datalist.json").write_text(json.dumps({"training": items}))
    return folder


def test_prints_a_table_and_a_line_that_the_loss_takes(photographs, capsys):
    main([str(photographs / "datalist.json"), "--class-names", "background", "lesion", "--mask-value", "255"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines[2:4]] == [
        ["background", "360", "90.0000%", "4"],
        ["lesion", "40", "10.0000%", "4"],
    ]
    weight = json.loads("{" + lines[-1] + "}")["weight"]
    assert weight == [0.2, 1.8]  # 1 : 9, mean 1
    assert DiceFocalLoss(weight=weight).weight.tolist() == pytest.approx(weight)


def test_says_which_class_is_absent(photographs, capsys):
    names = ["background", "lesion", "hair"]
    main([str(photographs), "--mask-value", "255", "--max-ratio", "5", "--class-names", *names])
    out = capsys.readouterr().out
    assert "'hair' is absent" in out
    assert json.loads("{" + out.splitlines()[-1] + "}")["weight"] == [0.2727, 1.364, 1.364]  # 1 : 5 : 5


def test_takes_the_names_of_a_config(photographs, tmp_path, capsys):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"label_names": {"lesion": [255]}, "overlap_order": None, "epochs": 3}))
    main([str(photographs), "--class-names", "background", "lesion", "--config", str(config)])
    assert json.loads("{" + capsys.readouterr().out.splitlines()[-1] + "}")["weight"] == [0.2, 1.8]
    for content in ("{", "[]"):
        config.write_text(content)
        with pytest.raises(PyrasegError, match=r"config\.json cannot be read as a JSON config"):
            main([str(photographs), "--class-names", "background", "lesion", "--config", str(config)])


def test_refuses_an_empty_part_of_the_split(photographs):
    with pytest.raises(PyrasegError, match="no cases in its part 'test'"):
        main([str(photographs), "--class-names", "background", "lesion", "--split", "test"])


def test_what_is_wrong_with_a_label_is_one_message(photographs):
    command = [sys.executable, "-m", "scripts.class_weights", str(photographs), "--class-names", "background", "lesion"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("pyraseg: ")]
    assert "holds the values 255" in line
    assert "Traceback" not in result.stderr
