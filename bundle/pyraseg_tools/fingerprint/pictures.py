# SPDX-License-Identifier: Apache-2.0
"""Pictures of a data set: histograms of what was measured, and a sheet of cases with the outlines of their labels."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from monai.data import MetaTensor
from skimage.segmentation import find_boundaries

from bundle.pyraseg.core import PyrasegError, require_mendable
from bundle.pyraseg.data import ClassCounts
from bundle.pyraseg.figures import color_of, telling_slices
from bundle.pyraseg_tools.fingerprint.measuring import CaseFingerprint, load_upright

MOST, COLUMNS = 24, 6  # odd cases on the sheet, cases in a row


def draw_histograms(
    path: Path, cases: Sequence[CaseFingerprint], counts: ClassCounts, windows: Sequence[Mapping] | None
) -> None:
    """Draw intensities by class, sizes or spacings, shares of the classes, and how many images show each.

    Args:
        path: PNG to write.
        cases: usable ones.
        counts: of their labels.
        windows: that are proposed; one with a center is drawn over the intensities.
    """
    figure = Figure(figsize=(13, 8), layout="constrained")
    FigureCanvasAgg(figure)
    intensities, sizes, shares, shown = figure.subplots(2, 2).ravel()
    _intensities(intensities, cases, counts.class_names, windows)
    _sizes(sizes, cases)
    colors = [_color(value) for value in range(len(counts.class_names))]
    percent = 100 * counts.shares
    shares.bar_label(shares.barh(counts.class_names, percent, color=colors), fmt="%.3g %%", padding=3)
    shares.set(xscale="log", xlabel="% of all pixels, on a logarithmic scale", title="Shares of the classes")
    shares.set_xlim(min(0.1, percent[percent > 0].min() / 3), 1000)
    shown.bar_label(shown.barh(counts.class_names, counts.images, color=colors), padding=3)
    shown.margins(x=0.15)
    volumes = any(len(case.size) == 3 for case in cases)
    shown.set(xlabel="slices" if volumes else "images", title="Where the classes are seen")
    for axes in (shares, shown):
        axes.invert_yaxis()
    figure.savefig(path, dpi=100, format="png")


def _color(value: int) -> tuple[float, float, float]:
    red, green, blue = color_of(np.array(value)) / 255 if value else (0.6, 0.6, 0.6)
    return red, green, blue


def _intensities(axes: Axes, cases: Sequence[CaseFingerprint], names: Sequence[str], windows: Sequence | None) -> None:
    """Draw intensities as they are where all have a unit, else each case between its own percentiles."""
    absolute = all(case.units == "HU" for case in cases)
    values: dict[int, list[np.ndarray]] = {}
    for case in cases:
        _, low, high, _ = case.extent
        for value, found in case.samples.items():
            if value < len(names):
                relative = found if absolute or high == low else (found - low) / (high - low)
                values.setdefault(value, []).append(relative)
    ends = np.percentile(np.concatenate([part for found in values.values() for part in found]), (0.2, 99.8))
    if ends[0] == ends[1]:  # classes of one value
        ends = np.add(ends, (-0.5, 0.5))
    style: dict[str, Any] = {
        "bins": np.linspace(ends[0], ends[1], 80),
        "density": True,
        "histtype": "step",
        "linewidth": 1.6,
    }
    for value, found in sorted(values.items()):
        axes.hist(np.concatenate(found), color=_color(value), label=names[value], **style)
    label = "HU" if absolute else "from the 0.5th (0) to the 99.5th percentile (1) of each image"
    axes.set(xlabel=label, yticks=[], title="Intensities by class, each of area 1")
    for window in windows or []:
        if absolute and "center" in window:
            ends = window["center"] - window["width"] / 2, window["center"] + window["width"] / 2
            axes.axvspan(*ends, color="0.9", zorder=0, label="proposed window")
    axes.legend(fontsize="small")


def _sizes(axes: Axes, cases: Sequence[CaseFingerprint]) -> None:
    located = all(case.spacing for case in cases)
    extents = np.array(
        [np.multiply(case.size[:2], case.spacing[:2] if located and case.spacing else 1) for case in cases], float
    )
    axes.plot(*extents.T, "o", alpha=0.3)
    unit = "mm" if located else "pixels"
    axes.set(xlabel=f"width in {unit}", ylabel=f"height in {unit}", title="Sizes of the slices or images, a dot a case")
    axes.margins(0.2)


def draw_pairs(
    path: Path,
    cases: Sequence[CaseFingerprint],
    odd: Mapping[str, Sequence[str]],
    load: Callable[[dict], dict],
    *,
    image_kind: str = "volume",
) -> None:
    """Draw up to `MOST` odd cases with what is odd about them, and fill the row with ordinary ones; labels as outlines.

    Args:
        path: PNG to write.
        cases: all cases.
        odd: reasons by name, as `suspicious` returns them.
        load: as for `measure_cases`.
        image_kind: "volume", "projection" or "photograph"; the pixels of a volume alone have a size.
    """
    chosen = [case for case in cases if case.name in odd][:MOST]
    others = [case for case in cases if case.name not in odd and not case.is_empty]
    room = COLUMNS - len(chosen) % COLUMNS
    chosen += others[:: max(1, len(others) // room)][:room]
    rows = -(-len(chosen) // COLUMNS)
    figure = Figure(figsize=(3 * COLUMNS, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = np.atleast_1d(figure.subplots(rows, COLUMNS)).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, case in zip(grid, chosen, strict=False):
        reasons = "; ".join(odd.get(case.name, ["ordinary"]))
        caption = textwrap.fill(f"{case.name}: {reasons}", 44, max_lines=5)
        axes.set_title(caption, fontsize=7, color="firebrick" if case.name in odd else "black")
        try:
            picture, aspect = outlined(*load_upright(load, case.item), image_kind=image_kind)
        except (PyrasegError, RuntimeError) as error:
            require_mendable(error)
            axes.text(0.5, 0.5, "cannot be shown", ha="center", va="center")
        else:
            axes.imshow(picture, aspect=aspect)
    figure.savefig(path, dpi=90, format="png")


def outlined(image: MetaTensor, label: np.ndarray, *, image_kind: str = "volume") -> tuple[np.ndarray, float]:
    """Return RGB (H, W, 3) of the slice with the largest label, outlined by class, and the height of its pixels.

    Args:
        image: (C, W, H[, D]), a MetaTensor.
        label: (1, W, H[, D]).
        image_kind: as for `draw_pairs`.
    """
    spacing = image.pixdim.tolist() if image_kind == "volume" and image.ndim == 4 else [1.0, 1.0]
    gray, classes = np.asarray(image, np.float32).mean(axis=0), np.asarray(label)[0]
    if gray.ndim == 3:
        (largest,) = telling_slices((classes > 0).astype(np.uint8), most=1)
        gray, classes = gray[..., largest], classes[..., largest]
    low, high = np.percentile(gray, (0.5, 99.5))
    shown = np.clip((gray - low) / (high - low or 1) * 255, 0, 255).astype(np.uint8)
    enlarged = max(1, 256 // max(shown.shape))  # so that an outline is thin
    shown, classes = (np.kron(part, np.ones((enlarged, enlarged), np.uint8)) for part in (shown, classes))
    picture = np.repeat(shown[..., None], 3, axis=2)
    edges = find_boundaries(classes, mode="inner")
    picture[edges] = color_of(classes)[edges]
    return picture.swapaxes(0, 1), spacing[1] / spacing[0]
