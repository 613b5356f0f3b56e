# SPDX-License-Identifier: Apache-2.0
"""Volumes, diameters, values and pieces of shapes whose measures are known in closed form or by trying every pair."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from skimage.measure import label

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.dicom import Geometry
from bundle.pyraseg.labels.measuring import Measures, measure
from tests.helpers.segmented_series import TURN

SPACING = (0.9, 0.7)  # between rows, between columns
STEP = 1.3
UPRIGHT = np.eye(3)


def stack(count: int, *, step=(0, 0, STEP), turn=UPRIGHT, heights=None, thickness=None) -> Geometry:
    """Return slices that are turned and stacked along a step, at so many of its lengths."""
    heights = np.arange(count) if heights is None else np.asarray(heights, float)
    positions = heights[:, None] * (turn @ step) + [-12.5, 40.25, 7]
    return Geometry(
        positions, turn[:, 0], turn[:, 1], SPACING, None if thickness is None else np.full(count, thickness)
    )


def measured(mask: np.ndarray, geometry: Geometry) -> Measures:
    return measure(mask, np.zeros(mask.shape, np.float32), geometry)


@pytest.mark.parametrize("turn", [np.eye(3), TURN], ids=["axial", "tilted"])
def test_an_ellipsoid(turn: np.ndarray) -> None:
    """Its longest diameters are its axes, to a voxel; its volume is 4/3 pi abc."""
    a, b, c = 22.0, 15.0, 18.0  # mm, along columns, rows and slices
    k, r, col = np.indices((33, 41, 71))
    place = np.stack([(col - 35) * SPACING[1], (r - 20) * SPACING[0], (k - 16) * STEP])
    mask = (place[0] / a) ** 2 + (place[1] / b) ** 2 + (place[2] / c) ** 2 <= 1
    found = measured(mask, stack(33, turn=turn))
    assert found.volume == pytest.approx(4 / 3 * np.pi * a * b * c, rel=0.01)
    assert found.in_plane == pytest.approx(2 * a, abs=SPACING[1])
    assert found.in_space == pytest.approx(2 * a, abs=SPACING[1])
    assert found.components == 1


@pytest.mark.parametrize("turn", [np.eye(3), TURN], ids=["axial", "tilted"])
def test_a_box(turn: np.ndarray) -> None:
    """From the middle of a face to that of the furthest one, however the box lies in the patient."""
    mask = np.zeros((9, 20, 24), bool)
    mask[2:7, 3:13, 4:20] = True
    found = measured(mask, stack(9, turn=turn))
    n = np.array([16, 10, 5])
    sides = np.array([0.7, 0.9, STEP])
    assert found.volume == pytest.approx(np.prod(n * sides))
    longest = [np.hypot(*((n - 1 + np.eye(3)[axis]) * sides)[:2]) for axis in range(2)]
    assert found.in_plane == pytest.approx(max(longest))
    longest = [np.linalg.norm((n - 1 + np.eye(3)[axis]) * sides) for axis in range(3)]
    assert found.in_space == pytest.approx(max(longest))


def test_a_tilted_cube() -> None:
    """A cube that stands on a corner in the patient: its longest diameter is that from corner to corner."""
    side, spacing = 24.0, 0.5
    geometry = Geometry(np.arange(96)[:, None] * [0, 0, spacing], *np.eye(3)[:2], (spacing, spacing))
    k, r, c = np.indices((96, 96, 96))
    places = np.stack([c, r, k], axis=-1) * spacing - 24
    mask = (np.abs(places @ TURN) <= side / 2).all(axis=-1)
    found = measured(mask, geometry)
    assert found.volume == pytest.approx(side**3, rel=0.01)
    assert found.in_space == pytest.approx(side * np.sqrt(3), abs=2 * spacing)


@pytest.mark.parametrize(
    "where",
    [
        {"step": (0, 0.6, 1.2)},
        {"step": (0.4, -0.5, 1.2), "turn": TURN},
        {"heights": [0, 1, 2, 4, 6, 8]},
        {"step": (0, 0.6, 1.2), "heights": [0, 1, 2, 4, 6, 8]},
    ],
    ids=["tilted gantry", "tilted and oblique", "uneven", "uneven and tilted"],
)
def test_of_all_pairs_of_faces_the_furthest_count(where: dict) -> None:
    """By trying every pair, with the formula of PS3.3 C.7.6.2.1.1 for the place of each voxel and of each face."""
    mask = np.random.default_rng(1).random((6, 7, 8)) < 0.85
    mask[:, 3, :] = mask[:, :, 3] = True  # one piece
    geometry = stack(6, **where)
    right, down = geometry.row_cosine * SPACING[1], geometry.column_cosine * SPACING[0]
    heights = where.get("heights", range(6))
    before = geometry.positions - np.diff(geometry.positions, axis=0, prepend=0) / 2
    before[0] = geometry.positions[0] - (geometry.positions[1] - geometry.positions[0]) / 2
    last = geometry.positions[-1] + (geometry.positions[-1] - geometry.positions[-2]) / 2
    limits = [*before, last]
    points, planar = [], []
    for k in range(6):
        regions = label(mask[k], connectivity=1)
        for number in range(1, regions.max() + 1):
            rows, columns = (index[:, None] for index in np.nonzero(regions == number))
            around = [(0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)]
            planar.append(np.concatenate([(rows + r) * down + (columns + c) * right for r, c in around]))
            points.append(planar[-1] + geometry.positions[k])
            points += [rows * down + columns * right + limits[k + side] for side in (0, 1)]
    found = measured(mask, geometry)
    assert found.components == 1
    assert found.in_space == pytest.approx(pdist(np.concatenate(points)).max())
    assert found.in_plane == pytest.approx(max(pdist(one).max() for one in planar))
    widths = np.abs(np.gradient(np.asarray(heights, float))) * geometry.gaps.min() / min(np.diff(heights))
    assert found.volume == pytest.approx(float(mask.sum(axis=(1, 2)) @ widths) * 0.9 * 0.7)


def test_pieces_are_measured_one_by_one() -> None:
    """Two kidneys are not as long as a patient is wide, and a gap parts what lies on both sides of it."""
    mask = np.zeros((8, 12, 40), bool)
    mask[:, 2:6, 1:4] = mask[:, 2:5, 30:33] = True
    apart = stack(8, heights=[0, 1, 2, 3, 23, 24, 25, 26], thickness=STEP)
    together = stack(8)
    assert [measured(mask, one).components for one in (together, apart)] == [2, 4]
    assert measured(mask, together).volume == pytest.approx(measured(mask, apart).volume)
    assert measured(mask, together).in_space < 8 * STEP + 4 < 26
    assert measured(mask, apart).in_space < 4 * STEP + 4
    diagonal = np.zeros((3, 4, 4), bool)
    diagonal[1, 1, 1] = diagonal[1, 2, 2] = diagonal[2, 1, 2] = True  # they share edges, and no face
    assert measured(diagonal, stack(3)).components == 3
    assert measured(diagonal, stack(3)).in_plane == pytest.approx(0.9)


def test_values() -> None:
    mask = np.zeros((2, 4, 4), bool)
    mask[0, :2, :2] = mask[1, 0, 0] = True
    values = np.full(mask.shape, 1000, np.float32)
    values[mask] = [10, 20, np.nan, 30, 60]
    found = measure(mask, values, stack(2))
    assert (found.mean, found.deviation) == (30, pytest.approx(np.std([10, 20, 30, 60])))
    values[mask] = np.nan
    assert measure(mask, values, stack(2)).mean is None


def test_nothing_and_a_lone_slice() -> None:
    empty = measured(np.zeros((3, 4, 4), bool), stack(3))
    assert empty == Measures(0.0, 0.0, 0.0, 0, None, None)
    lone = measured(np.ones((1, 4, 4), bool), stack(1, thickness=5.0))
    assert (lone.volume, lone.in_space, lone.components) == (None, None, 1)
    assert lone.in_plane == pytest.approx(np.hypot(4 * 0.9, 3 * 0.7))


def test_another_grid_is_refused() -> None:
    with pytest.raises(PyrasegError, match=r"\(2, 4, 4\).*3 places of slices do not belong together"):
        measured(np.ones((2, 4, 4), bool), stack(3))
