# SPDX-License-Identifier: Apache-2.0
"""Decoding, padding and modality values against the standard's equations, on files written to disk."""

import io
import logging

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.luts import apply_modality_lut
from bundle.pyraseg.dicom.pixels import decode_frames, is_inverted, padding_mask, to_uint8
from tests.helpers.dicom_files import item, lut_item, make_image, save, write_enhanced, write_image

RAMP = np.arange(-6, 6, dtype=np.int16).reshape(3, 4)  # rows and columns differ
RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def read(path):
    return pydicom.dcmread(path, force=True)


def color(path, data, photometric, *, planar=0, bits=8, **attributes):
    attributes = {"Rows": 4, "Columns": 6, "SamplesPerPixel": 3, "PlanarConfiguration": planar, **attributes}
    attributes |= {"PhotometricInterpretation": photometric, "BitsAllocated": bits}
    return read(write_image(path, data, **attributes))


def ybr(rgb, bits=8):
    """Return YBR_FULL by the equations of PS3.3 C.7.6.3.1.2, written out."""
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    y = 0.2990 * r + 0.5870 * g + 0.1140 * b
    cb = -0.1687 * r - 0.3313 * g + 0.5000 * b + 2 ** (bits - 1)
    cr = 0.5000 * r - 0.4187 * g - 0.0813 * b + 2 ** (bits - 1)
    return np.clip(np.rint(np.stack([y, cb, cr], -1)), 0, 2**bits - 1)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_gray_is_neither_inverted_nor_windowed(tmp_path, photometric):
    attributes = {"PhotometricInterpretation": photometric, "WindowCenter": 0, "WindowWidth": 2}
    stored = decode_frames(read(write_image(tmp_path / "a", RAMP, **attributes)))
    assert stored.dtype == np.int16
    np.testing.assert_array_equal(stored, RAMP[None])


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, ImplicitVRLittleEndian])
@pytest.mark.parametrize(("stored", "high"), [(12, 15), (12, 13), (10, 15), (9, 15)])
def test_values_at_the_upper_end_of_the_word(tmp_path, signed, syntax, stored, high):
    values = np.arange(12).reshape(3, 4) * 21 - 126 * signed
    words = (values << (high + 1 - stored)).astype(np.int16 if signed else np.uint16)
    dataset = make_image(words, BitsStored=stored)
    dataset.HighBit = high
    np.testing.assert_array_equal(decode_frames(read(save(dataset, tmp_path / "a", syntax=syntax)))[0], values)


@pytest.mark.parametrize("signed", [False, True])
def test_a_high_bit_that_the_values_contradict(tmp_path, signed, caplog):
    values = (np.arange(12).reshape(3, 4) * 21 - 126 * signed).astype(np.int16 if signed else np.uint16)
    dataset = make_image(values, BitsStored=12)
    dataset.HighBit = 15
    np.testing.assert_array_equal(decode_frames(read(save(dataset, tmp_path / "a")))[0], values)
    assert "HighBit is 15, but the values stand in the lowest 12 bits" in caplog.text


def test_frames_come_first(tmp_path):
    frames = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(decode_frames(read(write_image(tmp_path / "a", frames))), frames)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_pixels(tmp_path, dtype):
    values = np.array([[0.25, -1.5], [np.pi, 1e6]], dtype)
    stored = decode_frames(read(write_image(tmp_path / "a", values)))
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, values[None])


@pytest.mark.parametrize(
    "syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless]
)
def test_lossless_syntaxes(tmp_path, syntax):
    image = np.random.default_rng(1).integers(-1000, 3000, (32, 48), dtype=np.int16)
    stored = decode_frames(read(save(make_image(image), tmp_path / "a", syntax=syntax)))
    assert stored.dtype == np.int16
    np.testing.assert_array_equal(stored, image[None])


def test_no_preamble_and_no_meta_header(tmp_path):
    np.testing.assert_array_equal(decode_frames(read(save(make_image(RAMP), tmp_path / "a", meta=False))), RAMP[None])


def test_unused_high_bits_are_ignored(tmp_path):
    # PS3.5 8.1.1: an old overlay may sit above the stored bits.
    image = np.array([[0x0123, 0x8123]], np.uint16)
    np.testing.assert_array_equal(
        decode_frames(read(write_image(tmp_path / "a", image, BitsStored=12))), [[[291, 291]]]
    )


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb(tmp_path, planar):
    data = RGB if planar == 0 else np.moveaxis(RGB, -1, 0)
    np.testing.assert_array_equal(decode_frames(color(tmp_path / "a", data.tobytes(), "RGB", planar=planar)), RGB[None])


@pytest.mark.parametrize("planar", [0, 1])
def test_ybr_full_is_converted_once(tmp_path, planar):
    data = ybr(RGB).astype(np.uint8)
    data = data if planar == 0 else np.moveaxis(data, -1, 0)
    rgb = decode_frames(color(tmp_path / "a", data.tobytes(), "YBR_FULL", planar=planar))
    assert np.abs(rgb[0].astype(int) - RGB).max() <= 2  # rounding of Y, CB and CR


def test_ybr_full_by_hand(tmp_path):
    # (Y, CB, CR) = (100, 128, 228): R = 100 + 140.2, G = 100 - 71.414, B = 100.
    data = np.tile(np.array([100, 128, 228], np.uint8), (4, 6, 1))
    assert decode_frames(color(tmp_path / "a", data.tobytes(), "YBR_FULL"))[0, 2, 3].tolist() == [240, 29, 100]


def test_ybr_full_of_16_bits(tmp_path):
    rgb = np.random.default_rng(2).integers(0, 65536, (4, 6, 3), dtype=np.uint16)
    dataset = color(tmp_path / "a", ybr(rgb, 16).astype(np.uint16).tobytes(), "YBR_FULL", bits=16)
    # The forward equations have four decimals, which 16 bits can see: 5e-5 * 65535 * a few terms.
    assert np.abs(decode_frames(dataset)[0].astype(int) - rgb).max() <= 16


def test_ybr_full_422_shares_chroma_between_two_columns(tmp_path):
    # PS3.3 C.7.6.3.1.2: Y1 Y2 CB CR. Neutral chroma, then CR = 228 for the second pair.
    pairs = np.tile(np.array([[10, 20, 128, 128], [100, 50, 128, 228], [0, 255, 128, 128]], np.uint8), (4, 1, 1))
    rgb = decode_frames(color(tmp_path / "a", pairs.tobytes(), "YBR_FULL_422"))[0]
    assert rgb[0].tolist() == [[10] * 3, [20] * 3, [240, 29, 100], [190, 0, 50], [0] * 3, [255] * 3]


def test_jpeg_baseline_equals_another_decoder(tmp_path):
    smooth = np.asarray(Image.fromarray(RGB).resize((32, 24)))
    stream = io.BytesIO()
    Image.fromarray(smooth).save(stream, "JPEG", quality=95, subsampling="4:2:2")
    attributes = {"Rows": 24, "Columns": 32, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    attributes |= {"PhotometricInterpretation": "YBR_FULL_422", "BitsStored": 8}
    dataset = make_image(encapsulate([stream.getvalue()]), **attributes)
    path = save(dataset, tmp_path / "plain")
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    expected = np.asarray(Image.open(stream).convert("RGB")).astype(int)
    assert np.abs(decode_frames(read(path))[0] - expected).max() <= 3


@pytest.mark.parametrize(
    ("first", "dtype", "index", "expected"),
    [
        (0, np.uint8, [0, 1, 2, 9], [0, 1, 2, 2]),
        (5, np.uint8, [0, 5, 6, 9], [0, 0, 1, 2]),
        (-1, np.int8, [-9, -1, 0, 1], [0, 0, 1, 2]),  # a signed start
    ],
)
def test_palette(tmp_path, first, dtype, index, expected):
    tables = np.array([[0x0000, 0x8000, 0xFFFF], [0x1100, 0x2200, 0x3300], [0xFF00, 0x7700, 0x0000]], "<u2")
    attributes = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [3, first, 16]
        attributes[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    dataset = read(write_image(tmp_path / "a", np.array([index], dtype), **attributes))
    rgb = decode_frames(dataset)
    assert rgb.dtype == np.uint16
    np.testing.assert_array_equal(rgb[0, 0], tables.T[expected])
    np.testing.assert_array_equal(to_uint8(rgb, dataset)[0, 0], tables.T[expected] >> 8)


def test_palette_with_more_than_256_entries_of_8_bits(tmp_path):
    attributes = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [512, 0, 8]
        attributes[f"{name}PaletteColorLookupTableData"] = bytes(k // 2 for k in range(512))
    rgb = decode_frames(read(write_image(tmp_path / "a", np.array([[0, 300, 511]], np.uint16), **attributes)))
    assert rgb.dtype == np.uint8
    assert rgb[0, 0, :, 1].tolist() == [0, 150, 255]


def test_deep_color_keeps_its_most_significant_bits(tmp_path):
    data = np.array([[[0, 0x0FFF, 0x0800]]], np.uint16)
    attributes = {"Rows": 1, "Columns": 1, "BitsStored": 12}
    dataset = color(tmp_path / "a", data.tobytes(), "RGB", bits=16, **attributes)
    assert to_uint8(decode_frames(dataset), dataset).tolist() == [[[[0, 255, 128]]]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"PixelData": None}, "no pixel data"),
        ({"PhotometricInterpretation": "HSV"}, "HSV"),
        ({"PhotometricInterpretation": None}, "not supported"),
        ({"Rows": 40}, rf"is {(40 - RAMP.shape[0]) * RAMP.shape[1] * 2} bytes shorter than 40 x .*Fetch it again"),
        ({"BitsAllocated": 13, "BitsStored": 13}, "cannot be decoded.*It is not compressed, but"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "descriptor"),
    ],
)
def test_undecodable_files_are_refused_by_name(tmp_path, change, message):
    with pytest.raises(PyrasegError, match=f"image_7.*{message}") as error:
        decode_frames(read(write_image(tmp_path / "image_7", RAMP, **change)))
    assert "SECRET" not in str(error.value).upper()


def test_damaged_stream_is_refused(tmp_path):
    image = np.random.default_rng(0).integers(0, 4000, (64, 64), dtype=np.int16)
    path = save(make_image(image), tmp_path / "a.dcm", syntax=JPEGLSLossless)
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xd8\xff")
    content[start : start + 60] = bytes(60)
    path.write_bytes(content)
    with pytest.raises(PyrasegError, match=r"a\.dcm.*JPEG-LS"):
        decode_frames(read(path))


@pytest.mark.parametrize(
    ("padding", "limit", "expected"),
    [
        (None, None, []),
        (-6, None, [-6]),
        (0x10000 - 6, None, [-6]),  # a signed value written as US
        (-6, -4, [-6, -5, -4]),
        (-4, -6, [-6, -5, -4]),  # either order
        (None, -4, []),  # a limit alone says nothing
        (99, None, []),
    ],
)
def test_padding(tmp_path, padding, limit, expected):
    dataset = make_image(RAMP, PixelPaddingValue=padding, PixelPaddingRangeLimit=limit)
    for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        if name in dataset:
            dataset[name].VR = "SS" if dataset[name].value < 0 else "US"
    dataset = read(save(dataset, tmp_path / "a"))
    mask = padding_mask(RAMP, dataset)
    assert mask.shape == RAMP.shape
    assert RAMP[mask].tolist() == expected


def test_unsigned_padding_written_as_signed(tmp_path):
    image = np.array([[63536, 0]], np.uint16)
    dataset = make_image(image, PixelPaddingValue=-2000)
    dataset["PixelPaddingValue"].VR = "SS"
    assert padding_mask(image, read(save(dataset, tmp_path / "a"))).tolist() == [[True, False]]


def test_float_padding(tmp_path):
    image = np.array([[1.5, -9.0, np.nan, -8.0]], np.float32)
    attributes = {"FloatPixelPaddingValue": -9.0, "FloatPixelPaddingRangeLimit": -8.5}
    dataset = read(write_image(tmp_path / "a", image, **attributes))
    assert padding_mask(image, dataset).tolist() == [[False, True, False, False]]


def test_rescale_with_negative_slope(tmp_path):
    values = apply_modality_lut(RAMP, read(write_image(tmp_path / "a", RAMP, RescaleSlope=-0.5, RescaleIntercept=10)))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, 10 - 0.5 * RAMP)
    np.testing.assert_array_equal(apply_modality_lut(RAMP, read(write_image(tmp_path / "b", RAMP))), RAMP)


def test_a_slope_of_zero_is_refused(tmp_path):
    with pytest.raises(PyrasegError, match="RescaleSlope is 0"):
        apply_modality_lut(RAMP, read(write_image(tmp_path / "a", RAMP, RescaleSlope=0)))


def test_values_beyond_float32_are_refused(tmp_path):
    with pytest.raises(PyrasegError, match=r"RescaleSlope 1e\+300"):
        apply_modality_lut(RAMP, read(write_image(tmp_path / "a", RAMP, RescaleSlope="1e300")))


@pytest.mark.parametrize("start", [-2, 0x10000 - 2])
def test_modality_lut_with_a_signed_start(tmp_path, start):
    table = lut_item([3, start, 16], [100, 65535, 300])
    values = apply_modality_lut(RAMP, read(write_image(tmp_path / "a", RAMP, ModalityLUTSequence=table)))
    expected = {-2: 100, -1: 65535}  # below: the first entry; above: the last
    np.testing.assert_array_equal(values, [[100 if v < -2 else expected.get(v, 300) for v in row] for row in RAMP])


def test_rescale_by_frame_and_shared(tmp_path):
    pixels, positions = np.stack([RAMP, RAMP]), [(0, 0, 0), (0, 0, 1)]
    per_frame = write_enhanced(
        tmp_path / "a",
        pixels,
        positions,
        per_frame=lambda k: {"PixelValueTransformationSequence": item(RescaleSlope=k + 1, RescaleIntercept=-10 * k)},
    )
    shared = {"PixelValueTransformationSequence": item(RescaleSlope=3, RescaleIntercept=1)}
    shared = write_enhanced(tmp_path / "b", pixels, positions, shared=shared)
    np.testing.assert_array_equal(apply_modality_lut(RAMP, read(per_frame), 0), RAMP)
    np.testing.assert_array_equal(apply_modality_lut(RAMP, read(per_frame), 1), 2.0 * RAMP - 10)
    np.testing.assert_array_equal(apply_modality_lut(RAMP, read(shared), 1), 3.0 * RAMP + 1)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted", "warns"),
    [
        ("MONOCHROME2", None, False, False),
        ("MONOCHROME1", None, True, False),
        ("MONOCHROME2", "IDENTITY", False, False),
        ("MONOCHROME1", "INVERSE", True, False),  # the same inversion, stated twice
        ("MONOCHROME1", "IDENTITY", False, True),
        ("MONOCHROME2", "INVERSE", True, True),
        ("RGB", "IDENTITY", False, False),
    ],
)
def test_polarity(tmp_path, caplog, photometric, shape, inverted, warns):
    dataset = make_image(RAMP, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    with caplog.at_level(logging.WARNING):
        assert is_inverted(dataset) is inverted
    assert ("contradicts" in caplog.text) is warns
