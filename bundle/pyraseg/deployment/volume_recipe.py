# SPDX-License-Identifier: Apache-2.0
"""What happens around a network that sees volumes in three dimensions, for the runtime that does it without PyTorch."""

import json
from dataclasses import asdict, dataclass, field

from monai.inferers import Inferer
from monai.transforms import Compose, CopyItemsd, LoadImaged

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.deployment.recipe import Recipe, read_recipe, read_tidying
from bundle.pyraseg.inference import TileInferer
from bundle.pyraseg.runtime import Tidying
from bundle.pyraseg.transforms import KeepOriginald, OrientVolumesd, ResampleVolumesd, Window, Windowd

#: The transforms behind `LoadImaged` (`KeepOriginald` aside) that the runtime does.
CHAIN = (Windowd, OrientVolumesd, ResampleVolumesd)


@dataclass(frozen=True)
class VolumeRecipe:
    """Hold the numbers of a chain.

    Attributes:
        windows: one channel each.
        output_range: values of black and white.
        spacing: mm between the voxels that the network sees, along W, H and D of the axes LPS.
        patch_size: voxels of a tile, along the same axes.
        overlap: share of a tile that the next one covers too.
        tta_flips: for each mirror image of a tile that is averaged over, the axes that it mirrors.
        tidying: what is tidied up of the labels.
        image_kind: "volume".
    """

    windows: tuple[Window, ...]
    output_range: tuple[float, float]
    spacing: tuple[float, ...]
    patch_size: tuple[int, ...]
    overlap: float
    tta_flips: tuple[tuple[int, ...], ...]
    tidying: Tidying = field(default_factory=Tidying)
    image_kind: str = "volume"

    @property
    def text(self) -> str:
        """Return the recipe as JSON."""
        return json.dumps(asdict(self))


def recipe_of(
    preprocessing: Compose, inferer: Inferer, postprocessing: Compose, image_kind: str
) -> Recipe | VolumeRecipe:
    """Return what the components of a config do with its kind of image, see `read_recipe` and `read_volume_recipe`."""
    if isinstance(inferer, TileInferer):
        return read_volume_recipe(preprocessing, inferer, postprocessing)
    return read_recipe(preprocessing, inferer, postprocessing, image_kind)


def read_volume_recipe(preprocessing: Compose, inferer: Inferer, postprocessing: Compose) -> VolumeRecipe:
    """Return what the preprocessing and the inferer of a config do with volumes.

    Raises:
        PyrasegError: they, or the postprocessing, do something that the runtime does not.
    """
    tidying = read_tidying(postprocessing)
    if not isinstance(inferer, TileInferer):
        raise PyrasegError(f"The config has {type(inferer).__name__}, and volumes are inferred by TileInferer.")
    steps = [step for step in preprocessing.transforms if not isinstance(step, LoadImaged | KeepOriginald | CopyItemsd)]
    if tuple(map(type, steps)) != CHAIN:
        found = ", ".join(type(step).__name__ for step in steps)
        known = ", ".join(kind.__name__ for kind in CHAIN)
        raise PyrasegError(
            f"The runtime does not know the preprocessing {found}. For volumes it knows: {known}. Export the network "
            "alone (--network-only), or bring the config into this form."
        )
    windowing, _, resampling = steps
    assert isinstance(windowing, Windowd) and isinstance(resampling, ResampleVolumesd)
    return VolumeRecipe(
        windowing.windows,
        (windowing.low, windowing.high),
        resampling.resamplers[0].spacing,
        inferer.patch_size,
        inferer.overlap,
        tuple(inferer.flips),
        tidying,
    )
