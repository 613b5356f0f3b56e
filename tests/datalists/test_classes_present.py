# SPDX-License-Identifier: Apache-2.0
"""Which classes a label of each kind holds."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.collecting import classes_present
from tests.helpers.series_with_seg import write_seg, write_study


def test_values_of_maps(tmp_path):
    values = np.zeros((4, 5, 3), np.uint8)
    values[0], values[1] = 2, 255
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    Image.fromarray(values[..., 0]).save(tmp_path / "a.png")
    for name in ("a.nii.gz", "a.png"):
        assert classes_present(tmp_path / name) == {"2", "255"}
        assert classes_present(tmp_path / name, unknown_value=255) == {"2"}
        assert classes_present(tmp_path / name, threshold=100) == {"1"}


def test_colors_of_a_painted_label(tmp_path):
    painted = np.zeros((4, 5, 3), np.uint8)
    painted[0], painted[1] = (255, 0, 0), (0, 128, 255)
    Image.fromarray(painted).save(tmp_path / "a.png")
    assert classes_present(tmp_path / "a.png") == {"#ff0000", "#0080ff"}


def test_segments_with_pixels(tmp_path):
    write_seg(tmp_path / "seg", write_study(tmp_path / "ct", "one"))
    assert classes_present(tmp_path / "seg") == {"liver"}


@pytest.mark.parametrize(
    ("label", "names"), [("ct_liver_dicom_seg/liver.dcm", {"Liver"}), ("ct_rtstruct/mock_data/rt.dcm", {"ROI-1"})]
)
def test_real_labels(real_data: Path, label, names):
    assert classes_present(real_data / label) == names


def test_what_is_no_label(tmp_path):
    (tmp_path / "a").write_text("nothing")
    with pytest.raises(PyrasegError, match="no DICOM file"):
        classes_present(tmp_path / "a")
