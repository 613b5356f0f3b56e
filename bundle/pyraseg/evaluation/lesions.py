# SPDX-License-Identifier: Apache-2.0
"""Lesions found and lesions made up, one by one."""

from dataclasses import dataclass

import numpy as np
from skimage.measure import label

from bundle.pyraseg.dicom import Geometry


@dataclass(frozen=True)
class Detection:
    """The lesions of one class in one case.

    Args:
        sizes: of each true lesion, in ml with a patient position, in pixels without, (L,).
        covered: share of each that was predicted as the class, (L,).
        found: whether that is enough, (L,).
        predicted: number of predicted lesions.
        false_positives: how many of them hardly meet a true one.
    """

    sizes: np.ndarray
    covered: np.ndarray
    found: np.ndarray
    predicted: int
    false_positives: int


def detect(prediction: np.ndarray, truth: np.ndarray, geometry: Geometry | None, *, overlap: float) -> Detection:
    """Match predicted and true lesions, which are what hangs together in a mask, by corners as well.

    A true lesion is found when at least the share `overlap` of its voxels was predicted as the class, by whatever
    predicted lesions; a predicted lesion is a false positive when less than that share of it is true. With an overlap
    of 0 one voxel is enough.

    Args:
        prediction: boolean mask, (W, H[, D]).
        truth: the same.
        geometry: of the volume; None counts in pixels.
        overlap: share, 0 to 1.
    """
    volumes = np.broadcast_to(1.0 if geometry is None else geometry.voxel_volumes / 1000, truth.shape)
    lesions, guesses = (label(mask, connectivity=truth.ndim) for mask in (truth, prediction))
    covered, true = _shares(lesions, prediction), _shares(guesses, truth)
    sizes = np.bincount(lesions[truth] - 1, weights=volumes[truth], minlength=len(covered))
    found = (covered > 0) & (covered >= overlap)
    return Detection(sizes, covered, found, len(true), int(((true == 0) | (true < overlap)).sum()))


def _shares(lesions: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the share of the voxels of each numbered lesion that lies in a mask."""
    voxels = np.bincount(lesions.ravel())[1:]
    return np.bincount(lesions[mask], minlength=len(voxels) + 1)[1:] / voxels
