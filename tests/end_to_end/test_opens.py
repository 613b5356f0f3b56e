# SPDX-License-Identifier: Apache-2.0
"""How often a DICOM file is opened between its folder and the SEG: once for its header, once for its pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from tests.helpers.commands import config_files
from tests.helpers.dicom_files import write_enhanced, write_series
from tests.helpers.exported import exported
from tests.helpers.onnx_paths import WINDOWS, volume
from tests.helpers.warm import python

#: Runs a module as `python -m` does, and writes how often each file of a folder was opened, by Python's audit events.
COUNTED = """
import json, os, runpy, sys
from collections import Counter
folder, report, module, *sys.argv[1:] = sys.argv[1:]
opens = Counter()
def count(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)) and os.fspath(arguments[0]).startswith(folder):
        opens[os.path.relpath(arguments[0], folder)] += 1
sys.addaudithook(count)
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    with open(report, "w") as file:
        json.dump(opens, file)
"""


def files_of(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def opens_of(folder: Path, module: str, *arguments: str, fresh: bool = False) -> dict[str, int]:
    """Return how often a program opened each file in a folder."""
    report = folder.with_name("opens.json")
    done = python("-c", COUNTED, str(folder), str(report), module, *arguments, cwd=folder.parent, fresh=fresh)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(report.read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a series of six files, without padding, and an enhanced object of three frames."""
    values = np.random.default_rng(0).integers(-200, 300, (6, 40, 36)).astype(np.int16)
    write_series(tmp_path / "in" / "ct", values, spacing=(2.0, 1.5), slice_step=3.0)
    own = {"SeriesInstanceUID": "1.2.3.9", "StudyInstanceUID": "1.2.3.8"}
    write_enhanced(tmp_path / "in" / "frames", values[:3], np.arange(3)[:, None] * [0, 0, 3.0], **own)
    return tmp_path / "in"


@pytest.mark.slow
def test_from_inputs_to_segmentation(folder: Path, tmp_path: Path) -> None:
    config = config_files("inference.json")
    parser = ConfigParser()
    parser.read_config(config)
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    opens = opens_of(
        folder, "monai.bundle", "run", "inferring", "--config_file", config, "--dataset_dir", str(folder),
        "--output_dir", str(tmp_path / "out"), "--model_file", str(tmp_path / "model.pt"),
        "--outputs", "['labels','seg','rtstruct']",
    )  # fmt: skip
    assert {path.name for path in (tmp_path / "out").rglob("*.dcm")} == {
        f"{name}_{kind}.dcm" for name in ("ct", "frames") for kind in ("seg", "rtstruct")
    }
    assert opens == dict.fromkeys(files_of(folder), 2)


def test_from_inputs_to_segmentation_without_torch(folder: Path, tmp_path: Path) -> None:
    model = exported(tmp_path, volume(*WINDOWS, context_slices=1))
    arguments = str(model.path), str(folder), str(tmp_path / "out"), "--format", "seg"
    opens = opens_of(folder, "bundle.pyraseg.runtime", *arguments, fresh=True)
    assert {path.name for path in (tmp_path / "out").rglob("*.dcm")} == {"ct_seg.dcm", "frames_seg.dcm"}
    assert opens == dict.fromkeys(files_of(folder), 2)
