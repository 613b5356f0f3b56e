# SPDX-License-Identifier: Apache-2.0
"""Label maps and pictures, read back by other libraries."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from bundle.pyraseg.figures.drawing import COLORS, MARGIN
from bundle.pyraseg.figures.overlay import draw, telling_slices
from bundle.pyraseg.inference.writers.label_map import write_label_map

NAMES = ["background", "liver", "lesion"]


def test_a_volume_becomes_nifti_with_its_affine(tmp_path):
    affine = np.array([[-2, 0, 0, 10], [0, 0, 3, -4], [0, -1.5, 0, 7], [0, 0, 0, 1]], float)
    labels = MetaTensor(torch.randint(0, 3, (1, 5, 4, 3)).float(), affine=torch.as_tensor(affine))
    path = write_label_map(labels, labels, tmp_path / "deep" / "case.v1")
    assert path == tmp_path / "deep" / "case.v1.nii.gz"
    read = nib.load(path)
    np.testing.assert_allclose(read.affine, affine)
    np.testing.assert_array_equal(np.asarray(read.dataobj), labels[0].numpy())
    assert read.get_data_dtype() == np.uint8 and read.header.get_xyzt_units()[0] == "mm"
    assert [file.name for file in path.parent.iterdir()] == ["case.v1.nii.gz"]


def test_slices_without_a_place_become_nifti_that_claims_none(tmp_path):
    labels = MetaTensor(torch.randint(0, 3, (1, 5, 4, 3)).float(), meta={"has_geometry": False})
    read = nib.load(write_label_map(labels, labels, tmp_path / "film"))
    assert (int(read.header["qform_code"]), int(read.header["sform_code"])) == (0, 0)
    assert read.header.get_zooms() == (1, 1, 1)
    np.testing.assert_array_equal(np.asarray(read.dataobj), labels[0].numpy())


def test_a_photograph_becomes_png_of_its_own_size(tmp_path):
    labels = torch.zeros(1, 7, 5)
    labels[0, 6, 0] = 2  # top right corner: MONAI's arrays are (W, H)
    path = write_label_map(MetaTensor(labels), MetaTensor(labels), tmp_path / "photo")
    read = Image.open(path)
    assert read.size == (7, 5) and read.mode == "L" and read.getpixel((6, 0)) == 2


def test_telling_slices_show_each_class_largest():
    labels = np.zeros((6, 6, 5), int)
    labels[:4, :4, 1] = labels[:2, :2, 3] = 1
    labels[4:, 4:, 3] = 2
    assert telling_slices(labels) == [1, 3]
    assert telling_slices(np.zeros((6, 6, 5), int)) == [2]


def test_the_picture_shows_image_labels_and_both():
    photo = torch.full((3, 300, 260), 200.0)
    labels = torch.zeros(1, 300, 260)
    labels[0, 150:] = 1
    picture = np.asarray(draw(MetaTensor(photo), MetaTensor(labels), NAMES, windows=None)).astype(int)
    assert picture.shape == (260 + 2 * MARGIN, 900, 3)
    left, right = (picture[150, x + 300 * np.arange(3)] for x in (50, 250))
    assert left.tolist() == [[200] * 3, [0] * 3, [200] * 3]
    assert right[0].tolist() == [200] * 3 and right[1].tolist() == COLORS[1].tolist()
    assert right[2] == pytest.approx(0.55 * 200 + 0.45 * COLORS[1], abs=1)


def test_slices_of_a_volume_are_windowed_and_have_square_pixels():
    affine = torch.diag(torch.tensor([-1.0, -2.0, 5.0, 1.0]))
    volume = MetaTensor(torch.full((1, 300, 260, 4), 40.0), affine=affine)
    picture = np.asarray(
        draw(volume, MetaTensor(torch.zeros(1, 300, 260, 4), affine=affine), NAMES, windows=["soft_tissue"])
    )
    assert picture.shape == (520 + 2 * MARGIN, 900, 3)
    assert abs(int(picture[200, 100, 0]) - 128) <= 1  # the center of the window


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (9000, 12), (1, 1), (300, 200), (2500, 2100)])
def test_an_overlay_is_bounded_however_long_the_image_is(size: tuple[int, int]) -> None:
    image = MetaTensor(torch.full((3, *size), 90, dtype=torch.uint8))
    labels = MetaTensor(torch.ones(1, *size, dtype=torch.uint8))
    picture = draw(image, labels, ["background", "lesion"], windows=None)
    width, height = picture.width // 3, picture.height - 2 * MARGIN
    assert max(width, height) <= 2048 and min(width, height) >= 1
    if max(size) < 2048:
        assert min(width, height) >= 256  # small images are enlarged
    assert abs(width / height - size[0] / size[1]) < 0.02 * width / height or min(width, height) < 30
