# SPDX-License-Identifier: Apache-2.0
"""What happens to an image before and after the network, read from the components of an inference config."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from monai.inferers import Inferer, SimpleInferer, SliceInferer, SlidingWindowInferer
from monai.transforms import Activationsd, Compose, CopyItemsd, Invertd, LoadImaged, NormalizeIntensityd

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.inference import FlipInferer, FrugalInferer
from bundle.pyraseg.runtime import SIGMA_SCALE, Tidying
from bundle.pyraseg.transforms import (
    DropSliceAxisd,
    InvertArgmaxd,
    InvertRegionsd,
    KeepOriginald,
    OrientSlicesd,
    Percentiles,
    RequireFinited,
    ResampleSlicesd,
    ResizePhotographd,
    StackContextSlicesd,
    TemperatureScaled,
    TidyLabelsd,
    Window,
    Windowd,
)

#: The transforms behind `LoadImaged` (`KeepOriginald` aside) that make a kind of image what its network expects.
CHAINS = {
    "volume": (Windowd, OrientSlicesd, ResampleSlicesd, StackContextSlicesd),
    "projection": (DropSliceAxisd, Windowd, ResizePhotographd),
    "photograph": (DropSliceAxisd, ResizePhotographd, NormalizeIntensityd),
}


#: The transforms behind the network that the end of a graph does; what comes behind them is for the runtime.
AFTER = (RequireFinited, Activationsd, CopyItemsd, Invertd, TemperatureScaled, InvertArgmaxd)


@dataclass(frozen=True)
class Decision:
    """Hold how probabilities become classes.

    Attributes:
        temperature: the probabilities are softened by it, see `soften`; 1 leaves them alone.
        threshold: of two classes, the second one counts where its probability is above; None: the larger one counts.
    """

    temperature: float = 1.0
    threshold: float | None = None


@dataclass(frozen=True)
class Recipe:
    """Hold the numbers of a chain.

    Attributes:
        image_kind: "volume" (slices in a patient), "projection" (a radiograph) or "photograph" (RGB).
        windows: one channel each; none for photographs.
        output_range: values of black and white.
        context_slices: slices on either side that are channels too.
        spacing: mm between the pixels that the network sees, of a volume.
        size: (columns, rows) that the network sees, of a projection or a photograph.
        mean, std: of each color, on the scale of bytes; of a photograph.
        tta_flips: for each mirror image that is averaged over, the axes it mirrors: 0 along a row, 1 along a column.
        regions: how many regions the network finds, which overlap; 0 where it finds classes.
        patch_size: (columns, rows) of the tiles of a photograph that the network sees one by one; None: it sees all.
        overlap: share of a tile that the next one covers too.
        tidying: what is tidied up of the labels, which a graph cannot.
    """

    image_kind: str
    windows: tuple[Window, ...] = ()
    output_range: tuple[float, float] = (0.0, 1.0)
    context_slices: int = 0
    spacing: float | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    tta_flips: tuple[tuple[int, ...], ...] = ()
    regions: int = 0
    patch_size: tuple[int, int] | None = None
    overlap: float = 0.0
    tidying: Tidying = field(default_factory=Tidying)

    @property
    def slices(self) -> int:
        """Return how many slices the network looks at for one."""
        return 2 * self.context_slices + 1

    @property
    def channels(self) -> int:
        """Return how many channels the network has."""
        return self.slices * len(self.windows) if self.windows else len(self.mean)

    @property
    def free_windows(self) -> list[dict[str, Any]]:
        """Return the windows that are known only when an image is, as items of a config."""
        return [
            {"percentiles": list(window)} if isinstance(window, Percentiles) else {"header": window}
            for window in self.windows
            if isinstance(window, Percentiles | int)
        ]

    @property
    def text(self) -> str:
        """Return the recipe as JSON."""
        return json.dumps({**asdict(self), "free_windows": self.free_windows})


def read_recipe(preprocessing: Compose, inferer: Inferer, postprocessing: Compose, image_kind: str) -> Recipe:
    """Return what the preprocessing, the inferer and the postprocessing of a config do with its kind of image.

    Raises:
        PyrasegError: they do something that neither a graph can hold nor the runtime does around it.
    """
    tidying = read_tidying(postprocessing)
    several = [name for step in preprocessing.transforms for name in _sequences(step)]
    if several:
        raise PyrasegError(
            f"The model takes several sequences ({', '.join(several)}), and a graph takes one series from raw pixels "
            "on. Export the network alone (--network-only), or segment with PyTorch: pyraseg segment."
        )
    steps = [step for step in preprocessing.transforms if not isinstance(step, LoadImaged | KeepOriginald | CopyItemsd)]
    if tuple(map(type, steps)) != CHAINS[image_kind]:
        found = ", ".join(type(step).__name__ for step in steps)
        known = ", ".join(kind.__name__ for kind in CHAINS[image_kind])
        raise PyrasegError(
            f"The preprocessing {found} cannot be put into a graph. That of a {image_kind} can: {known}. Export the "
            "network alone (--network-only), or bring the config into this form."
        )
    found = [len(step.regions) for step in postprocessing.transforms if isinstance(step, InvertRegionsd)]
    regions = found[0] if found else 0
    numbers = _numbers({type(step): step for step in steps})
    flips, inner = _flips(inferer)
    tiles = _tiles(inner, image_kind, numbers.get("size"))
    return Recipe(image_kind, tta_flips=flips, regions=regions, tidying=tidying, **numbers, **tiles)


def _sequences(step: object) -> list[str]:
    """Return the sequences that a loader reads of each case."""
    registered = step._loader.readers if isinstance(step, LoadImaged) else []
    return [name for reader in registered for name in getattr(reader, "sequences", ())]


def read_tidying(postprocessing: Compose) -> Tidying:
    """Return what is tidied up of the labels behind the network.

    Raises:
        PyrasegError: something else happens there, or before.
    """
    steps = list(postprocessing.transforms)
    tidying = steps.pop().tidying if steps and isinstance(steps[-1], TidyLabelsd) else Tidying()
    unknown = [type(step).__name__ for step in steps if not isinstance(step, AFTER)]
    if unknown:
        raise PyrasegError(
            f"The postprocessing has {', '.join(unknown)}, which the runtime does not know. It knows keep_largest, "
            "fill_holes and min_size of the configs. Export the network alone (--network-only)."
        )
    return tidying


def untidied(postprocessing: Compose) -> Compose:
    """Return the postprocessing without what tidies labels up."""
    return Compose([step for step in postprocessing.transforms if not isinstance(step, TidyLabelsd)])


def _numbers(steps: Mapping[type, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if Windowd in steps:
        found |= {"windows": steps[Windowd].windows, "output_range": (steps[Windowd].low, steps[Windowd].high)}
    if StackContextSlicesd in steps:
        found["context_slices"] = steps[StackContextSlicesd].context_slices
    if ResampleSlicesd in steps:
        found["spacing"] = float(steps[ResampleSlicesd].resizers[0].spacing)
    if ResizePhotographd in steps:
        found["size"] = tuple(int(side) for side in steps[ResizePhotographd].resizers[0].size)
    if NormalizeIntensityd in steps:
        normalizer = steps[NormalizeIntensityd].normalizer
        found |= {"mean": tuple(map(float, normalizer.subtrahend)), "std": tuple(map(float, normalizer.divisor))}
    return found


def _flips(inferer: Inferer) -> tuple[tuple[tuple[int, ...], ...], Inferer]:
    """Return the flips that an inferer averages over, and the inferer inside."""
    flips: Sequence[tuple[int, ...]] = ()
    while isinstance(inferer, FrugalInferer | FlipInferer):
        if isinstance(inferer, FlipInferer):
            flips = [tuple(axis - 2 for axis in axes) for axes in inferer.flips]  # from the axes of a batch
        inferer = inferer.inferer
    return tuple(flips), inferer


def _tiles(inferer: Inferer, image_kind: str, size: tuple[int, int] | None) -> dict[str, Any]:
    """Return the tiles that an inferer gives the network; nothing where it gives whole images.

    Raises:
        PyrasegError: it cuts images in a way that the runtime does not.
    """
    # The roi_size of a SliceInferer has a 1 across the slices, too, once it was called.
    whole_slices = isinstance(inferer, SliceInferer) and max(inferer.orig_roi_size) < 0
    if isinstance(inferer, SimpleInferer) or whole_slices:
        return {}
    remedy = "Export the network alone (--network-only)."
    if image_kind != "photograph" or size is None or type(inferer) is not SlidingWindowInferer:
        raise PyrasegError(
            f"The config gives the network tiles ({type(inferer).__name__}). The runtime cuts photographs by "
            f"SlidingWindowInferer, volumes in three dimensions by TileInferer, and gives all else whole. {remedy}"
        )
    tile = tuple(int(side) for side in inferer.roi_size)
    if inferer.mode != "gaussian" or inferer.sigma_scale != SIGMA_SCALE or not isinstance(inferer.overlap, float | int):
        raise PyrasegError(
            f"SlidingWindowInferer has the mode {str(inferer.mode)!r}, a sigma_scale of {inferer.sigma_scale} and an "
            f'overlap of {inferer.overlap}. The runtime blends tiles by mode "gaussian", a sigma_scale of '
            f"{SIGMA_SCALE}, and one overlap. {remedy}"
        )
    if len(tile) != 2 or min(tile) < 1 or any(of > whole for of, whole in zip(tile, size, strict=True)):
        raise PyrasegError(
            f"Tiles of {list(inferer.roi_size)} do not fit into photographs of {list(size)}. Give smaller ones "
            f"(slice_size), or larger photographs (photograph_size). {remedy}"
        )
    return {"patch_size": tile, "overlap": float(inferer.overlap)}
