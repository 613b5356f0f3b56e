# SPDX-License-Identifier: Apache-2.0
"""Segment a DICOM series with a network that sees volumes in three dimensions, tile by tile."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.runtime.guard import Watch
from bundle.pyraseg.runtime.model import Model
from bundle.pyraseg.runtime.resampling import shrunk
from bundle.pyraseg.runtime.tiles import Place, blended, mirrored, tile_padding
from bundle.pyraseg.runtime.volume_labels import labels_of

if TYPE_CHECKING:
    from bundle.pyraseg.dicom import SeriesStream, VoiLut, VoiWindow


def segment_volume(model: Model, stream: "SeriesStream", watch: Watch) -> Iterator[np.ndarray]:
    """Yield the labels (rows, columns) uint8 of each slice of a series, once all of them are computed.

    Slices are windowed and shrunk one at a time as they are read; of the whole series the volume that the network sees
    is held, the logits of one tile's depth, and the labels.

    Args:
        model: whose recipe has a patch size.
        stream: the series, of any orientation.
        watch: looks at the volume before it is segmented.

    Raises:
        PyrasegError: the series is no evenly spaced, straight volume, see `require_volume`, or it is unlike those of
            the training, and such ones are refused.
    """
    from bundle.pyraseg.dicom import LPS_TO_RAS, require_volume, resampled_shape, volume_orientation, voxel_sizes

    name, recipe = stream.files[0].parent, model.recipe
    affine = LPS_TO_RAS @ require_volume(stream.geometry, name=name).affine
    orientation = volume_orientation(affine)
    axes = orientation[:, 0].astype(int)  # for each axis of the series, the axis of the volume that it is
    flipped = tuple(int(axis) for axis in np.flatnonzero(orientation[:, 1] < 0))
    header = stream.frames[0].header
    counts = int(header.Columns), int(header.Rows), len(stream)
    spacing = [recipe["spacing"][axis] for axis in axes]
    size = resampled_shape(counts, voxel_sizes(affine).tolist(), spacing, name=name)
    small = shrunk(_shown(recipe, stream), len(stream), size)
    small = np.flip(small, tuple(axis + 1 for axis in flipped)).transpose(0, *(np.argsort(axes) + 1))
    watch.look(small)
    target = [counts[axis] for axis in np.argsort(axes)]
    overlapping = model.structures.overlapping
    found = labels_of(_slabs(model, small), small.shape[1:], target, overlapping=overlapping)
    labels = np.flip(found.transpose(axes), flipped)
    for number in range(len(stream)):
        yield np.ascontiguousarray(labels[..., number].T)


def _slabs(model: Model, volume: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the logits of a volume (C, W, H, D), see `blended`."""
    recipe = model.recipe
    tile, size = recipe["patch_size"], volume.shape[1:]
    padding = [(0, 0), *tile_padding(size, tile)]
    if any(map(any, padding)):
        volume = np.pad(volume, padding, mode="edge")
    average = mirrored(model.logits, recipe["tta_flips"])

    def logits_at(place: Place) -> np.ndarray:
        return average(np.ascontiguousarray(volume[(slice(None), *place)]))

    return blended(size, tile, recipe["overlap"], logits_at)


def _shown(recipe: Mapping[str, Any], stream: "SeriesStream") -> Iterator[np.ndarray]:
    """Yield each slice through the windows, (C, columns, rows) float32, as `Windowd` shows it."""
    from bundle.pyraseg.dicom import apply_voi_lut

    low, high = recipe["output_range"]
    windows = _windows(recipe["windows"], stream)
    for pixels, views in zip(stream.slices(), windows, strict=True):
        shown = np.stack([apply_voi_lut(pixels, view) for view in views])
        if stream.inverted:
            np.subtract(1.0, shown, out=shown)
        shown *= high - low
        shown += low
        yield shown.swapaxes(1, 2)


def _windows(windows: Sequence[Any], stream: "SeriesStream") -> "Iterator[list[VoiWindow | VoiLut]]":
    """Yield what each slice is shown through; what percentiles mean is found in a pass of its own.

    Args:
        windows: of a recipe: fields of a window, two percentiles, or the number of a view in the header.
        stream: the series.
    """
    from bundle.pyraseg.dicom import VoiWindow

    fixed: dict[int, VoiWindow] = {}
    for number, window in enumerate(windows):
        if isinstance(window, Mapping):
            fixed[number] = VoiWindow(**window)
        elif isinstance(window, Sequence):
            black, white = stream.percentiles(window)
            fixed[number] = VoiWindow((black + white) / 2, (white - black) or 1.0, "LINEAR_EXACT")
    if len(fixed) == len(windows):
        for _ in range(len(stream)):
            yield [fixed[number] for number in range(len(windows))]
        return
    if stream.for_processing:
        raise PyrasegError(f"{stream.files[0]} is FOR PROCESSING: its header has no window for display.")
    for file, views in zip(stream.files, stream.views(), strict=True):
        least = 1 + max(window for number, window in enumerate(windows) if number not in fixed)
        if len(views) < least:
            raise PyrasegError(f"{file} has {len(views)} windows in its header, and the model needs {least}.")
        yield [fixed[number] if number in fixed else views[window] for number, window in enumerate(windows)]
