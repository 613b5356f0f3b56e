# SPDX-License-Identifier: Apache-2.0
"""What happens to an image before and after the network, read from the components of an inference config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai.inferers import Inferer, SimpleInferer, SliceInferer
from monai.transforms import Activationsd, Compose, CopyItemsd, Invertd, LoadImaged, NormalizeIntensityd

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.inference import FlipInferer, FrugalInferer
from bundle.pyraseg.transforms import (
    DropSliceAxisd,
    InvertArgmaxd,
    KeepOriginald,
    OrientSlicesd,
    Percentiles,
    RequireFinited,
    ResampleSlicesd,
    ResizePhotographd,
    StackContextSlicesd,
    TemperatureScaled,
    Window,
    Windowd,
)

#: The transforms behind `LoadImaged` (`KeepOriginald` aside) that make a kind of image what its network expects.
CHAINS = {
    "volume": (Windowd, OrientSlicesd, ResampleSlicesd, StackContextSlicesd),
    "projection": (DropSliceAxisd, Windowd, ResizePhotographd),
    "photograph": (DropSliceAxisd, ResizePhotographd, NormalizeIntensityd),
}


#: The transforms behind the network that the end of a graph does.
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


def read_recipe(preprocessing: Compose, inferer: Inferer, postprocessing: Compose, image_kind: str) -> Recipe:
    """Return what the preprocessing, the inferer and the postprocessing of a config do with its kind of image.

    Raises:
        PyrasegError: they do something that a graph cannot hold.
    """
    require_untidied(postprocessing)
    steps = [step for step in preprocessing.transforms if not isinstance(step, LoadImaged | KeepOriginald | CopyItemsd)]
    if tuple(map(type, steps)) != CHAINS[image_kind]:
        found = ", ".join(type(step).__name__ for step in steps)
        known = ", ".join(kind.__name__ for kind in CHAINS[image_kind])
        raise PyrasegError(
            f"The preprocessing {found} cannot be put into a graph. That of a {image_kind} can: {known}. Export the "
            "network alone (--network-only), or bring the config into this form."
        )
    return Recipe(image_kind, tta_flips=_flips(inferer), **_numbers({type(step): step for step in steps}))


def require_untidied(postprocessing: Compose) -> None:
    """Raise PyrasegError where labels are tidied up behind the network."""
    tidying = [type(step).__name__ for step in postprocessing.transforms if not isinstance(step, AFTER)]
    if tidying:
        raise PyrasegError(
            f"The postprocessing ({', '.join(tidying)}) uses connected components, which a graph cannot. Export with "
            "keep_largest, fill_holes and min_size switched off, and apply them to the labels yourself."
        )


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


def _flips(inferer: Inferer) -> tuple[tuple[int, ...], ...]:
    """Return the flips that an inferer averages over, and refuse one that cuts images into tiles."""
    flips: Sequence[tuple[int, ...]] = ()
    while isinstance(inferer, FrugalInferer | FlipInferer):
        if isinstance(inferer, FlipInferer):
            flips = [tuple(axis - 2 for axis in axes) for axes in inferer.flips]  # from the axes of a batch
        inferer = inferer.inferer
    whole = isinstance(inferer, SimpleInferer) or (isinstance(inferer, SliceInferer) and max(inferer.roi_size) < 0)
    if not whole:
        raise PyrasegError(
            f"The config gives the network tiles ({type(inferer).__name__}), and the graph gives it whole images. "
            "Export the network alone (--network-only)."
        )
    return tuple(flips)
