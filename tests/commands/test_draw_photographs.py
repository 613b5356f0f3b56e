# SPDX-License-Identifier: Apache-2.0
"""The drawn photographs, as the program leaves them and as a data list sees them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.commands import datalist
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.commands.draw_photographs import main


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_pixels_and_another_one_others(tmp_path, capsys):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        main([str(tmp_path / name), "--people", "3", "--seed", seed])
    assert f"Wrote 6 photographs of 3 made-up people, each with a mask, to {tmp_path / 'c'}" in capsys.readouterr().out
    first, again, other = (contents(tmp_path / name) for name in "abc")
    assert first == again and first.keys() == other.keys() and not set(first.values()) & set(other.values())


def test_the_mask_is_where_the_skin_is_dark(tmp_path):
    main([str(tmp_path / "drawn"), "--people", "8"])
    for path in sorted((tmp_path / "drawn" / "images").iterdir()):
        image = np.asarray(Image.open(path).convert("L"), float)
        mask = np.asarray(Image.open(tmp_path / "drawn" / "masks" / f"{path.stem}_segmentation.png"))
        assert set(np.unique(mask)) == {0, 255} and mask.shape == image.shape
        assert 0.02 < (mask > 0).mean() < 0.6
        assert image[mask > 0].mean() < 0.85 * image[mask == 0].mean(), path.name


def test_people_stay_together_and_no_two_photographs_are_nearly_the_same(tmp_path, capsys):
    main([str(tmp_path / "drawn")])
    datalist.main([str(tmp_path / "drawn"), "--patient-pattern", r"^person_(\d+)"])
    told = capsys.readouterr().out
    assert "60 cases of 30 patients" in told and "pairs: ISIC" in told
    assert "0 pairs of images are the same or nearly so" in told
    parts = json.loads((tmp_path / "drawn" / "datalist.json").read_text())
    of = {part: {item["patient"] for item in parts[part]} for part in ("training", "validation", "test")}
    assert sum(map(len, of.values())) == 30 and min(map(len, of.values())) >= 4


@pytest.mark.parametrize("options", [["--people", "2"], ["--photographs", "0"], ["--photographs", "27"]])
def test_studies_that_cannot_be(tmp_path, options):
    with pytest.raises(PyrasegError, match="at least 3 people"):
        main([str(tmp_path / "drawn"), *options])
    assert not any(tmp_path.iterdir())


def test_nothing_is_written_into_a_folder_with_something_in_it(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(PyrasegError, match="is not empty"):
        main([str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
