# SPDX-License-Identifier: Apache-2.0
"""NaN and infinity are padding where they are connected to the edge of a slice, and refused everywhere else.

A slice without any other value is padding only in a run at the first or last end of the stack.
"""

import itertools
import logging

import numpy as np
import pytest
from scipy import ndimage

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.core.padding import fill_outside, require_outside, valid_percentiles


def enclosed(missing: np.ndarray) -> np.ndarray:
    """Return what SciPy's connected components leave inside, of a mask (slices, rows, columns)."""
    components, _ = ndimage.label(missing)
    edges = [components[:, 0], components[:, -1], components[..., 0], components[..., -1]]
    outside = np.unique(np.concatenate([edge.ravel() for edge in edges]))
    return missing & ~np.isin(components, outside)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45, 0.6])
@pytest.mark.parametrize("seed", range(5))
def test_random_masks_are_told_apart_as_by_connected_components(share: float, seed: int) -> None:
    missing = np.random.default_rng(seed).random((5, 12, 9)) < share
    inside = enclosed(missing)
    if not inside.any():
        require_outside(missing, ["a"] * 5)
        return
    with pytest.raises(PyrasegError, match=f"inside the image: {inside.sum()} of 540 pixels") as caught:
        require_outside(missing, [f"slice {k}" for k in range(5)])
    first, row, column = np.argwhere(inside)[0]
    assert f"slice {first} holds" in str(caught.value)
    assert f"column {column}, row {row}, slice {first}," in str(caught.value)


def test_a_winding_way_to_the_edge_is_followed() -> None:
    missing = np.zeros((3, 9, 9), bool)
    missing[0, 0:8, 4] = True  # in from the edge of the first slice,
    missing[:, 7, 4] = True  # through the slices,
    missing[2, 2:8, 4] = missing[2, 2, 4:7] = missing[2, 2:6, 6] = True  # and round corners in the last one
    require_outside(missing, ["a"] * 3)
    missing[0, 0, 4] = False
    with pytest.raises(PyrasegError, match=f"{missing.sum()} of 243 pixels, in 3 of 3 slices"):
        require_outside(missing, ["a"] * 3)


OUTSIDE = {
    "one slice at the end": np.s_[:, :, -1],
    "one slice at the beginning": np.s_[:, :, 0],
    "a slab at the beginning": np.s_[:, :, :2],
    "a slab at the end": np.s_[:, :, 2:],
    "all but one pixel of a slice in the middle": np.s_[1:, :, 2],
    "a corner": np.s_[0, 0, 0],
    "a voxel of an edge": np.s_[-1, 4, 3],
    "a border": np.s_[:2],
    "all but one voxel": np.s_[1:],
}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", OUTSIDE.values(), ids=OUTSIDE)
def test_outside_takes_the_smallest_value(place: tuple, value: float) -> None:
    clean = np.random.default_rng(0).normal(size=(8, 9, 5)).astype(np.float32)
    values = clean.copy()
    values[place] = value
    missing = ~np.isfinite(values)
    assert fill_outside(values, "a", axes=3) == missing.sum()
    assert np.array_equal(values, np.where(missing, clean[~missing].min(), clean))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(7, 8), (7, 8, 1), (7, 8, 3)])
def test_inside_is_refused_with_file_number_and_place(shape: tuple, value: float) -> None:
    values = np.zeros(shape, np.float32)
    values[2, 3] = value
    pixels = values.size
    count = pixels // 56
    with pytest.raises(
        PyrasegError, match=f"scan.nii holds NaN .* {count} of {pixels} pixels.*column 2, row 3, slice 0"
    ):
        fill_outside(values, "scan.nii", axes=len(shape))


def test_the_middle_of_the_first_slice_is_inside() -> None:
    values = np.zeros((7, 8, 4), np.float32)
    values[3:5, 3:5, 0] = np.nan
    with pytest.raises(PyrasegError, match="4 of 224 pixels, in 1 of 4 slices"):
        fill_outside(values, "a", axes=3)


def test_a_pixel_lacks_its_value_if_a_channel_does() -> None:
    values = np.arange(4 * 5 * 3, dtype=np.float32).reshape(4, 5, 3)
    values[0, 0, 1] = np.nan
    assert fill_outside(values, "a", axes=2) == 1
    assert values[0, 0].tolist() == [0, 0, 0]
    values[2, 2, 1] = np.inf
    with pytest.raises(PyrasegError, match="1 of 20 pixels"):
        fill_outside(values, "a", axes=2)


@pytest.mark.parametrize(
    "empty", [*itertools.product([False, True], repeat=5)], ids=lambda each: "".join("01"[e] for e in each)
)
def test_slices_without_values_are_padding_at_the_ends_alone(empty: tuple) -> None:
    values = np.ones((6, 7, 5), np.float32)
    values[..., list(empty)] = np.nan
    if all(empty):
        with pytest.raises(PyrasegError, match="nothing but NaN"):
            fill_outside(values, "a", axes=3)
        return
    first, last = empty.index(False), 4 - empty[::-1].index(False)
    lost = [place for place in range(first, last) if empty[place]]
    if not lost:
        assert fill_outside(values, "a", axes=3) == 42 * sum(empty)
        assert (values == 1).all()
        return
    listed = ", ".join(map(str, lost))
    told = (
        rf"^a holds .* {42 * len(lost)} of 210 pixels, in {len(lost)} of 5 slices, .* slice {lost[0]}, .*: {listed}\. "
    )
    with pytest.raises(PyrasegError, match=told):
        fill_outside(values, "a", axes=3)


def test_a_slice_without_values_joins_its_neighbors_holes_to_the_edge_only_at_an_end() -> None:
    missing = np.zeros((4, 7, 8), bool)
    missing[0] = missing[1, 3, 3] = True
    require_outside(missing, ["a"] * 4)
    with pytest.raises(PyrasegError, match="57 of 280 pixels, in 2 of 5 slices"):
        require_outside(np.concatenate([np.zeros((1, 7, 8), bool), missing]), ["a"] * 5)


def test_slices_without_values_are_listed_up_to_ten() -> None:
    missing = np.zeros((20, 3, 3), bool)
    missing[2:15] = True
    with pytest.raises(PyrasegError, match=r"with values: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 more\. "):
        require_outside(missing, ["a"] * 20)


def test_what_is_taken_for_padding_is_told_once_a_file(caplog: pytest.LogCaptureFixture) -> None:
    values = np.ones((8, 9, 5), np.float32)
    values[:2] = np.nan
    with caplog.at_level(logging.WARNING):
        for name in ("told.nii", "told.nii", "other.nii"):
            fill_outside(values.copy(), name, axes=3)
        fill_outside(np.ones((8, 9, 5), np.float32), "clean.nii", axes=3)
    told = [record.getMessage() for record in caplog.records]
    assert [message.split(":")[0] for message in told] == ["told.nii", "other.nii"]
    assert all("90 of 360 pixels of the image (25 %) are NaN" in message for message in told)


def test_nothing_but_nan_is_refused() -> None:
    with pytest.raises(PyrasegError, match="nothing but NaN"):
        fill_outside(np.full((4, 4, 4), np.nan, np.float32), "a", axes=3)


@pytest.mark.parametrize("padding", [0, 1, 17, 99])
def test_percentiles_leave_padding_out(padding: int) -> None:
    valid = np.random.default_rng(0).normal(size=100 - padding)
    values = np.concatenate([np.full(padding, valid.min()), valid])
    asked = [0, 0.5, 33.3, 50, 99, 100]
    found = valid_percentiles(values.reshape(10, 10), asked, padding=padding)
    np.testing.assert_allclose(found, np.percentile(valid, asked), rtol=1e-12)
