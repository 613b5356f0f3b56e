# SPDX-License-Identifier: Apache-2.0
"""Probability maps read back by other libraries."""

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

from bundle.pyraseg.inference.writers.label_map import write_probability


def test_a_volume_reads_as_values_from_0_to_1(tmp_path):
    affine = np.array([[-2, 0, 0, 10], [0, 0, 3, -4], [0, -1.5, 0, 7], [0, 0, 0, 1]], float)
    probability = MetaTensor(torch.rand(5, 4, 3), affine=torch.as_tensor(affine))
    probability[0, 0, 0], probability[1, 1, 1] = 0, 1
    path = write_probability(probability, probability[None], tmp_path / "deep" / "case.v1_probability_1")
    assert path == tmp_path / "deep" / "case.v1_probability_1.nii.gz"
    read = nib.load(path)
    np.testing.assert_allclose(read.affine, affine)
    np.testing.assert_allclose(read.get_fdata(), probability.numpy(), atol=0.51 / 65535)
    assert read.get_fdata()[0, 0, 0] == 0 and abs(read.get_fdata()[1, 1, 1] - 1) < 1e-6
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_photograph_becomes_a_png_of_16_bits(tmp_path):
    probability = torch.zeros(7, 5)
    probability[6, 0] = 0.5  # top right corner: MONAI's arrays are (W, H)
    read = Image.open(write_probability(MetaTensor(probability), MetaTensor(probability[None]), tmp_path / "photo"))
    assert read.size == (7, 5) and read.mode == "I;16"
    assert read.getpixel((6, 0)) in (32767, 32768) and read.getpixel((0, 0)) == 0
