# SPDX-License-Identifier: Apache-2.0
"""Images as a graph takes them, slice by slice or as volumes, and their labels on the way back."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bundle.pyraseg.core import (
    ITK,
    NIFTI,
    PHOTOGRAPH,
    PyrasegError,
    as_rgb,
    fill_outside,
    read_photograph,
    valid_percentiles,
)
from bundle.pyraseg.runtime.guard import Watch
from bundle.pyraseg.runtime.model import Model
from bundle.pyraseg.runtime.photographs import segment_photograph
from bundle.pyraseg.runtime.volumes import segment_volume

if TYPE_CHECKING:  # for a photograph, pydicom is not loaded
    from bundle.pyraseg.dicom import Geometry, SeriesStream, VoiLut, VoiWindow

T = TypeVar("T")
U = TypeVar("U")
Feed = dict[str, np.ndarray]
#: What to do with an image in color that a model of gray ones was given.
FOR_COLOR = 'It needs a model of photographs (image_kind "photograph").'


@dataclass(frozen=True, eq=False)
class Labels:
    """Hold what was found in one input.

    Attributes:
        slices: yields the label values of each slice, (rows, columns) uint8, as they are computed; once. They are
            classes, or sets of regions, see `Model.structures`.
        shape: slices, rows, columns.
        geometry: where the slices lie; None for photographs and projections.
        files, frame_numbers: for each slice its DICOM file, with its header once all slices were taken, and its frame
            there; empty for other formats.
        photograph: what was segmented, RGB (rows, columns, 3) uint8; None for other kinds of image.
        watch: what looks at the image while it is segmented; it has judged when all slices were taken.
    """

    slices: Iterator[np.ndarray]
    shape: tuple[int, int, int]
    geometry: "Geometry | None" = None
    files: Sequence[str] = ()
    frame_numbers: Sequence[int] = ()
    photograph: np.ndarray | None = None
    watch: Watch | None = None


def segment(
    model: Model,
    image: str | Sequence[str],
    *,
    select: Mapping[str, object] | None = None,
    refuse: Sequence[str] | None = None,
    unlike: str = "warn",
    name: str = "The image",
) -> Labels:
    """Return the labels of an image, which are computed when they are taken.

    Args:
        model: the graph.
        image: a path, or the files of a DICOM series, as `find_inputs` gives them.
        select: attributes that the slices of a series must have, where it holds several phases or echoes.
        refuse: in what an image may not differ from those that the model is for, see `Purpose`; None: the modality.
        unlike: what is done about one that is unlike those of the training, see `UNLIKE`.
        name: of the image, for messages.

    Raises:
        PyrasegError: it cannot be read, or it is no image for this model. Of a volume that is unlike those of the
            training, and refused, this may be found when the last slice is taken.
    """
    watch = Watch(model.guard, unlike, name=name)
    found = replace(_found(model, image, select, refuse, watch), watch=watch)
    return replace(found, slices=tidied(model, found)) if model.tidying else found


def _found(
    model: Model,
    image: str | Sequence[str],
    select: Mapping[str, object] | None,
    refuse: Sequence[str] | None,
    watch: Watch,
) -> Labels:
    """Return the labels of an image as the network has them."""
    opened = open_image(model, image, select=select, refuse=refuse)
    if model.recipe["image_kind"] == "volume":
        assert opened.stream is not None  # nothing else is a volume
        slices = (segment_volume if model.sees_tiles else _volume)(model, opened.stream, watch)
    elif model.sees_tiles:
        (feed,) = opened.feeds()
        slices = iter([segment_photograph(model, feed["image"][0], watch)])
    else:
        (feed,) = opened.feeds()
        slices = iter([_one(model, feed, watch)])
    return opened.labels(slices)


@dataclass(frozen=True, eq=False)
class Opened:
    """Hold an image that a model takes, before it is segmented.

    Attributes:
        model: that takes it.
        shape: slices, rows, columns.
        stream: the series; None for other formats.
        feed: inputs of the graph, of an image that is no volume.
        photograph: RGB (rows, columns, 3) uint8, where it came as such a file.
    """

    model: Model
    shape: tuple[int, int, int]
    stream: "SeriesStream | None" = None
    feed: Feed | None = None
    photograph: np.ndarray | None = None

    @cached_property
    def turn(self) -> "Turn":
        """Return how its slices are turned for the network; only those of volumes are."""
        return Turn() if self.stream is None or self.feed is not None else Turn.of(require_place(self.stream))

    def feeds(self) -> Iterator[Feed]:
        """Yield the inputs of a whole-path graph for each slice, turned as the network sees it."""
        if self.feed is not None:
            yield self.feed
            return
        assert self.stream is not None  # a volume
        yield from volume_feeds(self.model, self.stream, self.turn)

    def labels(self, slices: Iterator[np.ndarray]) -> "Labels":
        """Return what was found in it, slice by slice."""
        if self.stream is None:
            return Labels(slices, self.shape, photograph=self.photograph)
        origin = {"files": self.stream.sources, "frame_numbers": self.stream.frame_numbers}
        return Labels(slices, self.shape, self.stream.geometry, **origin)


def open_image(
    model: Model,
    image: str | Sequence[str],
    *,
    select: Mapping[str, object] | None = None,
    refuse: Sequence[str] | None = None,
) -> Opened:
    """Return an image as a model takes it; arguments and errors are those of `segment`."""
    kind = model.recipe["image_kind"]
    if isinstance(image, str) and image.lower().endswith(NIFTI + ITK):
        raise PyrasegError(f"{image} is no DICOM, PNG or JPEG. The full bundle reads NIfTI, NRRD and MetaImage.")
    if isinstance(image, str) and image.lower().endswith(PHOTOGRAPH):
        if kind == "volume":
            raise PyrasegError(f"{image} has no patient position, and the model is for slices of volumes.")
        pixels = _read_photograph(Path(image), rgb=kind == "photograph")
        if kind == "photograph":
            return Opened(model, (1, *pixels.shape[:2]), feed={"image": pixels[None]}, photograph=pixels)
        feed = _projection(model, pixels, padding=fill_outside(pixels.T, image, axes=2))
        return Opened(model, (1, *pixels.shape), feed=feed)
    from bundle.pyraseg.dicom import SeriesStream

    purpose = model.purpose(refuse)
    stream = SeriesStream(image, select=select, pet_units=purpose.pet_units)
    files = dict.fromkeys(stream.files)
    purpose.require(stream.files[0].parent if len(files) > 1 else stream.files[0], **stream.facts)
    shape = (len(stream), int(stream.frames[0].header.Rows), int(stream.frames[0].header.Columns))
    if kind == "volume":
        if stream.is_color:
            raise PyrasegError(f"{stream.files[0]} is an image in color, and the model is for gray slices. {FOR_COLOR}")
        return Opened(model, shape, stream)
    if len(stream) > 1:
        raise PyrasegError(f"{stream.files[0].parent} has {len(stream)} slices or frames, the model is for one.")
    (pixels,) = stream.slices()
    if kind == "photograph":
        (colors,) = as_rgb(pixels[None], inverted=stream.inverted, name=str(stream.files[0]))
        return Opened(model, shape, stream, feed={"image": colors[None]})
    return Opened(model, shape, stream, feed=_projection(model, pixels, stream))


def tidied(model: Model, found: Labels) -> Iterator[np.ndarray]:
    """Yield labels that are tidied up, once all of them are computed; of a volume as a whole."""
    values = np.stack([labels.T for labels in found.slices], axis=2)  # as the bundle has them: columns, rows, slices
    if model.recipe["image_kind"] != "volume":
        yield np.ascontiguousarray(model.tidying(values[..., 0], model.structures).T)
        return
    assert found.geometry is not None  # without it there are no labels of a volume
    blocks = [(block, part.voxel_volumes) for block, part in found.geometry.parts()]
    values = model.tidying(values, model.structures, blocks)
    for index in range(values.shape[2]):
        yield np.ascontiguousarray(values[..., index].T)


def _read_photograph(path: Path, *, rgb: bool) -> np.ndarray:
    """Return (height, width) float32, or (height, width, 3) uint8."""
    pixels = read_photograph(path, rgb=rgb)
    if rgb:
        return pixels
    if pixels.ndim != 2:
        raise PyrasegError(f"{path} is an image in color, and the model is for radiographs. {FOR_COLOR}")
    return pixels.astype(np.float32)


def _projection(model: Model, pixels: np.ndarray, stream: "SeriesStream | None" = None, *, padding: int = 0) -> Feed:
    if pixels.ndim != 2:
        file = stream.files[0] if stream else "It"
        raise PyrasegError(f"{file} is an image in color, and the model is for radiographs. {FOR_COLOR}")
    feed = {"image": pixels[None, None], "inverted": np.array([stream is not None and stream.inverted])}
    free = model.recipe["free_windows"]
    if free:
        edges = next(_edges(free, stream)) if stream else _edges_of_values(free, pixels, padding)
        feed["windows"] = np.asarray(edges, np.float32)[None, None]
    return feed


def _one(model: Model, feed: Feed, watch: Watch) -> np.ndarray:
    """Return the labels (rows, columns) of an image that is no volume, and judge it."""
    labels = model.classes(feed, watch.see if watch.planes(1) else None)
    watch.judge()
    return labels


@dataclass(frozen=True)
class Turn:
    """Say how the slices of a series are turned before a network sees them, and turn them back.

    Attributes:
        axes: of (rows, columns), those that are reversed, before they are swapped.
        swapped: whether rows and columns change places.
        backwards: whether the neighbors of a slice stand in the reverse order.
    """

    axes: tuple[int, ...] = ()
    swapped: bool = False
    backwards: bool = False

    @classmethod
    def of(cls, geometry: "Geometry") -> "Turn":
        """Return how slices that lie so are turned; the array's first axis runs along the columns."""
        from bundle.pyraseg.dicom import LPS_TO_RAS, slice_orientation

        orientation = slice_orientation(LPS_TO_RAS @ geometry.affine)
        axes = tuple(axis for axis, source in ((0, 1), (1, 0)) if orientation[source, 1] < 0)
        return cls(axes, orientation[0, 0] == 1, orientation[2, 1] < 0)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return a slice (rows, columns) as the network sees it."""
        flipped = np.flip(pixels, self.axes)
        return flipped.T if self.swapped else flipped

    def back(self, labels: np.ndarray) -> np.ndarray:
        """Return labels of what the network saw on the slice as it is stored, (rows, columns)."""
        return np.ascontiguousarray(np.flip(labels.T if self.swapped else labels, self.axes))

    def place(self, column: float, row: float, shape: tuple[int, int]) -> tuple[float, float]:
        """Return where a pixel (column, row) of a stored slice (rows, columns) lies in what the network sees.

        >>> Turn((1,), swapped=True).place(2, 0, (10, 5))
        (0, 2)
        """
        row = shape[0] - 1 - row if 0 in self.axes else row
        column = shape[1] - 1 - column if 1 in self.axes else column
        return (row, column) if self.swapped else (column, row)


def volume_feeds(model: Model, stream: "SeriesStream", turn: Turn) -> Iterator[Feed]:
    """Yield the inputs of a whole-path graph for each slice, in the order of the series, turned as the network sees it.

    Raises:
        PyrasegError: slices are in color, or would be too large for the network.
    """
    from bundle.pyraseg.dicom import resampled_size

    between = require_place(stream).pixel_spacing
    spacing = between[::-1] if turn.swapped else between
    constant = {"spacing": np.array(spacing, np.float64), "inverted": np.array([stream.inverted])}
    free, context_slices = model.recipe["free_windows"], model.recipe["context_slices"]
    edges = with_neighbors(_edges(free, stream), context_slices) if free else None
    step = -1 if turn.backwards else 1
    for stack in with_neighbors(map(turn, stream.slices()), context_slices):
        resampled_size(stack[0].shape, spacing, model.recipe["spacing"], name=stream.files[0])  # before the graph
        feed = {**constant, "image": np.stack(stack[::step])[None]}
        if edges is not None:
            feed["windows"] = np.asarray(next(edges)[::step], np.float32)[None]
        yield feed


def _volume(model: Model, stream: "SeriesStream", watch: Watch) -> Iterator[np.ndarray]:
    """Yield the labels of each slice, in the order and the orientation of the series; judge before the last one."""
    turn, depth = Turn.of(require_place(stream)), len(stream)
    planes = watch.planes(depth)

    def feeds() -> Iterator[tuple[Feed, Callable | None]]:
        for number, feed in enumerate(volume_feeds(model, stream, turn)):
            plane = depth - 1 - number if turn.backwards else number
            yield feed, watch.see if plane in planes else None

    found = ahead(lambda one: model.classes(*one), feeds(), threads=model.threads)
    for number, labels in enumerate(found, 1):
        if number == depth:
            watch.judge()
        yield turn.back(labels)


def ahead(function: Callable[[U], T], items: Iterable[U], *, threads: int) -> Iterator[T]:
    """Yield a function of each item, in their order, while some threads compute the next ones.

    The items are taken, and the results used, in the thread of the caller: slices are read and written meanwhile.
    """
    with ThreadPoolExecutor(threads) as pool:
        coming: deque[Future[T]] = deque()
        for item in items:
            coming.append(pool.submit(function, item))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def require_place(stream: "SeriesStream") -> "Geometry":
    """Return where the slices of a series lie in the patient, for a model of slices of volumes.

    Raises:
        PyrasegError: nobody knows.
    """
    if stream.geometry is None:
        raise PyrasegError(f"{stream.files[0]} has no patient position, and the model is for slices of volumes.")
    return stream.geometry


def with_neighbors(slices: Iterable[T], count: int) -> Iterator[list[T]]:
    """Yield each slice between `count` neighbors on either side; the first and the last one are repeated beyond."""
    window: deque[T] = deque(maxlen=2 * count + 1)
    for item in slices:
        window.extend([item] * (1 if window else count + 1))
        if len(window) == window.maxlen:
            yield list(window)
    for _ in range(count):
        window.append(window[-1])
        if len(window) == window.maxlen:
            yield list(window)


def _edges(windows: Sequence[Mapping[str, Any]], stream: "SeriesStream") -> Iterator[list[tuple[float, float]]]:
    """Yield black and white of the windows that are not fixed, for each slice."""
    by_percentiles = {
        number: tuple(stream.percentiles(window["percentiles"]))
        for number, window in enumerate(windows)
        if "percentiles" in window
    }
    if len(by_percentiles) == len(windows):
        same = [_widened(*by_percentiles[number]) for number in range(len(windows))]
        yield from (same for _ in range(len(stream)))
        return
    if stream.for_processing:
        raise PyrasegError(f"{stream.files[0]} is FOR PROCESSING: its header has no window for display.")
    for file, views in zip(stream.files, stream.views(), strict=True):
        yield [
            _widened(*by_percentiles[number]) if number in by_percentiles else _header_edges(views, window, file)
            for number, window in enumerate(windows)
        ]


def _edges_of_values(
    windows: Sequence[Mapping[str, Any]], values: np.ndarray, padding: int
) -> list[tuple[float, float]]:
    """Return black and white for an image that has no header."""
    if any("percentiles" not in window for window in windows):
        raise PyrasegError("The model takes its window from a DICOM header, and this image has none.")
    found = [valid_percentiles(values, window["percentiles"], padding=padding) for window in windows]
    return [_widened(float(black), float(white)) for black, white in found]


def _widened(black: float, white: float) -> tuple[float, float]:
    """Give percentiles that coincide a width of 1, as `Percentiles.window` does."""
    return (black, white) if white > black else (black - 0.5, white + 0.5)


def _header_edges(views: "Sequence[VoiWindow | VoiLut]", window: Mapping[str, Any], file: Path) -> tuple[float, float]:
    """Return black and white of a header's window (PS3.3 C.11.2.1.2)."""
    from bundle.pyraseg.dicom import VoiLut

    index = window["header"]
    if len(views) <= index:
        raise PyrasegError(f"{file} has {len(views)} windows in its header, and the model needs {index + 1}.")
    view = views[index]
    if isinstance(view, VoiLut) or view.function == "SIGMOID":
        raise PyrasegError(f"{file} has a lookup table or sigmoid window: segment it with the full bundle.")
    view.require_valid()
    center, width = view.ramp
    return center - width / 2, center + width / 2
