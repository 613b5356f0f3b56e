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
from bundle.pyraseg.dicom import VoiLut, VoiWindow, apply_voi_lut, read_sequences

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


#: What `windows` may be: an item, a list of them, or for each sequence one of these.
Windows = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]


class Windowd(MapTransform):
    """Map rescaled units through one or several windows to (n_windows, W, H[, D]), float32 in ``output_range``.

    An image of several sequences, (N, W, H, D) as `stack_sequences` made it, goes through windows sequence by sequence:
    (N * n_windows, W, H, D), or as many as each has of its own. A sequence that is missing is black.

    Windows follow PS3.3 C.11.2.1.2 and clip to their range. Where the metadata say ``inverted`` (MONOCHROME1 or
    Presentation LUT Shape INVERSE), the result is inverted, once: afterwards ``inverted`` is False and ``voi`` is gone.

    Metadata that are used, all optional for explicit windows: ``inverted`` and ``for_processing`` (bool), ``padding``,
    the number of pixels of the smallest value that no percentile counts, and ``voi``, a list with one tuple for each
    slice (last spatial axis; one for a 2-D image) of ``VoiWindow`` and ``VoiLut``, or of mappings with their fields.
    Windows that vary by slice follow slices that were reversed since they were read (``affine`` against
    ``original_affine``).

    Args:
        keys: images to window, (1, W, H[, D]), or (N, W, H, D) of N sequences.
        windows: one item or a list of them, one output channel each. An item is the name of a preset of ``PRESETS``;
            ``{"center": c, "width": w, "function": "LINEAR"}`` (``function`` may be left out);
            ``{"percentiles": [1, 99]}``, from the one percentile to the other of the whole image; or ``"header"``, the
            first window of each slice's header (``"header:1"``: the second). A mapping from the names of sequences to
            such lists gives each its own.
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
        windows: Windows | Mapping[str, Windows],
        output_range: tuple[float, float] = (0.0, 1.0),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        #: By the name of a sequence; "" stands for each.
        self.by_sequence = {name: tuple(map(parse_window, own)) for name, own in windows_of(windows).items()}
        #: All of them, in this order.
        self.windows = tuple(window for own in self.by_sequence.values() for window in own)
        self.low, self.high = output_range

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.apply(d[key])
        return d

    def apply(self, image: NdarrayOrTensor, *, slices: Sequence[int] | None = None) -> torch.Tensor:
        """Return the windowed image, or some of its slices; the argument and its metadata are left alone.

        Args:
            image: (1, W, H[, D]), or (N, W, H, D) of N sequences.
            slices: of a volume, which are wanted, by their index; None: all. The windows are those of the whole image.
        """
        meta = dict(image.meta) if isinstance(image, MetaTensor) else {}
        place = f" of {meta['filename_or_obj']}" if "filename_or_obj" in meta else ""
        others = list(meta.get("other_sequences", ()))
        if image.ndim not in (3, 4) or image.shape[0] != 1 + len(others):
            what = "in color" if image.shape[0] == 3 else f"of {image.shape[0]} channels"
            raise PyrasegError(
                f"The image{place} is {what} (shape {tuple(image.shape)}), and this model takes gray images, whose "
                'values it windows. An image in color needs a model of photographs (image_kind "photograph"); `pyraseg '
                "models` lists the included ones, and --model gives one to `pyraseg segment`."
            )
        names = list(meta.get("sequences", [""]))
        if set(self.by_sequence) not in ({""}, set(names)):
            raise PyrasegError(
                f"Windowd: windows are given for the sequences {', '.join(self.by_sequence)}, and the image{place} has "
                f"{', '.join(names)}. Name the same."
            )
        chosen = range(1 if image.ndim == 3 else image.shape[3]) if slices is None else slices
        values = torch.as_tensor(image, dtype=torch.float32).numpy()
        stacks = [np.atleast_3d(own) if slices is None else np.atleast_3d(own)[..., slices] for own in values]
        windows = [self.by_sequence.get(name) or self.by_sequence[""] for name in names]
        # Slice after slice in memory, as `resize_rasters` wants them.
        out = np.empty((sum(map(len, windows)), *stacks[0].shape[::-1]), dtype=np.float32)
        start = 0
        of_each = [meta, *({**meta, "voi": (), "padding": 0, "inverted": False, **other} for other in others)]
        for name, own, stack, its, shown in zip(names, windows, stacks, values, of_each, strict=True):
            channels, start = out[start : start + len(own)], start + len(own)
            if shown.get("missing", False):
                channels[:] = self.low
                continue
            views = [
                [items[index] for index in chosen] if len(items) > 1 else items
                for items in self._views(own, its, shown, f"{place}, sequence {name}" if name else place)
            ]
            self._fill(channels, stack, views, inverted=bool(shown.get("inverted", False)))
        shape = len(out), *values.shape[1:3], *stacks[0].shape[2 : values.ndim - 1]
        windowed = torch.from_numpy(out.swapaxes(1, -1).reshape(shape))
        if not isinstance(image, MetaTensor) or not get_track_meta():
            return windowed
        for used in ("voi", "padding", "other_sequences"):
            meta.pop(used, None)
        meta["inverted"] = False
        return MetaTensor(windowed, meta=meta, applied_operations=image.applied_operations)

    def _views(
        self, windows: Sequence[Window], values: np.ndarray, meta: Mapping[str, Any], place: str
    ) -> list[list[VoiWindow | VoiLut]]:
        """Return for each window what shows the slices of an image (W, H[, D]): one item, or one for each slice."""
        padding = int(meta.get("padding", 0))
        return [
            [window] if isinstance(window, VoiWindow)
            else [window.window(values, padding=padding)] if isinstance(window, Percentiles)
            else header_items(meta, window, values.shape, place)
            for window in windows
        ]  # fmt: skip

    def _fill(
        self, out: np.ndarray, stack: np.ndarray, views: Sequence[list[VoiWindow | VoiLut]], *, inverted: bool
    ) -> None:
        """Show a stack (W, H, D) through each of some windows, (windows, D, H, W); some slices at a time."""

        def fill(start: int) -> None:
            slab = np.ascontiguousarray(stack[..., start : start + SLAB].T)
            for channel, items in zip(out[:, start : start + SLAB], views, strict=True):
                own = items * len(slab) if len(items) == 1 else items[start : start + SLAB]
                for shown, one, item in zip(channel, slab, own, strict=True):  # in turn, while it is in the cache
                    shown[:] = apply_voi_lut(one, item)
                    if inverted:
                        np.subtract(1.0, shown, out=shown)
                    shown *= self.high - self.low
                    shown += self.low

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # NumPy lets go of the interpreter
            list(pool.map(fill, range(0, stack.shape[2], SLAB)))


def windows_of(windows: Windows | Mapping[str, Windows]) -> dict[str, list[str | Mapping[str, Any]]]:
    """Return windows as lists by the names of the sequences; "" where all sequences have the same.

    Raises:
        PyrasegError: a list is empty.

    >>> windows_of("brain"), windows_of({"t1": [{"percentiles": [1, 99]}], "ct": "brain"})
    ({'': ['brain']}, {'t1': [{'percentiles': [1, 99]}], 'ct': ['brain']})
    """
    keys = {"center", "width", "function", "percentiles"}
    named = isinstance(windows, Mapping) and not keys & windows.keys()
    lists = {
        name: [own] if isinstance(own, str | Mapping) else list(own)
        for name, own in (windows if named else {"": windows}).items()
    }
    if not lists or not all(lists.values()):
        raise PyrasegError("Windowd: windows is empty. Name at least one window, for example 'soft_tissue'.")
    return lists


def first_window(windows: Windows | Mapping[str, Windows]) -> str | Mapping[str, Any]:
    """Return the first window of the first sequence."""
    return next(iter(windows_of(windows).values()))[0]


def channel_counts(windows: Windows | Mapping[str, Windows] | None, sequences: Any = None) -> list[int]:
    """Return how many channels `Windowd` makes of each sequence of an image.

    Args:
        windows: as it takes them; None, of images in color: no channel.
        sequences: what `read_sequences` takes.

    Raises:
        PyrasegError: windows are given by names that are not those of the sequences.

    >>> channel_counts({"t1": ["brain"], "flair": ["brain", "stroke"]}, {"t1": "T1*", "flair": "*FLAIR*"})
    [1, 2]
    """
    if windows is None:
        return [0]
    lists, names = windows_of(windows), list(read_sequences(sequences)) or [""]
    if set(lists) not in ({""}, set(names)):
        found = f"are {', '.join(names)}" if sequences else "none (sequences is null)"
        raise PyrasegError(
            f"windows are given for {', '.join(lists)}, and the sequences {found}. Name the same, or give one list of "
            "windows."
        )
    return [len(lists.get(name) or lists[""]) for name in names]


def channel_count(windows: Windows | Mapping[str, Windows] | None, sequences: Any = None) -> int:
    """Return how many channels `Windowd` makes of an image, see `channel_counts`.

    >>> channel_count(["brain", "stroke"]), channel_count(["brain", "stroke"], ["t1", "flair"])
    (2, 4)
    """
    return sum(channel_counts(windows, sequences))


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
