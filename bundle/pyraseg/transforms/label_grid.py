# SPDX-License-Identifier: Apache-2.0
"""Lay the voxels of a label on the grid of its image, by where both lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor

from bundle.pyraseg.core import PyrasegError, tell
from bundle.pyraseg.dicom import LPS_TO_RAS, DicomImage, Geometry, voxel_sizes
from bundle.pyraseg.labels import ImageGrid
from bundle.pyraseg.transforms.nifti import GRID_TOLERANCE, SIZE_TOLERANCE

#: What 3D Slicer calls its segmentations, which it crops to what is drawn.
SLICER = (".seg.nrrd", ".seg.nhdr")


@dataclass(frozen=True, eq=False)
class Target:
    """Hold the grid that a label is put onto: shape (W, H[, D]), affine to RAS mm, the image's name.

    ``slices`` says where a DICOM image's slices lie and what they are; None for other formats. ``other_affine`` and
    ``oriented`` are as the reader's metadata have them; ``phase`` is the one that was read of several, or 0.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    name: str
    slices: ImageGrid | None = None
    other_affine: np.ndarray | None = None
    oriented: bool = True
    phase: int = 0

    @classmethod
    def of(cls, image: MetaTensor | DicomImage) -> "Target":
        """Return the grid of a loaded image (C, W, H[, D]), or of a DICOM series."""
        if isinstance(image, DicomImage):
            affine = LPS_TO_RAS if image.geometry is None else LPS_TO_RAS @ image.geometry.affine
            slices = ImageGrid.of(image)
            return cls(image.pixels.shape[2::-1], affine, str(image.files[0].parent), slices, phase=image.phase)
        meta, affine = image.meta, np.asarray(image.affine, float)
        shape, name = tuple(image.shape[1:]), str(meta.get("filename_or_obj", "it"))
        if "sop_instance_uids" not in meta:
            return cls.of_file(shape, {**meta, "affine": affine}, name)
        slices = (shape[2] if len(shape) > 2 else 1, shape[1], shape[0])  # a projection may have no axis of slices
        geometry = None
        if meta.get("slice_positions") is not None:
            positions, thick = np.asarray(meta["slice_positions"]), meta.get("slice_thicknesses")
            geometry = Geometry.from_affine(LPS_TO_RAS @ affine, positions, slice_thickness=thick)
        origin = ("series_uid", "frame_of_reference_uid", "sop_instance_uids", "frame_numbers")
        grid = ImageGrid(slices, geometry, **{name: meta[name] for name in origin})
        return cls(shape, affine, name, grid, phase=int(meta.get("phase", 0)))

    @classmethod
    def of_file(cls, shape: tuple[int, ...], meta: Mapping[str, Any], name: str) -> "Target":
        """Return the grid of an image of another format than DICOM, of this shape and with these metadata.

        One plane of a format of volumes lies in the patient too, so it stays a volume of one slice.
        """
        affine = np.asarray(meta.get("affine", np.eye(4)), float)
        shape = (*shape, 1) if len(shape) == 2 and "oriented" in meta else shape
        other, oriented = meta.get("other_affine"), meta.get("oriented", True)
        return cls(shape, affine, name, None, other, oriented, int(meta.get("phase", 0)))


def onto_grid(values: np.ndarray, meta: Mapping[str, Any], target: Target, path: Path) -> np.ndarray:
    """Permute and flip a label's array to the axes of its image.

    Args:
        values: array of the label; a trailing axis of length 1 that the image lacks is dropped.
        meta: its metadata, with `affine` to RAS mm; a photograph has none and is matched by its size. Where the header
            of label or image gives two places, each is tried; where one gives no orientation, grids of the same size
            are the same, and that is told.
        target: grid of the image.
        path: of the label. A segmentation of 3D Slicer may be a part of the image's grid; what it leaves out is 0.

    Raises:
        PyrasegError: the grids differ in more than the order and direction of their axes.
    """
    if len(target.shape) == 2:
        values = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    elif values.ndim == 2:
        values = values[..., None]
    if len(target.shape) == 2 or "affine" not in meta:
        if values.shape != target.shape:
            what = "The label has another size than its image"
            if values.shape == target.shape[::-1]:
                what += ", with width and height exchanged, as one that was drawn without the image's EXIF orientation"
            raise _mismatch(path, values.shape, target, what)
        return values
    if values.ndim != 3:
        raise _mismatch(path, values.shape, target, "The label is no volume")
    geometry = None if target.slices is None else target.slices.geometry
    if geometry is not None and not geometry.is_evenly_spaced and sorted(values.shape) != sorted(target.shape):
        # Not one plane a slice: then it can only be the regular grid that holds them, as labels of them are written.
        grid = geometry.regular_grid()
        shape = (*target.shape[:2], len(grid.sources))
        return onto_grid(values, meta, Target(shape, LPS_TO_RAS @ grid.affine, target.name), path)[:, :, grid.planes]
    cropped = "segments" in meta or path.name.lower().endswith(SLICER)
    grids = [affine for affine in (target.affine, target.other_affine) if affine is not None]
    places = [meta[name] for name in ("affine", "other_affine") if name in meta]
    reasons = []
    for grid in grids:
        for place in places:
            laid = _laid(values, np.linalg.inv(grid) @ np.asarray(place, float), target.shape, cropped=cropped)
            if not isinstance(laid, str):
                if reasons:
                    tell(f"{path} lies on its image by the other of qform and sform, which was taken for the two.")
                return laid
            reasons.append(laid)
    oriented = target.oriented and meta.get("oriented", True)
    if not oriented and values.shape == target.shape and _are_alike(target.affine, meta["affine"], target.shape):
        tell(f"{path} was laid on its image voxel by voxel, for one of their headers does not say how it lies.")
        return values
    raise _mismatch(path, values.shape, target, reasons[0])


def _are_alike(first: np.ndarray, second: np.ndarray, shape: Sequence[int]) -> bool:
    """Return whether two grids of a shape have the same voxel sizes; a lone slice may be of any thickness."""
    axes = np.array(shape) > 1
    return np.allclose(voxel_sizes(first)[axes], voxel_sizes(second)[axes], rtol=SIZE_TOLERANCE)


def _laid(values: np.ndarray, to_image: np.ndarray, shape: tuple[int, ...], *, cropped: bool) -> np.ndarray | str:
    """Return a label (3 axes) on its image's grid, or what keeps it from it; `to_image` leads from voxel to voxel."""
    steps = np.rint(to_image[:3, :3] / np.linalg.norm(to_image[:3, :3], axis=0))
    if not np.array_equal(np.abs(steps).sum(axis=0), np.ones(3)) or not np.array_equal(
        np.abs(steps).sum(axis=1), np.ones(3)
    ):
        return "The voxels of the label lie askew to those of its image"
    order = np.abs(steps).argmax(axis=1)
    signs = steps[np.arange(3), order]
    values = values.transpose(order)
    if values.shape != shape and not cropped:
        return "The label has another size than its image"
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in values.shape], indexing="ij")).reshape(3, -1)
    stored = np.where(signs[:, None] > 0, corners, np.array(values.shape)[:, None] - 1 - corners)
    original = np.empty_like(stored)
    original[order] = stored
    there = to_image[:3, :3] @ original + to_image[:3, 3:]
    start = np.rint(there[:, :1] - corners[:, :1]).astype(int) if cropped else np.zeros((3, 1), int)
    missed = np.abs(there - corners - start).max()
    if missed > GRID_TOLERANCE:
        return f"The label lies up to {missed:.1f} voxels beside its image"
    laid = np.flip(values, axis=tuple(np.flatnonzero(signs < 0).tolist()))
    return _pasted(laid, start[:, 0], shape) if cropped else laid


def _pasted(part: np.ndarray, start: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | str:
    """Return a part of a grid, which begins at a voxel, on the whole of it; or that it holds something outside."""
    first, end = np.maximum(start, 0), np.minimum(start + part.shape, shape)
    inside = tuple(map(slice, first - start, np.maximum(end, first) - start))
    lost = np.count_nonzero(part) - np.count_nonzero(part[inside])
    if lost:
        return f"The label has {lost} voxels outside of its image"
    whole = np.zeros(shape, part.dtype)
    whole[tuple(map(slice, first, np.maximum(end, first)))] = part[inside]
    return whole


def _mismatch(path: Path, shape: Sequence[int], target: Target, what: str) -> PyrasegError:
    return PyrasegError(
        f"{what}: {path} has {' x '.join(map(str, shape))} voxels, {target.name} has "
        f"{' x '.join(map(str, target.shape))}. Draw or resample the label on this image's grid."
    )
