# SPDX-License-Identifier: Apache-2.0
"""What the export refuses, in words, before it computes anything; what it writes: tests/end_to_end/test_onnx.py."""

from pathlib import Path

import pytest

from bundle.pyraseg.commands.export import main
from bundle.pyraseg.core.errors import PyrasegError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CT = str(CONFIGS / "inference.json")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["none.json"], "There is no config at none.json"),
        ([CT, "--model-file", "none.pt"], "no trained model at none.pt"),
        ([CT, "--spacin", "2"], "nearest name is 'spacing'"),
        ([CT, "--spacing"], "--spacing has no value"),
        ([CT, "--run", "nowhere"], "no record at"),
        ([CT, "--metadata", "none.json"], "no config at none.json"),
    ],
)
def test_what_is_wrong_is_one_message(arguments, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PyrasegError, match=text):
        main([*arguments, "--output-dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
