# SPDX-License-Identifier: Apache-2.0
"""Turn rescaled units (HU) into one channel per window, with the polarity of the display."""

from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform

from bundle.pyraseg.core import PyrasegError, nearest_hint, valid_percentiles
from bundle.pyraseg.dicom import VoiLut, VoiWindow, apply_voi_lut

RADIOPAEDIA = "Murphy A et al., Windowing (CT), Radiopaedia.org, doi:10.53347/rID-52108"
MEDSAM = "Ma J et al., Segment anything in medical images, Nat Commun 15:654 (2024), doi:10.1038/s41467-024-44824-z"

# name: (center in HU, width in HU, source)
PRESETS: dict[str, tuple[float, float, str]] = {
    "abdomen": (50, 400, RADIOPAEDIA),
    "bone": (400, 1800, RADIOPAEDIA),
    "brain": (40, 80, RADIOPAEDIA),
    "liver": (30, 150, RADIOPAEDIA),
    "lung": (-600, 1500, RADIOPAEDIA),
    "mediastinum": (50, 350, RADIOPAEDIA),
    "soft_tissue": (40, 400, MEDSAM),
    "spine": (50, 250, RADIOPAEDIA),
    "stroke": (40, 40, RADIOPAEDIA),
    "temporal_bone": (600, 2800, RADIOPAEDIA),
}


#: Slices that are windowed at a time: where an array has them last, so many values of a pixel lie side by side.
SLAB = 16


class Percentiles(NamedTuple):
    """Percentiles of an image between which its window lies, for intensities without a unit, as those of MR."""

    low: float
    high: float

    def window(self, values: np.ndarray, *, padding: int = 0) -> VoiWindow:
        """Return the window from one percentile of the values to the other; it has width 1 where they coincide.

        So many pixels are `padding`, which holds the smallest value and does not count.
        """
        black, white = valid_percentiles(values, self, padding=padding)
        width = float(white - black) or 1.0
        return VoiWindow(float(black + white) / 2, width, "LINEAR_EXACT")


Window = VoiWindow | Percentiles | int  # an explicit window, percentiles, or the index of a header item


class Windowd(MapTransform):
    """Map rescaled units through one or several windows to (n_windows, W, H[, D]), float32 in ``output_range``.

    Windows follow PS3.3 C.11.2.1.2 and clip to their range. Where the metadata say ``inverted`` (MONOCHROME1 or
    Presentation LUT Shape INVERSE), the result is inverted, once: afterwards ``inverted`` is False and ``voi`` is gone.

    Metadata that are used, all optional for explicit windows: ``inverted`` and ``for_processing`` (bool), ``padding``,
    the number of pixels of the smallest value that no percentile counts, and ``voi``, a list with one tuple for each
    slice (last spatial axis; one for a 2-D image) of ``VoiWindow`` and ``VoiLut``, or of mappings with their fields.
    Windows that vary by slice follow slices that were reversed since they were read (``affine`` against
    ``original_affine``).

    Args:
        keys: images to window, (1, W, H[, D]).
        windows: one item or a list of them, one output channel each. An item is the name of a preset of ``PRESETS``;
            ``{"center": c, "width": w, "function": "LINEAR"}`` (``function`` may be left out);
            ``{"percentiles": [1, 99]}``, from the one percentile to the other of the whole image; or ``"header"``, the
            first window of each slice's header (``"header:1"``: the second).
        output_range: the values of black and white, before the inversion.
        allow_missing_keys: skip keys that are not in the data.

    Raises:
        PyrasegError: if a window is unknown or incomplete; in the call, if an image has several channels (color), or
            if the header's window is asked for and is missing, not meant for display, or no longer matches the slices.

    >>> import torch
    >>> image = torch.tensor([-160.0, 40.0, 240.0]).reshape(1, 3, 1)  # HU
    >>> windowed = Windowd("image", windows=["soft_tissue", {"center": 40, "width": 100}])({"image": image})["image"]
    >>> (100 * windowed[..., 0]).round().int().tolist()
    [[0, 50, 100], [0, 51, 100]]
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        windows: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
        output_range: tuple[float, float] = (0.0, 1.0),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        items = [windows] if isinstance(windows, str | Mapping) else list(windows)
        if not items:
            raise PyrasegError("Windowd: windows is empty. Name at least one window, for example 'soft_tissue'.")
        self.windows = tuple(parse_window(item) for item in items)
        self.low, self.high = output_range

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.apply(d[key])
        return d

    def apply(self, image: NdarrayOrTensor, *, slices: Sequence[int] | None = None) -> torch.Tensor:
        """Return the windowed image, or some of its slices; the argument and its metadata are left alone.

        Args:
            image: (1, W, H[, D]).
            slices: of a volume, which are wanted, by their index; None: all. The windows are those of the whole image.
        """
        meta = dict(image.meta) if isinstance(image, MetaTensor) else {}
        place = f" of {meta['filename_or_obj']}" if "filename_or_obj" in meta else ""
        if image.ndim not in (3, 4) or image.shape[0] != 1:
            what = "in color" if image.shape[0] == 3 else f"of {image.shape[0]} channels"
            raise PyrasegError(
                f"The image{place} is {what} (shape {tuple(image.shape)}), and this model takes gray images, whose "
                'values it windows. An image in color needs a model of photographs (image_kind "photograph"); `pyraseg '
                "models` lists the included ones, and --model gives one to `pyraseg segment`."
            )
        values = torch.as_tensor(image, dtype=torch.float32)[0].numpy()
        padding = int(meta.get("padding", 0))
        views = [
            [window] if isinstance(window, VoiWindow)
            else [window.window(values, padding=padding)] if isinstance(window, Percentiles)
            else header_items(meta, window, values.shape, place)
            for window in self.windows
        ]  # fmt: skip
        stack = np.atleast_3d(values)
        if slices is not None:
            stack = stack[..., slices]
            views = [items if len(items) == 1 else [items[index] for index in slices] for items in views]
        # Slice after slice in memory, as `resize_rasters` wants them; some at a time, which need little room.
        out = np.empty((len(views), *stack.shape[::-1]), dtype=np.float32)

        def fill(start: int) -> None:
            slab = np.ascontiguousarray(stack[..., start : start + SLAB].T)
            for channel, items in zip(out[:, start : start + SLAB], views, strict=True):
                own = items * len(slab) if len(items) == 1 else items[start : start + SLAB]
                for shown, one, item in zip(channel, slab, own, strict=True):  # in turn, while it is in the cache
                    shown[:] = apply_voi_lut(one, item)
                    if meta.get("inverted", False):
                        np.subtract(1.0, shown, out=shown)
                    shown *= self.high - self.low
                    shown += self.low

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # NumPy lets go of the interpreter
            list(pool.map(fill, range(0, stack.shape[2], SLAB)))
        shape = len(views), *values.shape[:2], *stack.shape[2 : values.ndim]
        windowed = torch.from_numpy(out.swapaxes(1, -1).reshape(shape))
        if not isinstance(image, MetaTensor) or not get_track_meta():
            return windowed
        meta.pop("voi", None)
        meta.pop("padding", None)
        meta["inverted"] = False
        return MetaTensor(windowed, meta=meta, applied_operations=image.applied_operations)


def parse_window(item: str | Mapping[str, Any]) -> Window:
    """Return the window that an item of ``windows`` stands for."""
    if isinstance(item, Mapping) and "percentiles" in item:
        return parse_percentiles(item)
    if isinstance(item, Mapping):
        if not {"center", "width"} <= set(item) <= {"center", "width", "function"}:
            raise PyrasegError(
                f"Windowd: the window {dict(item)} is not understood. "
                'Write {"center": 40, "width": 400}, and "function" if it is not LINEAR, or {"percentiles": [1, 99]}.'
            )
        window = VoiWindow(float(item["center"]), float(item["width"]), item.get("function", "LINEAR"))
        window.require_valid()
        return window
    text = str(item)
    name, _, index = text.partition(":")
    if name == "header" and (not index or index.isdecimal()):
        return int(index or 0)
    if text in PRESETS:
        center, width, _ = PRESETS[text]
        return VoiWindow(center, width, explanation=text)
    raise PyrasegError(
        f"Windowd: there is no window {item!r}. The presets are {', '.join(PRESETS)}; 'header' takes the window of the "
        f"file.{nearest_hint(text, [*PRESETS, 'header'])}"
    )


def parse_percentiles(item: Mapping[str, Any]) -> Percentiles:
    """Return the percentiles of an item ``{"percentiles": [low, high]}``."""
    try:
        percentiles = Percentiles(*map(float, item["percentiles"]))
    except (TypeError, ValueError):
        percentiles = None
    if percentiles is None or len(item) > 1 or not 0 <= percentiles.low < percentiles.high <= 100:
        raise PyrasegError(
            f"Windowd: the window {dict(item)} is not understood. "
            'Write {"percentiles": [1, 99]}: two numbers from 0 to 100, the smaller one first.'
        )
    return percentiles


def header_items(meta: Mapping[str, Any], index: int, shape: Sequence[int], place: str) -> list[VoiWindow | VoiLut]:
    """Return the header's item of this index for each slice, or a list of one if all slices share it."""
    name = "header" if index == 0 else f"header:{index}"
    if meta.get("for_processing", False):
        raise PyrasegError(
            f"Windowd: the image{place} is FOR PROCESSING, so its header has no window for display ({name!r}). "
            'Take one from its values: {"percentiles": [1, 99]}.'
        )
    slices = meta.get("voi", [])
    fewest = min((len(views) for views in slices), default=0)
    if fewest <= index:
        raise PyrasegError(
            f"Windowd: {name!r} was asked for, but the header{place} has {fewest} of them for at least one "
            f"slice. Name a preset ({', '.join(PRESETS)}) or give a center and a width."
        )
    items = [as_voi(views[index]) for views in slices]
    if all(item == items[0] for item in items):
        return items[:1]
    now = np.asarray(meta.get("affine", np.eye(4)))[:3, 2]
    then = np.asarray(meta.get("original_affine", meta.get("affine", np.eye(4))))[:3, 2]
    if len(shape) == 3 and len(items) == shape[2]:
        if np.allclose(now, then):
            return items
        if np.allclose(now, -then):
            return items[::-1]
    raise PyrasegError(
        f"Windowd: the header's windows{place} differ from slice to slice, and the slices are no longer those that "
        f"were read ({len(items)} windows, array {tuple(shape)}). Put Windowd before transforms that resample, crop "
        "or reslice, or name a preset."
    )


def as_voi(item: VoiWindow | VoiLut | Mapping[str, Any]) -> VoiWindow | VoiLut:
    """Return the item itself, or the one that a mapping of its fields (as metadata hold it) describes."""
    if not isinstance(item, Mapping):
        return item
    return VoiLut(**item) if "data" in item else VoiWindow(**item)
