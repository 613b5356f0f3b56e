# SPDX-License-Identifier: Apache-2.0
"""Slices or volumes: which of the two a data set asks for, and the grid on which a network sees volumes in 3-D."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bundle.pyraseg.networks import plan_stages
from bundle.pyraseg_tools.fingerprint.measuring import CaseFingerprint
from bundle.pyraseg_tools.fingerprint.rules import Setting

Axes = tuple[float, float, float]

#: From this ratio of spacings on an axis is thick, as in nnU-Net (Isensee et al., Nat Methods 2021).
ANISOTROPIC = 3.0
FEWEST_SLICES = 8  # of a volume, or there is no third dimension to speak of
FEWEST_SHOWING = 4  # slices that show a class: one with a neighbor on either side sees nearly as many
LEAST_PATCHES = 300  # for which a patch is made smaller
FEWEST_PATCHES = 1500  # of a training in 3-D: the hippocampus was far behind its slices with 400, ahead with 1680
CHANNELS = (16, 32, 64, 128, 256)  # of the stages of the residual encoder
SMALLEST_PATCH = 16  # voxels along an axis that is not thick
LEAST_LEFT = 4  # voxels along the longest side of a patch on the coarsest map
COVERED = 4  # a patch is to cover this part of a volume, as nnU-Net's full resolution is to
LEAST_ACROSS = 6  # voxels across the smallest class: no coarser spacing than that
COARSER = 1.03  # factor of one step towards a coarser spacing
ROTATION = 15  # degrees
DEFAULT_VOXELS = 96**3  # of a patch, where neither a memory nor a time is named


class VolumeSizes(NamedTuple):
    """What the rules ask of the volumes of a data set, in medians; axes are W, H and D of `OrientVolumes`.

    Attributes:
        spacing: mm.
        fine_spacing: the 10th percentile of each axis in mm.
        extent: mm.
        slices: along the axis of acquisition.
        showing: slices that show the class that the fewest show.
        across: mm across the smallest class, as the diameter of a ball of its volume.
    """

    spacing: Axes
    fine_spacing: Axes
    extent: Axes
    slices: float
    showing: float
    across: float

    @property
    def thickness(self) -> float:
        """Return how many times as long voxels are along their longest axis as along the next."""
        _, middle, longest = sorted(self.spacing)
        return longest / middle


def volume_sizes(cases: Sequence[CaseFingerprint]) -> VolumeSizes | None:
    """Return the sizes of the cases, or None where not all are volumes with a geometry.

    Args:
        cases: that can be used; some of them have labels.
    """
    if not all(case.spacing and len(case.along) == 3 for case in cases):
        return None
    spacings = np.array([[(case.spacing or ())[axis] for axis in case.along] for case in cases])
    sizes = np.array([[case.size[axis] for axis in case.along] for case in cases])
    showing, across = [], []
    for k in range(1, max(case.counts.shape[1] for case in cases)):
        there = [case for case in cases if case.counts[:, k].any()]
        if there:
            showing.append(np.median([np.count_nonzero(case.counts[:, k]) for case in there]))
            volumes = [case.counts[:, k].sum() * np.prod(case.spacing or 0) for case in there]
            across.append(float(np.cbrt(6 * np.median(volumes) / np.pi)))
    return VolumeSizes(
        spacing=_axes(np.median(spacings, axis=0)),
        fine_spacing=_axes(np.percentile(spacings, 10, axis=0)),
        extent=_axes(np.median(sizes * spacings, axis=0)),
        slices=float(np.median([len(case.counts) for case in cases])),
        showing=float(min(showing)),
        across=min(across),
    )


def choose_form(sizes: VolumeSizes | None, patches: float | None = None) -> tuple[str, str]:
    """Return "slices" or "volumes", and why.

    Args:
        sizes: of the volumes; None for images without a third dimension.
        patches: that a training in 3-D would see in the time that is named; None where none is.
    """
    if sizes is None:
        return "slices", "not every image is a volume with patient geometry"
    if sizes.slices < FEWEST_SLICES:
        return "slices", f"the median volume has {sizes.slices:g} slices: 3-D wants {FEWEST_SLICES} or more"
    if sizes.showing < FEWEST_SHOWING:
        return "slices", f"the median case shows a class in {sizes.showing:g} slices: its neighbors are all there is"
    if sizes.thickness >= ANISOTROPIC:
        return "slices", (
            f"voxels are {sizes.thickness:.2g} times as long along their longest axis, {max(sizes.spacing):.3g} mm, as "
            f"in the plane (from {ANISOTROPIC:g} on): shape changes more from slice to slice than a 3-D kernel follows"
        )
    if patches is not None and patches < FEWEST_PATCHES:
        return "slices", (
            f"in the time that is named a network in 3-D sees {patches:.0f} patches, and {FEWEST_PATCHES} or more are "
            "needed"
        )
    seen = f", of which a training sees {patches:.0f} patches" if patches is not None else ""
    return "volumes", (
        f"{sizes.slices:g} slices, voxels {sizes.thickness:.2g} times as long along their longest axis, and a class in "
        f"{sizes.showing:g} slices or more: shape is three-dimensional{seen}"
    )


def volume_spacing(sizes: VolumeSizes, voxels: int) -> Setting:
    """Return the spacing along W, H and D in mm.

    The median; along a thick axis the 10th percentile, though no finer than the others (nnU-Net), so that thin slices
    among thick ones keep their detail. Where a patch would cover less than a `COVERED`-th of a volume, the finest axes
    become coarser until it does, or until the smallest class is `LEAST_ACROSS` voxels wide.

    Args:
        sizes: of the volumes.
        voxels: of a patch.
    """
    spacing = np.array(sizes.spacing)
    reason = "the median spacing in mm"
    thick = int(spacing.argmax())
    others = np.delete(spacing, thick)
    if spacing[thick] >= ANISOTROPIC * others.max():
        finer = max(sizes.fine_spacing[thick], others.max())
        reason += f"; of the thick axis the 10th percentile, {finer:.3g}, which keeps what thin slices show"
        spacing[thick] = finer
    native = spacing.copy()
    while np.prod(np.array(sizes.extent) / spacing) > COVERED * voxels and spacing.min() * LEAST_ACROSS < sizes.across:
        fine = spacing * COARSER < spacing.max()
        spacing = np.where(fine if fine.any() else True, spacing * COARSER, spacing)
    if (spacing != native).any():
        reason += (
            f", made coarser so that a patch sees more of a volume; the smallest class is {sizes.across:.3g} mm across"
        )
    return Setting([float(f"{length:.3g}") for length in spacing], reason)


def volume_patch(sizes: VolumeSizes, spacing: Sequence[float], voxels: int) -> tuple[Setting, Setting]:
    """Return `patch_size` and `channels`: the median volume where it fits, in steps that the strides leave whole.

    Args:
        sizes: of the volumes.
        spacing: mm along W, H and D.
        voxels: that a patch may have.
    """
    shape = np.maximum(np.rint(np.array(sizes.extent) / spacing), 1)
    patch = shape.copy()
    while True:
        channels = _channels(patch)
        multiples = _multiples(spacing, patch, len(channels))
        rounded = np.ceil(patch / multiples) * multiples
        shrinkable = rounded > np.maximum(multiples, SMALLEST_PATCH)
        if np.prod(rounded) <= voxels or not shrinkable.any():
            break
        axis = int(np.where(shrinkable, rounded / shape, 0).argmax())  # of which the patch has the largest part
        patch[axis] = rounded[axis] - multiples[axis]
    whole = (rounded >= shape).all()
    covered = "the median volume" if whole else f"{min(np.prod(rounded / shape), 1):.0%} of the median volume"
    steps = " x ".join(str(int(m)) for m in multiples)
    fits = "" if whole else f", the most that {voxels:,} voxels allow"
    of_patch = Setting([int(side) for side in rounded], f"{covered}{fits}, in multiples of the strides, {steps}")
    left = int(max(rounded / multiples))
    return of_patch, Setting(channels, f"{len(channels)} stages leave {left} voxels along the longest side of a patch")


def volume_rotation(spacing: Sequence[float]) -> Setting:
    """Return the largest angles of the augmentation, about all axes or about the thick one alone."""
    thick = int(np.argmax(spacing))
    ratio = spacing[thick] / max(np.delete(spacing, thick))
    if ratio < ANISOTROPIC:
        return Setting(ROTATION, "degrees, about all axes: voxels are nearly as long along each")
    angles = [ROTATION if axis == thick else 0 for axis in range(3)]
    return Setting(angles, f"degrees, in the plane alone: voxels are {ratio:.2g} times as long across it")


def _channels(patch: np.ndarray) -> list[int]:
    stages = 1 + int(np.log2(max(patch.max() / LEAST_LEFT, 2)))
    return list(CHANNELS[: min(stages, len(CHANNELS))])


def _multiples(spacing: Sequence[float], patch: np.ndarray, stages: int) -> np.ndarray:
    """Return by what the sides of a patch are divided on the way to the coarsest map."""
    planned = plan_stages(spacing, count=stages, patch_size=[int(side) for side in patch])
    return np.prod([stage.stride for stage in planned], axis=0)


def _axes(values: np.ndarray) -> Axes:
    width, height, depth = values.tolist()
    return width, height, depth
