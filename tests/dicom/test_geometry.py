# SPDX-License-Identifier: Apache-2.0
"""Planes and stacks: sorted by orientation and position alone, exact affines, a flag for uneven spacing."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.affines import apply_affine
from bundle.pyraseg.dicom.geometry import Geometry, Plane, stack_geometry
from tests.helpers.dicom_files import AXIAL, CORONAL


def planes(positions, orientation=AXIAL, spacing=(1.0, 1.0), thickness=None):
    return [Plane(tuple(position), tuple(orientation), spacing, thickness) for position in positions]


def along_z(*heights):
    return planes([(0.0, 0.0, z) for z in heights])


def test_affine_maps_column_row_slice_to_patient_millimeters():
    # PS3.3 C.7.6.2.1.1: column index moves along the row cosine by the column spacing (the second value).
    oblique = (0.6, 0.8, 0.0, 0.0, 0.0, -1.0)  # normal (-0.8, 0.6, 0)
    stack, _ = stack_geometry(planes([(10, 20, 30), (10 - 1.6, 20 + 1.2, 30)], oblique, (0.5, 0.25)))
    corner = stack.affine @ [4, 2, 1, 1]
    np.testing.assert_allclose(corner, [10 + 0.6 - 1.6, 20 + 0.8 + 1.2, 30 - 1.0, 1])
    np.testing.assert_allclose(stack.normal, [-0.8, 0.6, 0])
    assert stack.slice_spacing == pytest.approx(2.0)


def test_sorts_along_the_normal_whatever_the_order_given():
    stack, order = stack_geometry(along_z(4, 0, 6, 2))
    assert order.tolist() == [1, 3, 0, 2]
    np.testing.assert_allclose(stack.distances, [0, 2, 4, 6])
    reversed_normal = planes([(0, 0, z) for z in (0, 2)], (1, 0, 0, 0, -1, 0))  # prone-like: the normal is -z
    assert stack_geometry(reversed_normal)[1].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("heights", "even"),
    [
        ((0, 2, 4, 6), True),
        ((0, 2.05, 4, 6.05), True),  # within 5 % of 2 mm: rounded headers
        ((0, 2, 6, 8), False),  # a slice is missing
        ((0, 1, 3), False),
        ((0, 2, 4, 6.3), False),
        ((0, 0.1, 0.3, 0.4), False),  # small spacings are judged by their own size
    ],
)
def test_even_spacing(heights, even):
    stack, _ = stack_geometry(along_z(*heights))
    assert stack.is_evenly_spaced is even


@pytest.mark.parametrize(
    ("heights", "thickness", "widths"),
    [
        ((0, 3, 6, 69, 72, 75), 3, [3] * 6),  # two parts of the body in a series
        ((0, 3, 6, 69, 72, 75), None, [3] * 6),
        ((0, 3, 6, 12, 15), 3, [3] * 5),  # a slice is missing
        ((0, 3, 6, 12, 15), 6, [3, 3, 4.5, 4.5, 3]),  # but the slices there are as thick as that
        ((0, 3, 6, 9, 16, 23, 30), 5, [3, 3, 3, 5, 7, 7, 7]),  # finer at the base of the skull
        ((0, 3, 6, 66, 126, 129, 132), 5, [3, 3, 3, 5, 3, 3, 3]),  # a slice between two gaps
        ((0, 3, 6, 66, 126, 129, 132), None, [3] * 7),
        ((0, 10, 20, 30), 1, [10] * 4),  # thin slices far apart, but evenly: a sample of all that lies between
        ((0, 60), 3, [3, 3]),
        ((0, 10), None, [10, 10]),
        ((0, 2, 4.5, 7.5, 11), 2, [2, 2.25, 2.75, 3.25, 3.5]),  # a slow change
    ],
)
def test_a_slice_stands_for_nothing_in_a_gap(heights, thickness, widths):
    for order in (1, -1):
        positions = np.outer(heights[::order], (0, 0, 1))
        stack = Geometry.from_affine(np.eye(4), positions, slice_thickness=thickness)
        assert stack.slice_widths == pytest.approx(widths[::order])
        assert sorted(np.concatenate(stack.blocks).tolist()) == list(range(len(heights)))


def test_each_slice_has_its_own_thickness():
    """A thick slice alone, and a gap between thin ones that is narrower than the thick one: PS3.3 C.7.6.2.1."""
    pairs = zip(along_z(0, 1, 2, 5, 6, 7, 30), [1, 1, 1, 1, 1, None, 5], strict=True)
    stack, _ = stack_geometry([replace(plane, slice_thickness=one) for plane, one in pairs][::-1])
    assert stack.slice_thickness == 5 and stack.slice_thicknesses.tolist() == [1, 1, 1, 1, 1, 5, 5]
    assert stack.slice_widths.tolist() == [1, 1, 1, 1, 1, 1, 5]


def test_a_slow_change_of_spacing_is_uneven():
    heights = np.concatenate([np.arange(20) * 2.0, 38 + np.arange(1, 20) * 2.08])  # each step is within 5 %
    assert not stack_geometry(along_z(*heights))[0].is_evenly_spaced


def test_sideways_jitter_is_uneven():
    stack, _ = stack_geometry(planes([(0, 0, 0), (0.4, 0, 2), (0, 0, 4)]))
    assert not stack.is_evenly_spaced


def test_tilt_is_an_exact_sheared_affine():
    angle = np.radians(20)
    step = np.array([0, np.tan(angle) * 5, 5.0])
    stack, _ = stack_geometry(planes([k * step for k in range(4)]))
    assert stack.is_evenly_spaced
    assert stack.slice_spacing == pytest.approx(5)  # along the normal
    np.testing.assert_allclose(stack.affine @ [0, 0, 3, 1], [*(3 * step), 1])


@pytest.mark.parametrize(("thickness", "length"), [(3.0, 3.0), (None, 1.0)])
def test_one_slice_has_no_spacing(thickness, length):
    stack, _ = stack_geometry(planes([(1, 2, 3)], thickness=thickness))
    assert stack.slice_spacing is None
    np.testing.assert_allclose(stack.affine[:3, 2], [0, 0, length])
    np.testing.assert_allclose(stack.voxel_volumes, [length])


OBLIQUE = np.array([[0.6, -0.4, 0.3, 5], [0.5, 0.7, -0.2, 6], [0.1, 0.2, 2.9, 7], [0, 0, 0, 1]])  # sheared throughout


@pytest.mark.parametrize("order", [1, -1])
def test_places_of_fractions_lie_on_the_affine(order):
    """Against nibabel, for files whose slices ascend or descend along their normal."""
    affine = OBLIQUE @ np.diag([1, 1, order, 1])
    positions = apply_affine(affine, np.arange(6)[:, None] * (0, 0, 1))
    geometry = Geometry.from_affine(affine, positions)
    indices = np.random.default_rng(0).uniform(-0.5, 5.5, (50, 3))
    np.testing.assert_allclose(geometry.points(indices), nibabel.affines.apply_affine(affine, indices))
    np.testing.assert_allclose(geometry.affine, affine)
    assert geometry.voxel_volumes.sum() == pytest.approx(6 * abs(np.linalg.det(affine)))
    assert geometry.spacing[:2] == pytest.approx(tuple(nibabel.affines.voxel_sizes(affine)[:2]))
    assert geometry.is_evenly_spaced and geometry.slice_spacing > 0


def test_one_slice_has_the_thickness_of_its_affine():
    geometry = Geometry.from_affine(np.diag([0.5, 0.5, 3.0, 1.0]), np.zeros((1, 3)))
    assert geometry.voxel_volumes == pytest.approx([0.75])
    assert geometry.points([[2, 2, 0.5]]) == pytest.approx(np.array([[1, 1, 1.5]]))


def test_a_place_finds_its_slice_and_pixel_again():
    """Slices in any order, uneven and turned; half a gap away the next slice begins."""
    stack, _ = stack_geometry(planes([(1, 2, z) for z in (0, 3, 4, 9)], (0, 1, 0, -1, 0, 0), (0.5, 0.25)))
    shuffled = Geometry(stack.positions[[2, 0, 3, 1]], stack.row_cosine, stack.column_cosine, stack.pixel_spacing)
    indices = np.array([(3, 2, 0), (1, 4, 1), (0, 0, 2), (2, 5, 3)])
    slices, off = shuffled.nearest_slices(shuffled.points(indices) + np.array([0, 0, 0.4]))
    assert slices.tolist() == [0, 1, 2, 3] and off == pytest.approx([0.4] * 4)
    assert shuffled.pixels_at(shuffled.points(indices), slices) == pytest.approx(indices[:, 1::-1])
    assert shuffled.slice_tolerance == pytest.approx(0.1)  # a tenth of the smallest gap, 1 mm


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ([], "no planes"),
        (along_z(0) + planes([(0, 0, 1)], CORONAL), "differ in orientation"),
        (along_z(0) + planes([(0, 0, 1)], spacing=(2.0, 1.0)), "pixel spacing"),
        (along_z(0, 1, 1), "same position"),
    ],
)
def test_refuses(stack, message):
    with pytest.raises(PyrasegError, match=message):
        stack_geometry(stack)
