# SPDX-License-Identifier: Apache-2.0
"""Segment a photograph with a network that sees it tile by tile."""

import numpy as np

from bundle.pyraseg.runtime.guard import Watch
from bundle.pyraseg.runtime.model import Model
from bundle.pyraseg.runtime.resampling import shrunk
from bundle.pyraseg.runtime.tiles import Place, blended, mirrored
from bundle.pyraseg.runtime.volume_labels import labels_of


def segment_photograph(model: Model, pixels: np.ndarray, watch: Watch) -> np.ndarray:
    """Return the label value of each pixel of a photograph, (rows, columns) uint8.

    It is a volume of one slice: what blends the tiles of volumes blends its tiles.

    Args:
        model: whose recipe has a patch size (columns, rows).
        pixels: RGB, (rows, columns, 3) uint8.
        watch: looks at the photograph before it is segmented.

    Raises:
        PyrasegError: the network's output is not finite, or the photograph is unlike those of the training, and such
            ones are refused.
    """
    recipe = model.recipe
    size, tile = (*recipe["size"], 1), (*recipe["patch_size"], 1)
    mean, std = (np.reshape(np.array(recipe[name], np.float32), (-1, 1, 1, 1)) for name in ("mean", "std"))
    shown = (shrunk([pixels.transpose(2, 1, 0)], 1, size) - mean) / std
    watch.look(shown)

    def logits_of(image: np.ndarray) -> np.ndarray:
        def logits_at(place: Place) -> np.ndarray:
            return model.logits(np.ascontiguousarray(image[(slice(None), *place)][..., 0]))[..., None]

        return np.concatenate(list(blended(size, tile, recipe["overlap"], logits_at)), axis=3)

    logits = mirrored(logits_of, recipe["tta_flips"])(shown)
    rows, columns = pixels.shape[:2]
    return labels_of([logits], size, (columns, rows, 1), overlapping=model.structures.overlapping)[..., 0].T
