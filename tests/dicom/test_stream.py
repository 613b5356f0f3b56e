# SPDX-License-Identifier: Apache-2.0
"""A series read slice by slice is the series read at once, in the memory of a few slices."""

import tracemalloc

import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.series import SeriesStream, read_series
from tests.helpers.dicom_files import write_enhanced, write_series


def values(shape: tuple[int, ...], low: int = -900, high: int = 1500) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, shape).astype(np.int16)


def varied(k: int) -> dict[str, object]:
    return {"RescaleSlope": 1 + k / 7, "RescaleIntercept": -5 * k, "WindowCenter": 40 + k, "WindowWidth": 400}


@pytest.mark.parametrize("padding", [None, -900])
def test_slices_and_views_are_those_of_the_whole_series(padding, tmp_path):
    write_series(tmp_path, values((5, 9, 11)), slice_step=-2, per_slice=varied, PixelPaddingValue=padding)
    whole, stream = read_series(tmp_path), SeriesStream(tmp_path)
    for _ in range(2):  # each pass reads the files anew
        np.testing.assert_array_equal(np.stack(list(stream.slices())), whole.pixels)
    assert list(stream.views()) == list(whole.voi)
    assert len(stream) == 5 and stream.files == list(whole.files) and stream.frame_numbers == list(whole.frame_numbers)
    np.testing.assert_array_equal(stream.geometry.affine, whole.geometry.affine)


def test_frames_of_one_file(tmp_path):
    positions = np.array([[0, 0, z] for z in (4, 2, 0, 3, 1)])
    path = write_enhanced(tmp_path / "one.dcm", values((5, 9, 11)), positions)
    np.testing.assert_array_equal(np.stack(list(SeriesStream(path).slices())), read_series(path).pixels)


@pytest.mark.parametrize("percentages", [[1, 99], [0, 50, 100], [33.3, 66.6]])
def test_percentiles_are_numpy_s_without_padding(percentages, tmp_path):
    write_series(tmp_path, values((5, 9, 11), -40, 60), per_slice=varied, PixelPaddingValue=-40)
    pixels = np.sort(read_series(tmp_path).pixels.astype(np.float64), axis=None)
    padding = int((values((5, 9, 11), -40, 60) == -40).sum())
    expected = np.percentile(pixels[padding:], percentages)
    np.testing.assert_allclose(SeriesStream(tmp_path).percentiles(percentages), expected, rtol=1e-6)


def test_nothing_but_padding_is_refused(tmp_path):
    write_series(tmp_path, np.full((3, 4, 5), 7, np.int16), PixelPaddingValue=7)
    with pytest.raises(PyrasegError, match="every pixel is padding"):
        list(SeriesStream(tmp_path).slices())


def test_memory_does_not_grow_with_the_series(tmp_path):
    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        write_series(folder, values((count, 128, 128)), PixelPaddingValue=-900)
        stream = SeriesStream(folder)
        tracemalloc.start()
        for _ in stream.slices():
            pass
        stream.percentiles([1, 99])
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(2)  # what is imported on first use is no part of it
    assert peak(60) < peak(20) + 128 * 128 * 4  # one slice as float32


def test_a_slice_without_values_between_others_is_refused_as_in_the_whole_series(tmp_path):
    stack = values((5, 6, 7)).astype(np.float32)
    stack[2] = np.nan
    write_series(tmp_path, stack)
    stream = SeriesStream(tmp_path)
    told = r"slice_002\.dcm holds NaN .* 42 of 210 pixels, in 1 of 5 slices.* between slices with values: 2\. "
    for read in (lambda: read_series(tmp_path), lambda: list(stream.slices()), lambda: stream.percentiles([1])):
        with pytest.raises(PyrasegError, match=told):
            read()


@pytest.mark.parametrize("inside", [False, True])
def test_values_that_are_not_finite_are_told_apart_as_in_the_whole_series(inside, tmp_path):
    stack = values((4, 6, 7)).astype(np.float32)
    stack[:, :2, :2] = np.nan
    stack[3] = np.inf
    stack[2, 3, 3] = np.nan  # joined to the edge of the slice behind it
    if inside:
        stack[0, 4, 4] = np.nan
    write_series(tmp_path, stack)
    stream = SeriesStream(tmp_path)
    if inside:
        told = r"slice_000\.dcm holds NaN .* 1 of 168 pixels.*column 4, row 4, slice 0"
        for read in (lambda: read_series(tmp_path), lambda: list(stream.slices()), lambda: stream.percentiles([1])):
            with pytest.raises(PyrasegError, match=told):
                read()
        return
    whole = read_series(tmp_path)
    valid = stack[np.isfinite(stack)]
    np.testing.assert_array_equal(whole.pixels, np.where(np.isfinite(stack), stack, valid.min()))
    np.testing.assert_array_equal(np.stack(list(stream.slices())), whole.pixels)
    np.testing.assert_allclose(stream.percentiles([1, 99]), np.percentile(valid, [1, 99]), rtol=1e-6)
