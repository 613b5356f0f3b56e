# SPDX-License-Identifier: Apache-2.0
"""The program that scores label maps against others, as a user runs it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.commands.compare_labels import main


@pytest.fixture
def readers(tmp_path: Path) -> Path:
    """Return masks of 12 cases by two readers: the first marks 10 pixels, the second 5 of them and 5 others."""
    first, second = np.zeros((2, 10, 10), np.uint8)
    first[0], second[0, :5], second[1, :5] = 255, 255, 255
    for folder, mask in (("first", first), ("second", second)):
        (tmp_path / folder).mkdir()
        for case in range(12):
            Image.fromarray(mask).save(tmp_path / folder / f"p{case // 2}{'LR'[case % 2]}.png")
    return tmp_path


PATTERNS = ["--label-pattern", "first/{case}.png", "--scored-pattern", "second/{case}.png"]
CLASSES = ["--mask-value", "255", "--class-names", "background", "vessel"]


def test_scores_by_hand(readers, capsys):
    main([str(readers), *PATTERNS, *CLASSES, "--patient-pattern", "(.+)[LR]", "--split", "training"])
    out = capsys.readouterr().out
    assert "second/{case}.png against first/{case}.png, 8 cases (training)" in out  # both eyes of 4.2 of 6 patients
    (row,) = [line.split() for line in out.splitlines() if line.startswith("vessel")]
    assert row[:7] == ["vessel", "0.500", "[0.500,", "0.500]?", "0.333", "0.500", "0.500"]
    assert float(row[7]) == pytest.approx(4, abs=1)  # px from the end of the first line to what the second has of it
    assert row[8:] == ["8", "0", "0", "0"]
    assert "fewer than 20 patients" in out


def test_the_scored_are_not_the_truth(readers, capsys):
    for path in (readers / "second").iterdir():
        Image.fromarray(np.full((10, 10), 255, np.uint8)).save(path)
    main([str(readers), *PATTERNS, *CLASSES])
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("vessel")]
    assert row[4:7] == ["0.100", "0.100", "1.000"]  # IoU, precision and recall of marking everything


def test_refuses_an_empty_part_of_the_split(tmp_path):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / folder / "a.png")
    with pytest.raises(PyrasegError, match="no cases in its part 'test'"):
        main([str(tmp_path), *PATTERNS, *CLASSES])
