# SPDX-License-Identifier: Apache-2.0
"""Tidy up label maps by connected components, in NumPy and SciPy: the bundle and its runtime share this."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from bundle.pyraseg.core import PyrasegError, Structures

#: Share by which the volume of a component may be wrong where a header holds its voxel sizes as float32.
SIZE_ROUNDING = 1e-6


@dataclass(frozen=True)
class Tidying:
    """Say what is tidied up of a label map. A structure is told by its place in `Structures.names`, from 1 on.

    Attributes:
        keep_largest: structures of which the largest component alone stays; of equal ones the first.
        fill_holes: structures whose holes are filled; what is open to a side or a corner is no hole.
        min_size: mm³ of a volume, pixels of a picture, below which a component of any structure goes; 0: none does.

    >>> tidying = Tidying(keep_largest=(1,))
    >>> tidying(np.array([[1, 1, 0, 2, 0, 1]], np.uint8), Structures(["background", "a", "b"])).tolist()
    [[1, 1, 0, 2, 0, 0]]
    """

    keep_largest: tuple[int, ...] = ()
    fill_holes: tuple[int, ...] = ()
    min_size: float = 0

    def __bool__(self) -> bool:
        return bool(self.keep_largest or self.fill_holes or self.min_size)

    def require(self) -> None:
        """Raise PyrasegError where what this needs is not installed."""
        if self and find_spec("scipy") is None:
            raise PyrasegError("This model tidies up its labels with SciPy, which is missing: pip install scipy.")

    def __call__(
        self,
        values: np.ndarray,
        structures: Structures,
        blocks: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> np.ndarray:
        """Return a label map of which the largest were kept, then holes filled, then small components removed.

        Voxels that share a face are connected.

        Args:
            values: of classes or of regions, (W, H) or (W, H, D) uint8; they are left as they are.
            structures: what the values mean.
            blocks: of a volume, for `min_size`: the slices that lie together, and the mm³ of a voxel of each. None: all
                slices do, and voxels are counted.
        """
        values = values.copy()
        for number in self.keep_largest:
            _remove(values, structures, number, lambda sizes: np.arange(len(sizes)) != sizes.argmax())
        for number in self.fill_holes:
            _fill(values, structures, number)
        if self.min_size:
            least = self.min_size * (1 - SIZE_ROUNDING)
            for slices, volumes in [(slice(None), None)] if blocks is None else blocks:
                block = values[..., slices]
                for number in range(1, len(structures.names)):
                    _remove(block, structures, number, lambda sizes: sizes < least, volumes)
                values[..., slices] = block
        return values


def _remove(
    values: np.ndarray,
    structures: Structures,
    number: int,
    chosen: Callable[[np.ndarray], np.ndarray],
    volumes: np.ndarray | None = None,
) -> None:
    """Take those components of a structure out of a label map that are chosen by their sizes.

    Args:
        values: (W, H) or (W, H, D), changed in place.
        structures: what the values mean.
        number: of the structure.
        chosen: returns for the sizes of all components which of them go.
        volumes: of a voxel of each slice; None: each counts as 1.
    """
    from scipy import ndimage

    components, count = ndimage.label(structures.mask(values, number))
    if not count:
        return
    sizes = np.zeros(count + 1)
    planes = components[..., None] if components.ndim == 2 else components
    for index in range(planes.shape[-1]):  # each in turn: to be counted, a voxel takes 8 bytes
        counts = np.bincount(planes[..., index].ravel(), minlength=count + 1)
        sizes += counts if volumes is None else counts * volumes[index]
    gone = np.concatenate([[False], chosen(sizes[1:])])
    for plane, found in zip(values, components, strict=True):  # in turn, as well
        where = gone[found]
        plane[where] = plane[where] & ~_bit(number) if structures.overlapping else 0


def _fill(values: np.ndarray, structures: Structures, number: int) -> None:
    """Fill the holes of a structure in a label map, (W, H) or (W, H, D), in place; of one slice those in its plane."""
    from scipy import ndimage

    plane = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    mask = structures.mask(plane, number)
    holes = ndimage.binary_fill_holes(mask, np.ones([3] * mask.ndim)) & ~mask
    plane[holes] = plane[holes] | _bit(number) if structures.overlapping else number


def _bit(number: int) -> np.uint8:
    """Return what a region is in the label values of those that overlap."""
    return np.uint8(1 << (number - 1))
