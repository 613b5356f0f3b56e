# SPDX-License-Identifier: Apache-2.0
"""Which slices are drawn, and what is drawn on them: by counting pixels."""

import numpy as np
import pytest

from bundle.pyraseg.figures import color_of, draw_captures, slices_to_capture


def areas(*columns: dict[int, int], depth: int = 40) -> np.ndarray:
    """Return pixels by slice and structure from those of each structure by slice."""
    found = np.zeros((depth, len(columns)), int)
    for number, column in enumerate(columns):
        for place, count in column.items():
            found[place, number] = count
    return found


def test_the_largest_slice_of_each_structure_and_others_evenly() -> None:
    organ, lesion = {k: 100 - abs(k - 18) for k in range(8, 30)}, {11: 2, 12: 3}
    found = areas(organ, {}, lesion)
    assert {18, 12} <= set(slices_to_capture(found, 2))
    six = slices_to_capture(found, 6)
    assert {18, 12, 8, 29} <= set(six) and len(six) == 6 and six == sorted(six)
    assert set(slices_to_capture(found, 100)) == set(range(8, 30))


def test_small_structures_come_first_where_there_are_too_many() -> None:
    found = areas(*({number: 10 + number} for number in range(30)))
    assert slices_to_capture(found, 4) == [0, 1, 2, 3]


def test_an_empty_result_shows_the_whole_series() -> None:
    assert slices_to_capture(np.zeros((9, 3), int), 3) == [0, 4, 8]
    assert slices_to_capture(np.zeros((1, 3), int), 16) == [0]


def colors_in(frame: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, np.unique(frame.reshape(-1, 3), axis=0).tolist()))


def colored(number: int) -> tuple[int, ...]:
    return tuple(color_of(np.array(number)).tolist())


@pytest.mark.slow
def test_a_picture_has_outlines_and_the_legend_of_what_it_shows() -> None:
    labels = np.zeros((2, 60, 80), np.uint8)
    labels[0, 10:30, 10:30], labels[0, 35:50, 50:70], labels[1, 20:40, 20:40] = 1, 2, 2
    images = np.full((2, 60, 80, 3), 90, np.uint8)
    frames, (width, height) = draw_captures(
        images, labels, ["liver 12.0 ml", "spleen 3.0 ml"], size=(80, 60), captions=["one", "two"]
    )
    assert (width, height) == (683, 512) and frames.shape[2] == width and frames.shape[1] > height
    assert [{n for n in (1, 2) if colored(n) in colors_in(part)} for part in frames] == [{1, 2}, {2}]
    legends = frames[:, height:]
    assert [{n for n in (1, 2) if colored(n) in colors_in(part)} for part in legends] == [{1, 2}, {2}]
    assert (legends[0] != legends[1]).any()
    line = (frames[0, :height] == colored(1)).all(axis=-1)
    rows, columns = np.nonzero(line)
    scale = height / 60
    np.testing.assert_allclose([rows.min(), rows.max()], np.array([10, 30]) * scale, atol=1.5)
    np.testing.assert_allclose([columns.min(), columns.max()], np.array([10, 30]) * scale, atol=1.5)
    inside = frames[0, round(13 * scale) : round(27 * scale), round(13 * scale) : round(27 * scale)]
    assert (inside == 90).all()  # the image is not painted over


def test_pixels_become_square_and_large_pictures_smaller() -> None:
    one = {"labels": np.zeros((1, 10, 20), np.uint8), "legend": ["liver"], "captions": [""]}
    _, size = draw_captures(np.zeros((1, 10, 20, 3), np.uint8), size=(20 * 0.5, 10 * 2.0), **one)
    assert size == (512, 1024)
    _, size = draw_captures(np.zeros((1, 10, 20, 3), np.uint8), size=(9000, 4500), **one)
    assert size == (2048, 1024)


@pytest.mark.parametrize("count", [1, 7, 100])
def test_a_legend_has_room_for_all(count: int) -> None:
    labels = np.arange(10000).reshape(1, 100, 100) // (10000 // count + 1) + 1
    legend = [f"structure number {number} 1234.5 ml" for number in range(count)]
    frames, (_, height) = draw_captures(
        np.zeros((1, 100, 100, 3), np.uint8), labels.astype(np.uint8), legend, size=(100, 100), captions=["x"]
    )
    squares = np.isin(frames[0, height:], [0, 255], invert=True).any(axis=-1).any(axis=1)
    starts = np.count_nonzero(np.diff(squares.astype(int)) == 1)
    assert starts >= -(-count // 3)  # so many rows of them at least, and the last one is not cut off
    assert not frames[0, -2:].any()


def test_regions_that_overlap_both_have_an_outline() -> None:
    labels = np.zeros((1, 64, 64), np.uint8)
    labels[0, 8:56, 8:56], labels[0, 20:40, 20:40] = 1, 3
    frames, (_, height) = draw_captures(
        np.zeros((1, 64, 64, 3), np.uint8), labels, ["whole", "core"], size=(1, 1), captions=[""], overlapping=True
    )
    whole, core = ((frames[0, :height] == colored(number)).all(axis=-1) for number in (1, 2))
    np.testing.assert_allclose([np.nonzero(whole)[0].min(), np.nonzero(core)[0].min()], [64, 160], atol=1.5)
