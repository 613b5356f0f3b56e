# SPDX-License-Identifier: Apache-2.0
"""Slices become pictures by the formulas of the standard, with the right polarity, or without any loss."""

from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.scan import find_series
from bundle.pyraseg_tools.datasets.voc.convert import Settings, read_stack
from bundle.pyraseg_tools.datasets.voc.pictures import (
    is_square,
    lossless_pictures,
    restore_values,
    square_pixels,
    windowed_pictures,
)
from bundle.pyraseg_tools.datasets.voc.stacks import KEYWORDS, plan_stacks
from tests.helpers.dicom_files import write_series

SHAPE = (3, 20, 24)


def linear(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """Return PS3.3 C.11.2.1.2.1 with ymin 0 and ymax 255, to the nearest whole number."""
    scaled = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255
    scaled = np.where(values <= center - 0.5 - (width - 1) / 2, 0, scaled)
    return np.rint(np.where(values > center - 0.5 + (width - 1) / 2, 255, scaled)).astype(np.uint8)


def sigmoid(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """Return PS3.3 C.11.2.1.3.1 likewise."""
    return np.rint(255 / (1 + np.exp(-4 * (values - center) / width))).astype(np.uint8)


@pytest.fixture
def hu() -> np.ndarray:
    return np.random.default_rng(0).integers(-1100, 1100, SHAPE).astype(np.int16)


def load(folder: Path, hu: np.ndarray, **attributes: object) -> MetaTensor:
    """Write a series and read it as a conversion does."""
    write_series(folder, hu, **attributes)
    (stack,) = plan_stacks(find_series(folder, keywords=KEYWORDS)).stacks
    return read_stack(stack, Settings())[1]


def pixels(pictures: list) -> np.ndarray:
    return np.stack([picture.pixels for picture in pictures])


def test_the_windows_of_each_header(tmp_path, hu):
    windows = [(40, 400), (-600, 1500), (90, 180)]
    image = load(
        tmp_path, hu, per_slice=lambda k: {"WindowCenter": [windows[k][0], 1], "WindowWidth": [windows[k][1], 7]}
    )
    pictures = windowed_pictures(image, ["header"])
    assert np.array_equal(pixels(pictures), np.stack([linear(hu[k], *windows[k]) for k in range(3)]))
    assert pictures[1].window == "header: -600/1500"
    assert np.array_equal(pixels(windowed_pictures(image, ["header:1"])), linear(hu, 1, 7))


def test_the_function_of_the_header(tmp_path, hu):
    image = load(tmp_path, hu, WindowCenter=40, WindowWidth=400, VOILUTFunction="SIGMOID")
    assert np.array_equal(pixels(windowed_pictures(image, ["header"])), sigmoid(hu, 40, 400))


def test_three_windows_are_red_green_and_blue(tmp_path, hu):
    image = load(tmp_path, hu, WindowCenter=0, WindowWidth=1000)
    pictures = windowed_pictures(image, ["lung", {"center": 90, "width": 180}, "header"])
    expected = np.stack([linear(hu, -600, 1500), linear(hu, 90, 180), linear(hu, 0, 1000)], axis=-1)
    assert np.array_equal(pixels(pictures), expected)
    assert pictures[0].window == "lung; 90/180; header: 0/1000"


@pytest.mark.parametrize(
    ("attributes", "inverted"),
    [
        ({}, False),
        ({"PhotometricInterpretation": "MONOCHROME1"}, True),
        ({"PresentationLUTShape": "INVERSE", "PhotometricInterpretation": "MONOCHROME1"}, True),
        ({"PresentationLUTShape": "IDENTITY"}, False),
    ],
)
def test_polarity_is_turned_once(tmp_path, hu, attributes, inverted):
    image = load(tmp_path, hu, WindowCenter=40, WindowWidth=400, **attributes)
    shown = linear(hu, 40, 400)
    assert np.array_equal(pixels(windowed_pictures(image, ["header"])), 255 - shown if inverted else shown)
    bright = pixels(lossless_pictures(image, [1] * 3)).astype(int)
    assert np.corrcoef(bright.ravel(), hu.ravel())[0, 1] == pytest.approx(-1 if inverted else 1)


def test_a_fallback_takes_the_place_of_the_header_alone(tmp_path, hu):
    image = load(tmp_path, hu, per_slice=lambda k: {} if k else {"WindowCenter": 40, "WindowWidth": 400})
    with pytest.raises(PyrasegError, match=r"'header' was asked for.*A --fallback replaces"):
        windowed_pictures(image, ["header"])
    pictures = windowed_pictures(image, ["header", "lung", "bone"], fallback="soft_tissue")
    expected = np.stack([linear(hu, 40, 400), linear(hu, -600, 1500), linear(hu, 400, 1800)], axis=-1)
    assert np.array_equal(pixels(pictures), expected)
    assert pictures[0].window == "soft_tissue; lung; bone"


def test_padding_takes_the_smallest_valid_value(tmp_path, hu):
    hu[:, :5] = -2000
    image = load(tmp_path, hu, PixelPaddingValue=-2000, WindowCenter=-1000, WindowWidth=2000)
    shown = np.where(hu == -2000, hu[hu > -2000].min(), hu)
    assert np.array_equal(pixels(windowed_pictures(image, ["header"])), linear(shown, -1000, 2000))


# --- 16 bits ---


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_whole_values_have_one_mapping(tmp_path, hu, photometric):
    image = load(tmp_path, hu, RescaleSlope=2, RescaleIntercept=-1024, PhotometricInterpretation=photometric)
    pictures = lossless_pictures(image, [2] * 3)
    assert len({picture.mapping for picture in pictures}) == 1
    restored = np.stack([restore_values(picture.pixels, picture.mapping) for picture in pictures])
    assert np.array_equal(restored, 2.0 * hu - 1024)
    if photometric == "MONOCHROME2":
        assert np.array_equal(pixels(pictures), 2 * hu.astype(int) - 1024 + 32768)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_fractions_are_stored_in_steps_of_their_slope(tmp_path, photometric):
    stored = np.random.default_rng(1).integers(0, 65536, SHAPE).astype(np.uint16)
    stored[:, 0, :2] = 0, 65535
    slopes = [0.000123, 0.5, 3.7]
    image = load(
        tmp_path,
        stored,
        Modality="PT",
        PhotometricInterpretation=photometric,
        per_slice=lambda k: {"RescaleSlope": slopes[k], "RescaleIntercept": -k / 3},
    )
    for k, picture in enumerate(lossless_pictures(image, slopes)):
        exact = (np.float64(slopes[k]) * stored[k] - round(k / 3, 14)).astype(np.float32)
        np.testing.assert_allclose(restore_values(picture.pixels, picture.mapping), exact, rtol=1e-6, atol=1e-7)
        numbers = picture.pixels if photometric == "MONOCHROME2" else 65535 - picture.pixels
        assert np.array_equal(numbers, stored[k])


def test_what_does_not_fit_is_refused():
    values = MetaTensor(np.linspace(0, 1, 24).reshape(1, 4, 6, 1).astype(np.float32))
    with pytest.raises(PyrasegError, match="do not fit into 16 bits without a loss"):
        lossless_pictures(values, [0.3])
    with pytest.raises(PyrasegError, match="do not fit into 16 bits without a loss"):
        lossless_pictures(MetaTensor(np.array([[[[0.0], [70000.0]]]])), [1.0])


# --- shape ---


def test_square_pixels_have_the_smaller_spacing(tmp_path, hu):
    image = load(tmp_path, hu, spacing=(2.0, 1.0))
    assert not is_square((2.0, 1.0)) and is_square(None) and is_square((1.0, 1.005))
    squared = square_pixels(image, (2.0, 1.0), mode="nearest")
    assert squared.shape == (1, 24, 40, 3)  # twice the rows
    assert np.array_equal(squared.numpy()[0].transpose(2, 1, 0), hu.repeat(2, axis=1))
    assert square_pixels(image, (1.0, 3.0), mode="bilinear").shape == (1, 72, 20, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": ["lung", "bone"]}, "One window makes a gray picture and three an RGB one; 2 are given"),
        ({"format": "tiff"}, "one of jpg, png, png16, not as 'tiff'"),
        ({"format": "png16", "windows": ["lung"]}, "png16 writes values as they are"),
        ({"format": "png16", "square": True}, "png16 writes values as they are"),
    ],
)
def test_settings_that_cannot_be(options, message):
    with pytest.raises(PyrasegError, match=message):
        Settings(**options)
