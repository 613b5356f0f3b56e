# SPDX-License-Identifier: Apache-2.0
"""Lesions counted by hand, and their number and size as SciPy has them."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from bundle.pyraseg.dicom.geometry import Geometry
from bundle.pyraseg.evaluation.cases import detect
from bundle.pyraseg.transforms.reader import geometry_of


def grid(shape: tuple[int, ...], spacing: float = 1.0) -> Geometry | None:
    return geometry_of(MetaTensor(torch.zeros(1, *shape), affine=np.diag([spacing] * len(shape) + [1.0])))


def empty() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((12, 12, 12), bool), np.zeros((12, 12, 12), bool)


def test_found_missed_and_made_up():
    prediction, truth = empty()
    truth[0:2, 0:2, 0:5] = True  # 20 voxels at the corner of the volume, 4 of them found
    truth[6:8, 6:8, 6:8] = True  # missed
    truth[8, 8, 8] = True  # hangs on by a corner
    prediction[0:2, 0:2, 4:6] = True
    prediction[10:12, 0, 0] = True  # made up
    found = detect(prediction, truth, grid(truth.shape, 2.0), overlap=0.1)
    assert found.sizes == pytest.approx([0.160, 0.072])  # ml of 8 cubic mm each
    assert found.covered == pytest.approx([0.2, 0])
    assert found.found.tolist() == [True, False]
    assert (found.predicted, found.false_positives) == (2, 1)


def test_too_little_of_it_is_not_found():
    prediction, truth = empty()
    truth[0:2, 0:2, 0:5], prediction[0:2, 0:2, 4:6] = True, True
    assert not detect(prediction, truth, grid(truth.shape), overlap=0.21).found.any()
    assert detect(prediction, truth, grid(truth.shape), overlap=0.2).found.all()


def test_a_blob_around_everything_finds_and_is_false():
    prediction, truth = empty()
    truth[0, 0, 0], prediction[:] = True, True
    found = detect(prediction, truth, grid(truth.shape), overlap=0.1)
    assert found.found.tolist() == [True] and found.false_positives == 1
    assert detect(prediction, truth, grid(truth.shape), overlap=0.0).false_positives == 0  # a voxel is enough


def test_nothing_there():
    prediction, truth = empty()
    found = detect(prediction, truth, grid(truth.shape), overlap=0.1)
    assert (len(found.sizes), found.predicted, found.false_positives) == (0, 0, 0)
    prediction[0, 0, :3] = True
    found = detect(prediction, truth, grid(truth.shape), overlap=0.0)
    assert (len(found.sizes), found.predicted, found.false_positives) == (0, 1, 1)


@pytest.mark.parametrize("shape", [(20, 20, 20), (50, 50)])
def test_numbers_and_sizes_as_scipy_has_them(shape):
    random = np.random.default_rng(0)
    truth, prediction = random.random((2, *shape)) < 0.05
    found = detect(prediction, truth, grid(shape), overlap=0.0)
    for mask, count in ((truth, len(found.sizes)), (prediction, found.predicted)):
        _, expected = ndimage.label(mask, structure=np.ones([3] * len(shape)))
        assert count == expected
    lesions, number = ndimage.label(truth, structure=np.ones([3] * len(shape)))
    volume = 0.001 if len(shape) == 3 else 1
    assert sorted(found.sizes) == pytest.approx(sorted(np.bincount(lesions.ravel())[1:] * volume))
    hit = {n for n in range(1, number + 1) if (prediction & (lesions == n)).any()}
    assert found.found.sum() == len(hit)
