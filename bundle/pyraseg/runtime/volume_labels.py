# SPDX-License-Identifier: Apache-2.0
"""From the logits of a volume, slab by slab, to labels on the finer or coarser grid that it had before resampling."""

from collections.abc import Iterable

import numpy as np

from bundle.pyraseg.runtime.resampling import Size, Taps, empty_volume, planes_between

#: Probability by which a class must stay below the background to be nowhere above it between voxels: interpolated
#: values of up to 1 are rounded by less than a tenth of it.
FAR_BELOW = 1e-5


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits (K, ...), float32; logits of that type are used up.

    >>> softmax(np.array([[0.0], [0.0]], np.float32)).tolist()
    [[0.5], [0.5]]
    """
    powers = np.asarray(logits, np.float32)
    powers -= powers.max(axis=0)
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=0)
    return powers


def labels_of(slabs: Iterable[np.ndarray], shape: Size, size: Size) -> np.ndarray:
    """Return the class of each voxel of another grid: probabilities are linear in between, and the largest counts.

    There are never more probabilities than those of a slab and of one plane of the result. Parts of a plane that no
    class is near are left out: between voxels where a class is below the background it is so as well. Of equal
    probabilities the first class counts.

    Args:
        slabs: logits (K, W, H, d) of consecutive planes of the volume; they are used up.
        shape: voxels (W, H, D) of the volume.
        size: voxels (W', H', D') of the result.

    Returns:
        (W', H', D') uint8.

    >>> logits = np.array([[1.0, -1.0, 1.0], [0.0, 0.0, 0.0]], np.float32).reshape(2, 3, 1, 1)
    >>> labels_of([logits], (3, 1, 1), (6, 1, 1)).ravel().tolist()
    [0, 0, 1, 1, 0, 0]
    """
    columns, rows = Taps(shape[0], size[0]), Taps(shape[1], size[1])
    labels = empty_volume(1, size, np.uint8)[0]
    probabilities = (softmax(slab) for slab in slabs)
    for number, plane in enumerate(planes_between(probabilities, shape[2], size[2])):
        near = plane[1:] >= plane[0] - FAR_BELOW
        classes = np.flatnonzero(near.any(axis=(1, 2))) + 1
        if not len(classes):
            continue
        anywhere = near.any(axis=0)
        down, across = (np.flatnonzero(anywhere.any(axis=axis)) for axis in (1, 0))
        part = rows.reached(down[0], down[-1]), columns.reached(across[0], across[-1])
        candidates = plane[[0, *classes]]
        values = columns.between(rows.between(candidates, 1, part[0]), 2, part[1])
        largest, found = values[0], np.zeros(values.shape[1:], np.uint8)
        for index, probability in zip(classes, values[1:], strict=True):
            found[probability > largest] = index
            np.maximum(largest, probability, out=largest)
        labels[part[1], part[0], number] = found.T
    return labels
