# SPDX-License-Identifier: Apache-2.0
"""A label map of a real series lies on the series' own grid, by raw pydicom headers."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser

from tests.helpers.commands import config_files, monai_bundle


@pytest.mark.slow
def test_the_grid_of_the_label_map_is_that_of_the_series(real_data: Path, tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_config(config_files("inference.json"))
    torch.save(
        parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt"
    )  # untrained: the grid counts
    run = monai_bundle(
        "run", "inferring", "--config_file", config_files("inference.json"), "--spacing", "6",
        "--dataset_dir", str(real_data / "ct_abdomen" / "dicom"), "--output_dir", str(tmp_path / "out"),
        "--model_file", str(tmp_path / "model.pt"), cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    label = nib.load(tmp_path / "out" / "dicom.nii.gz")
    headers = [pydicom.dcmread(path, force=True) for path in sorted((real_data / "ct_abdomen" / "dicom").iterdir())]
    assert label.shape == (headers[0].Columns, headers[0].Rows, len(headers))
    to_voxel = np.linalg.inv(label.affine)
    slices = []
    for header in headers:
        row, column = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
        corner = np.array(header.ImagePositionPatient, float)
        last = corner + (header.Columns - 1) * header.PixelSpacing[1] * row
        last = last + (header.Rows - 1) * header.PixelSpacing[0] * column
        first, end = (nib.affines.apply_affine(to_voxel, point * [-1, -1, 1]) for point in (corner, last))
        np.testing.assert_allclose(first[:2], [0, 0], atol=1e-3)
        np.testing.assert_allclose(end[:2], [header.Columns - 1, header.Rows - 1], atol=1e-3)
        slices.append(first[2])
    np.testing.assert_allclose(sorted(slices), range(len(headers)), atol=1e-3)
