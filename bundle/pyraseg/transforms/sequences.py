# SPDX-License-Identifier: Apache-2.0
"""Bring the sequences of a case onto the grid of the first, and stack them as channels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bundle.pyraseg.core import PyrasegError, tell
from bundle.pyraseg.dicom import LPS_TO_RAS, Geometry, apply_affine, voxel_sizes
from bundle.pyraseg.transforms.nifti import SIZE_TOLERANCE

#: Voxels of the other grid by which two grids may differ that are taken for one.
SAME_GRID = 0.01
#: Share of the smaller of two fields of view that has to lie in the other.
LEAST_OVERLAP = 0.1
#: Share of the first sequence's voxels from which on nothing is told of those that another one has not.
USUAL_COVERAGE = 0.5
#: Points along each axis that an overlap is measured at.
PROBES = 12
#: What the metadata keep of a sequence for `Windowd`: how it is shown, and what of it is padding.
SHOWN = ("inverted", "for_processing", "padding", "voi")

#: What a reader returns: the array, (W, H, D), and its metadata.
Read = tuple[Any, dict[str, Any]]


def stack_sequences(sequences: Mapping[str, Read | None], names: Mapping[str, str]) -> tuple[torch.Tensor, dict]:
    """Return the sequences of a case as channels on the grid of the first, (W, H, D, N) float32, and the metadata.

    The metadata are those of the first sequence. Beside them stand `sequences`, the names of all; `other_sequences`,
    what `Windowd` has to know of each but the first; and `missing_sequences`, the names of those that the case lacks,
    with commas between them. The channel of a missing one is 0.

    Args:
        sequences: what was read of each, the first one first; None where it is missing.
        names: where each was read, for messages.

    Raises:
        PyrasegError: a sequence is in color, has another frame of reference than the first, no place in the patient, or
            lies elsewhere.
    """
    (first, read), *others = sequences.items()
    assert read is not None  # `SequencePaths` sees to it
    values, meta = _volume(read, names[first])
    shape = tuple(values.shape)
    stacked = torch.zeros((len(sequences), *shape[::-1]))  # slice after slice in memory
    stacked[0] = values.permute(2, 1, 0)
    about = []
    for channel, (name, other) in enumerate(others, 1):
        shown: dict[str, Any] = {"name": name, "missing": other is None}
        if other is not None:
            moving, its = _volume(other, names[name])
            require_one_place((shape, meta, names[first]), (tuple(moving.shape), its, names[name]))
            stacked[channel], changed = onto_first(moving, its, shape, meta, name=names[name])
            shown |= {key: value for key, value in {**its, **changed}.items() if key in SHOWN}
        about.append(shown)
    return stacked.permute(3, 2, 1, 0), {
        **meta,
        "original_channel_dim": 3,
        "sequences": list(sequences),
        "other_sequences": about,
        "missing_sequences": ", ".join(shown["name"] for shown in about if shown["missing"]),
    }


def _volume(read: Read, name: str) -> tuple[torch.Tensor, dict[str, Any]]:
    values, meta = torch.as_tensor(np.asarray(read[0], np.float32)), read[1]
    if values.ndim != 3:
        raise PyrasegError(f"{name} has the shape {tuple(values.shape)}; a sequence is a gray volume.")
    if not meta.get("has_geometry", True) or "affine" not in meta:
        raise PyrasegError(f"{name} has no patient position, so it cannot be laid on another sequence.")
    return values, meta


def geometry_of_meta(meta: Mapping[str, Any], depth: int) -> Geometry:
    """Return where the slices of a volume lie, by the metadata that a reader gave it."""
    affine = LPS_TO_RAS @ np.asarray(meta["affine"], float)
    positions, thickness = meta.get("slice_positions"), meta.get("slice_thicknesses")
    if positions is None:
        positions = apply_affine(affine, np.arange(depth)[:, None] * (0, 0, 1))
    return Geometry.from_affine(affine, np.asarray(positions, float), slice_thickness=thickness)


def require_one_place(
    first: tuple[Sequence[int], Mapping[str, Any], str], other: tuple[Sequence[int], Mapping[str, Any], str]
) -> None:
    """Refuse a sequence whose voxels cannot be laid on those of the first by where both lie.

    Args:
        first, other: the shape (W, H, D), the metadata and the name of each.

    Raises:
        PyrasegError: they name different frames of reference, one does not say how it lies, or they lie apart.
    """
    (shape, meta, name), (its_shape, its, its_name) = first, other
    frames = [str(each.get("frame_of_reference_uid") or "") for each in (meta, its)]
    if all(frames) and frames[0] != frames[1]:
        raise PyrasegError(
            f"{its_name} has another frame of reference ({frames[1]}) than {name} ({frames[0]}): the patient may have "
            "moved between them, so their positions cannot be compared. Register the sequences first, and give the "
            "registered images."
        )
    if any(not each.get("oriented", True) for each in (meta, its)):
        if not _are_alike((shape, meta), (its_shape, its)):
            raise PyrasegError(
                f"The header of {its_name} or of {name} does not say how the image lies, and their sizes differ: "
                f"{_by(its_shape)} and {_by(shape)} voxels. Give images with an orientation."
            )
        return
    covered, inside = _overlap(shape, meta, its_shape, its), _overlap(its_shape, its, shape, meta)
    if max(covered, inside) < LEAST_OVERLAP:
        raise PyrasegError(
            f"{its_name} lies elsewhere than {name}: they share {100 * max(covered, inside):.0f} % of the smaller of "
            "their fields of view. Are they of one patient and one position? Correct the images, or leave the case out."
        )
    if covered < USUAL_COVERAGE:
        tell(f"{its_name} covers {100 * covered:.0f} % of {name}; what it has not is taken for padding.")


def onto_first(
    values: torch.Tensor, meta: Mapping[str, Any], shape: Sequence[int], first: Mapping[str, Any], *, name: str
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Return a volume on the grid of another, (D, H, W), and what changes in its metadata.

    Where both grids are the same, values stay as they are. Otherwise they are interpolated linearly, between slices
    that are unevenly spaced too, up to half a voxel beyond the outer ones. What lies outside holds the smallest value
    of the volume, as all padding does.

    Args:
        values: (W, H, D).
        meta: of the volume, as the reader has them.
        shape: (W, H, D) of the grid.
        first: metadata of the grid.
        name: for messages.
    """
    if not (meta.get("oriented", True) and first.get("oriented", True)):
        tell(f"{name} was laid on the first sequence voxel by voxel, for a header does not say how its image lies.")
        return values.permute(2, 1, 0), {}
    grid, own = geometry_of_meta(first, shape[2]), geometry_of_meta(meta, values.shape[2])
    if tuple(values.shape) == tuple(shape) and _is_same(grid, own, shape):
        return values.permute(2, 1, 0), {}
    smallest = values.min()
    source = values.permute(2, 1, 0).contiguous()[None, None]
    last = np.maximum(np.array(values.shape) - 1, 1)
    laid = torch.empty(tuple(shape)[::-1])
    places = np.stack(np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="xy"), axis=-1).reshape(-1, 2)
    outside = 0
    for number, plane in enumerate(laid):
        indices = own.indices(grid.points(np.column_stack([places, np.full(len(places), number)])))
        beyond = torch.from_numpy(_is_outside(indices, values.shape)).reshape(plane.shape)
        where = torch.from_numpy((2 * indices / last - 1).astype(np.float32)).reshape(1, 1, *plane.shape, 3)
        plane[:] = F.grid_sample(source, where, padding_mode="border", align_corners=True)[0, 0, 0]
        plane[beyond] = smallest
        outside += int(beyond.sum())
    changed: dict[str, Any] = {"padding": outside}
    if padding := int(meta.get("padding", 0)):  # as large a share of what has that value as before
        share = padding / int((values == smallest).sum())
        changed["padding"] += round(share * (int((laid == smallest).sum()) - outside))
    if "voi" in meta:  # windows that vary from slice to slice belong to slices that are no more
        alike = all(view == meta["voi"][0] for view in meta["voi"])
        changed["voi"] = [meta["voi"][0]] * shape[2] if alike and len(meta["voi"]) else []
    return laid, changed


def _is_outside(indices: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return which indices (n, 3) are more than half a voxel beyond the centers of the outer voxels."""
    return np.any((indices < -0.5) | (indices > np.array(shape) - 0.5), axis=1)


def _is_same(grid: Geometry, own: Geometry, shape: Sequence[int]) -> bool:
    ends = [[0, shape[0] - 1], [0, shape[1] - 1], range(shape[2])]
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    return bool(np.abs(own.indices(grid.points(corners)) - corners).max() <= SAME_GRID)


def _are_alike(first: tuple[Sequence[int], Mapping[str, Any]], other: tuple[Sequence[int], Mapping[str, Any]]) -> bool:
    sizes = [voxel_sizes(np.asarray(meta["affine"], float)) for _, meta in (first, other)]
    return tuple(first[0]) == tuple(other[0]) and np.allclose(*sizes, rtol=SIZE_TOLERANCE)


def _overlap(
    shape: Sequence[int], meta: Mapping[str, Any], other_shape: Sequence[int], other_meta: Mapping[str, Any]
) -> float:
    """Return the share of a field of view that lies in another one."""
    probes = [np.linspace(0, size - 1, min(size, PROBES)) for size in shape]
    points = geometry_of_meta(meta, shape[2]).points(np.stack(np.meshgrid(*probes), axis=-1).reshape(-1, 3))
    indices = geometry_of_meta(other_meta, other_shape[2]).indices(points)
    return 1 - float(_is_outside(indices, other_shape).mean())


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
