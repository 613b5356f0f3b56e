# SPDX-License-Identifier: Apache-2.0
"""An image, its label map and both laid over each other, in colors that tell classes apart."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_tensor
from PIL import Image
from skimage.measure import approximate_polygon
from torch import Tensor

from bundle.pyraseg.core import Structures, values_of
from bundle.pyraseg.figures.drawing import compose
from bundle.pyraseg.labels import trace_outlines
from bundle.pyraseg.transforms import OrientSlices, Windowd, first_window

#: Pixels of the picture by which a path may leave the boundary: it halves the size of the paths and cannot be seen.
TOLERANCE = 0.35


def outline_paths(labels: np.ndarray, size: Sequence[float], *, overlapping: bool = False) -> dict[int, str]:
    """Return for each class the boundary of its mask, holes included, as the `d` of an SVG path.

    Args:
        labels: class indices, (H, W).
        size: width and height of the picture that the paths are drawn on; (0, 0) is its upper left corner.
        overlapping: the labels are values of regions, see `core.Structures`, each of which has its boundary.

    Returns:
        By class index; classes that are not there are left out. Their coordinates have one digit behind the point.
    """
    height, width = labels.shape
    scale = np.array([size[1] / height, size[0] / width])
    found = np.unique(labels[labels > 0]).astype(int).tolist()
    highest = max(found, default=0)
    count = highest.bit_length() if overlapping else highest
    paths = {}
    for number in range(1, count + 1):
        there = [value for value in values_of(number, count, overlapping=overlapping) if value in found]
        if there:
            rings = trace_outlines(np.isin(labels, there))
            rings = [(ring + 0.5) * scale for ring in rings]  # centers of pixels lie at halves
            closed = [np.append(ring, ring[:1], 0) for ring in rings]
            paths[number] = "".join(_path(approximate_polygon(ring, TOLERANCE)) for ring in closed)
    return paths


def _path(ring: np.ndarray) -> str:
    """Return a closed ring of (row, column), the first of which comes again at the end."""
    points = [f"{x:.1f} {y:.1f}".replace(".0", "") for y, x in ring[:-1]]
    return f"M{'L'.join(points)}Z"


def telling_slices(labels: np.ndarray, most: int = 4) -> list[int]:
    """Return the slices of (W, H, D) that show each class largest, in order; the middle one where nothing was found."""
    areas = np.stack([np.bincount(plane[plane > 0].astype(int), minlength=256) for plane in labels.T])  # (D, values)
    found = np.flatnonzero(areas.any(axis=0))[:most]
    return sorted(set(areas[:, found].argmax(axis=0).tolist())) or [labels.shape[-1] // 2]


def draw(
    original: MetaTensor,
    labels: MetaTensor,
    class_names: Sequence[str],
    *,
    windows: Sequence | None,
    truth: MetaTensor | None = None,
    regions: Mapping[str, Sequence[str]] | None = None,
) -> Image.Image:
    """Draw the picture of one input.

    Args:
        original: the image before preprocessing, (C, W, H[, D]); rescaled units, or gray or RGB bytes.
        labels: class indices on the same grid, (1, W, H[, D]).
        class_names: names of all classes, background first.
        windows: as for `Windowd`, the first of which shows the original; None where it needs none.
        truth: true classes on the same grid, where they are known; they then choose the slices.
        regions: the classes of each region where the labels are values of these, see `core.Structures`. Where several
            are, the last one is drawn.

    Returns:
        RGB picture: a row a slice, with original, truth where it is known, prediction and overlay as columns.
    """
    structures = Structures(class_names, regions)
    maps: list[Tensor] = [*([] if truth is None else [truth]), labels]
    if structures.overlapping:
        maps = [torch.from_numpy(structures.uppermost[np.asarray(values.cpu(), np.uint8)]) for values in maps]
    if original.ndim == 4:
        slices = telling_slices(np.asarray(maps[0][0]))
        maps = [classes[..., slices] for classes in maps]
        image, places = at_window(original, windows, slices=slices), list(range(len(slices)))
    else:
        image, places = at_window(original, windows), [None]
    return compose([display(image, maps, index=place) for place in places], structures.names)


def at_window(original: MetaTensor, windows: Sequence | None, *, slices: Sequence[int] | None = None) -> MetaTensor:
    """Return an image, or some slices of a volume, through the first of its windows, 0 to 255.

    Of several sequences the first is shown.

    Args:
        original: the image, (C, W, H[, D]).
        windows: as for `Windowd`; None where the image needs none.
        slices: their indices; None: the whole image.
    """
    if windows is None:
        return original if slices is None else original[..., list(slices)]
    shown = original
    if "sequences" in original.meta:
        shown = MetaTensor(original.as_tensor()[:1], meta={**original.meta})
        for name in ("sequences", "other_sequences"):
            shown.meta.pop(name, None)
    window = Windowd("image", windows=first_window(windows), output_range=(0, 255))
    return window.apply(shown, slices=slices)


def display(
    image: MetaTensor, maps: Sequence[Tensor], *, index: int | None
) -> tuple[np.ndarray, list[np.ndarray], tuple[float, float]]:
    """Return a slice, or a picture, upright and as bytes.

    Args:
        image: gray or RGB, 0 to 255, (C, W, H[, D]).
        maps: class indices on the same grid, (1, W, H[, D]) each.
        index: of the slice; None for a picture.

    Returns:
        RGB bytes, (H, W, 3); the maps, (H, W) each; the width and the height at which nothing is distorted, in units
        of the shorter side of a pixel.
    """
    shown = [convert_to_tensor(part, track_meta=False).cpu() for part in (image, *maps)]
    spacing = [1.0, 1.0]
    if index is not None:
        slices = [OrientSlices()(MetaTensor(part[..., index : index + 1], affine=image.affine)) for part in shown]
        spacing = slices[0].pixdim.tolist()
        shown = [part[..., 0] for part in slices]
    image, *labels = map(np.asarray, shown)
    bytes_ = image if image.dtype == np.uint8 else np.clip(np.nan_to_num(image), 0, 255).astype(np.uint8)
    picture = bytes_.transpose(2, 1, 0)
    picture = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture[..., :3]
    height, width = picture.shape[:2]
    unit = min(spacing[:2])
    size = width * spacing[0] / unit, height * spacing[1] / unit
    return np.ascontiguousarray(picture), [np.ascontiguousarray(classes[0].T) for classes in labels], size
