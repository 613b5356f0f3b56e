# SPDX-License-Identifier: Apache-2.0
"""Pictures of a segmentation: original, truth, prediction and overlay side by side."""

from collections.abc import Sequence

import numpy as np
from monai.data import MetaTensor
from PIL import Image, ImageDraw

from bundle.pyraseg.transforms.orientation import OrientSlices
from bundle.pyraseg.transforms.windowing import Windowd

#: Colours of the classes, told apart by colour-blind readers too (Okabe and Ito, "Color Universal Design", 2008).
COLOURS = np.array(
    [
        (0, 0, 0),
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
    ],
    np.uint8,
)
OPACITY = 0.45
MARGIN = 18  # pixels for the captions
NARROWEST = 256  # pixels; smaller images are enlarged


def colour_of(labels: np.ndarray) -> np.ndarray:
    """Return the RGB colours of class indices, (...) -> (..., 3); beyond the seventh class they repeat."""
    return COLOURS[np.where(labels > 0, (labels.astype(int) - 1) % (len(COLOURS) - 1) + 1, 0)]


def telling_slices(labels: np.ndarray, most: int = 4) -> list[int]:
    """Return the slices of (W, H, D) that show each class largest, in order; the middle one where nothing was found."""
    areas = [(labels == value).sum(axis=(0, 1)) for value in np.unique(labels[labels > 0])]
    return sorted({int(area.argmax()) for area in areas[:most]}) or [labels.shape[-1] // 2]


def draw(
    original: MetaTensor,
    labels: MetaTensor,
    class_names: Sequence[str],
    *,
    windows: Sequence | None,
    truth: MetaTensor | None = None,
) -> Image.Image:
    """Draw the picture of one input.

    Args:
        original: the image before preprocessing, (C, W, H[, D]); rescaled units, or grey or RGB bytes.
        labels: class indices on the same grid, (1, W, H[, D]).
        class_names: names of all classes, background first.
        windows: as for `Windowd`, the first of which shows the original; None where it needs none.
        truth: true classes on the same grid, where they are known; they then choose the slices.

    Returns:
        RGB picture: a row a slice, with original, truth where it is known, prediction and overlay as columns.
    """
    affine, shown = original.affine, [original, *([] if truth is None else [truth]), labels]
    if original.ndim == 4:
        chosen = telling_slices(np.asarray(shown[1][0]))
        shown = [volume[..., chosen] for volume in shown]
        for volume in shown:
            volume.affine = affine
    if windows is not None:
        first = windows if isinstance(windows, str | dict) else windows[0]
        shown[0] = Windowd("image", windows=first, output_range=(0, 255))({"image": shown[0]})["image"]
    shown = [OrientSlices()(volume) for volume in shown]
    spacing = shown[0].pixdim.tolist() if original.ndim == 4 else [1.0, 1.0]
    rows = []
    for index in range(shown[0].shape[3]) if original.ndim == 4 else [None]:
        grey, *maps = (np.asarray(volume if index is None else volume[..., index]) for volume in shown)
        rows.append(_row(grey, [classes[0] for classes in maps], spacing))
    captions = ["original", *([] if truth is None else ["truth"]), "prediction", "overlay"]
    found = np.unique(np.concatenate([np.unique(np.asarray(classes)) for classes in shown[1:]]))
    return _captioned(Image.fromarray(np.concatenate(rows)), captions, class_names, found)


def _row(image: np.ndarray, maps: Sequence[np.ndarray], spacing: Sequence[float]) -> np.ndarray:
    """Return an image, its label maps and the last one laid over it, side by side, with square pixels.

    Arrays are MONAI's (C, W, H) and (W, H).
    """
    grey = np.moveaxis(np.clip(np.nan_to_num(image), 0, 255).astype(np.uint8), 0, -1).swapaxes(0, 1)
    grey = np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else grey[..., :3]
    width, height = maps[0].shape
    unit = min(spacing[0], spacing[1])
    size = np.array([width * spacing[0] / unit, height * spacing[1] / unit])
    size = tuple(np.rint(size * max(1.0, NARROWEST / size.min())).astype(int).tolist())
    grey = np.asarray(Image.fromarray(np.ascontiguousarray(grey)).resize(size, Image.Resampling.BILINEAR))
    pictures = [Image.fromarray(np.ascontiguousarray(labels.T.astype(np.uint8))) for labels in maps]
    maps = [np.asarray(picture.resize(size, Image.Resampling.NEAREST)) for picture in pictures]
    colours = [colour_of(labels) for labels in maps]
    found = (maps[-1] > 0)[..., None]
    blended = np.where(found, (1 - OPACITY) * grey + OPACITY * colours[-1], grey).astype(np.uint8)
    return np.concatenate([grey, *colours, blended], axis=1)


def _captioned(
    picture: Image.Image, captions: Sequence[str], class_names: Sequence[str], found: np.ndarray
) -> Image.Image:
    canvas = Image.new("RGB", (picture.width, picture.height + 2 * MARGIN))
    canvas.paste(picture, (0, MARGIN))
    pen = ImageDraw.Draw(canvas)
    for column, caption in enumerate(captions):
        pen.text((column * picture.width // len(captions) + 4, 3), caption, fill=(255, 255, 255))
    place = 4
    for value in found[found > 0].astype(int):
        colour = tuple(colour_of(np.array(value)).tolist())
        pen.rectangle((place, canvas.height - 13, place + 8, canvas.height - 5), fill=colour)
        pen.text((place + 12, canvas.height - 15), class_names[value], fill=(255, 255, 255))
        place += 24 + int(pen.textlength(class_names[value]))
    if not (found > 0).any():
        pen.text((place, canvas.height - 15), "nothing found", fill=(255, 255, 255))
    return canvas
