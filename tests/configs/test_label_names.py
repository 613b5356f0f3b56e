# SPDX-License-Identifier: Apache-2.0
"""The table of the classes' names in the configs: every training takes it, and what it cannot mean stops a run."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from bundle.pyraseg.core.errors import PyrasegError, mendable
from tests.helpers.configs import PROGRAMS, TASKS, merged
from tests.helpers.dicom_files import write_series
from tests.helpers.structure_sets import write_structure_set

trainings = pytest.mark.parametrize("program", [train for train, _ in TASKS])


@trainings
def test_every_training_uses_the_table(program: str) -> None:
    parser = merged(PROGRAMS[program])
    name = parser["class_names"][-1]
    parser["label_names"], parser["overlap_order"] = {name: ["Other", ["SCT", "1"]]}, [name]
    parser["initialize"] = [{"_target_": "bundle.pyraseg.workflow.check_config"}, *parser["initialize"]]
    parser.get_parsed_content("initialize#0")
    load = next(t for t in parser["train#preprocessing#transforms"] if t["_target_"].endswith("LoadLabeld"))
    assert load["label_names"] == "@label_names" and load["overlap_order"] == "@overlap_order"


@trainings
@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        ("label_names", {"livr": ["x"]}, "label_names has 'livr', but the declared classes are"),
        ("overlap_order", ["livr"], "overlap_order has 'livr', but the declared classes are"),
    ],
)
def test_a_mistyped_class_stops_a_run(program: str, knob: str, value: object, message: str) -> None:
    parser = merged(PROGRAMS[program])
    parser[knob] = value
    with pytest.raises(Exception) as caught:  # MONAI wraps what a component raises
        parser.get_parsed_content("train#preprocessing")
    error = mendable(caught.value)
    assert isinstance(error, PyrasegError) and message in str(error)


def test_a_structure_set_is_loaded_by_the_training_config(tmp_path: Path) -> None:
    """A liver of 12 x 10 pixels with a lesion in it, and a body contour that is left out."""
    files = write_series(tmp_path / "ct", np.zeros((3, 20, 24), np.int16), spacing=(2.0, 2.0))
    first = pydicom.dcmread(files[0])
    uids = {"series_uid": first.SeriesInstanceUID, "frame_of_reference_uid": first.FrameOfReferenceUID}

    def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
        return np.array([[x0, y0, 1], [x1, y0, 1], [x1, y1, 1], [x0, y1, 1]], float) * [2, 2, 1]

    rois = {"Body": [box(0, 0, 23, 19)], "Hepar": [box(3.5, 4.5, 15.5, 14.5)], "GTV": [box(5.5, 6.5, 8.5, 8.5)]}
    write_structure_set(tmp_path / "rt.dcm", rois, **uids)
    parser = merged(PROGRAMS["train"])
    parser["spacing"] = 2.0
    parser["label_names"] = {"liver": ["hepar"], "lesion": ["gtv*"], "background": ["body"]}
    parser["overlap_order"] = ["liver", "lesion"]
    load = parser.get_parsed_content("train#preprocessing")
    label = load({"image": str(tmp_path / "ct"), "label": str(tmp_path / "rt.dcm")})["label"]
    assert [int((label == index).sum()) for index in range(1, 5)] == [12 * 10 - 3 * 2, 3 * 2, 0, 0]
