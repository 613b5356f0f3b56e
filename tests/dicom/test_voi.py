# SPDX-License-Identifier: Apache-2.0
"""VOI windows and tables against the equations of PS3.3 C.11.2.1, worked by hand."""

import math

import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from pydicom.uid import ExplicitVRBigEndian

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.luts import VoiLut, VoiWindow, apply_voi_lut, read_voi
from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.transforms.reader import MedicalImageReader
from bundle.pyraseg.transforms.windowing import Windowd
from tests.helpers.dicom_files import item, lut_item, make_image, save, write_enhanced, write_image, write_series

GRAY = np.zeros((2, 2), np.int16)


@pytest.mark.parametrize(
    ("window", "values", "expected"),
    [
        # C.11.2.1.2.1, its own example: center 2048, width 4096 maps 0..4095 to the whole range.
        (VoiWindow(2048, 4096), [-1, 0, 4095, 5000], [0, 0, 1, 1]),
        # (x - 39.5) / 399 + 0.5
        (VoiWindow(40, 400), [-160, -60, 39.5, 40, 239, 240], [0, 0.25062657, 0.5, 0.50125313, 1, 1]),
        # width 1: the threshold at center - 0.5 (its own example again)
        (VoiWindow(2048, 1), [2047, 2047.5, 2047.6, 2048], [0, 0, 1, 1]),
        # C.11.2.1.3.2: (x - 40) / 400 + 0.5
        (VoiWindow(40, 400, "LINEAR_EXACT"), [-200, -160, 40, 140, 240, 300], [0, 0, 0.5, 0.75, 1, 1]),
        (VoiWindow(0.5, 0.5, "LINEAR_EXACT"), [0.25, 0.5, 0.75], [0, 0.5, 1]),
        # C.11.2.1.3.1: 1 / (1 + exp(-4 (x - 40) / 400))
        (
            VoiWindow(40, 400, "SIGMOID"),
            [-60, 40, 140, 1e9, -1e9],
            [1 / (1 + math.e), 0.5, 1 / (1 + math.exp(-1)), 1, 0],
        ),
    ],
)
def test_window_functions(window, values, expected):
    result = apply_voi_lut(np.array(values, np.float32), window)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize(
    "window",
    [VoiWindow(0, 0.5), VoiWindow(0, 0, "LINEAR_EXACT"), VoiWindow(0, -1, "SIGMOID"), VoiWindow(0, 10, "CUBIC")],
)
def test_impossible_windows_are_refused(window):
    with pytest.raises(PyrasegError):
        apply_voi_lut(np.zeros(3), window)


def test_input_is_left_alone_and_shape_is_kept():
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    before = values.copy()
    assert apply_voi_lut(values, VoiWindow(10, 20)).shape == (2, 3, 4)
    np.testing.assert_array_equal(values, before)


def test_lut_clips_at_both_ends_and_scales_by_its_bits():
    table = VoiLut(first=-2, bits=8, data=(10, 20, 30, 255))
    result = apply_voi_lut(np.array([-100, -2, -1, 0, 1, 99, -0.6]), table)
    np.testing.assert_allclose(result * 255, [10, 10, 20, 30, 255, 255, 20], atol=1e-4)


def test_more_than_256_entries_with_8_bit_output_do_not_wrap_around(tmp_path):
    # pydicom's own apply_voi keeps the index in the type of the output and wraps at 256.
    data = [k // 4 for k in range(1024)]
    tables = lut_item([1024, 0, 8], data)
    path = write_image(tmp_path / "a.dcm", GRAY.astype(np.uint16), VOILUTSequence=tables)
    (voi,) = read_voi(pydicom.dcmread(path))
    assert (voi.first, voi.bits, len(voi.data)) == (0, 8, 1024)
    np.testing.assert_allclose(apply_voi_lut(np.array([0, 300, 1023, 4000]), voi) * 255, [0, 75, 255, 255], atol=1e-4)


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian"])
def test_lut_start_is_signed_where_the_rescaled_range_is(tmp_path, syntax):
    # PS3.3 C.11.2.1.1: unsigned pixels with intercept -1024 make the input signed, whatever the VR.
    tables = lut_item([3, 0x10000 - 1000, 16], [0, 0x8000, 0xFFFF])
    attributes = {"BitsStored": 12, "RescaleSlope": 1, "RescaleIntercept": -1024, "VOILUTSequence": tables}
    dataset = make_image(GRAY.astype(np.uint16), **attributes)
    options = {"implicit": {"meta": False}, "explicit": {}, "big endian": {"syntax": ExplicitVRBigEndian}}
    path = save(dataset, tmp_path / "a.dcm", **options[syntax])
    (voi,) = read_voi(pydicom.dcmread(path, force=True))
    assert voi == VoiLut(-1000, 16, (0, 0x8000, 0xFFFF))
    np.testing.assert_allclose(apply_voi_lut(np.array([-2000, -999, 0]), voi), [0, 0x8000 / 0xFFFF, 1])


def test_lut_start_stays_unsigned_where_the_range_is(tmp_path):
    tables = lut_item([2, 40000, 16], [0, 65535])
    (voi,) = read_voi(pydicom.dcmread(write_image(tmp_path / "a", GRAY.astype(np.uint16), VOILUTSequence=tables)))
    assert voi.first == 40000


def test_zero_entries_mean_65536(tmp_path):
    tables = lut_item([0, 0, 16], np.arange(65536, dtype="<u2").tobytes())
    (voi,) = read_voi(pydicom.dcmread(write_image(tmp_path / "a", GRAY.astype(np.uint16), VOILUTSequence=tables)))
    np.testing.assert_allclose(apply_voi_lut(np.array([0, 255, 65535]), voi), [0, 255 / 65535, 1])


def test_packed_8_bit_entries(tmp_path):
    tables = lut_item([4, 0, 8], bytes([0, 10, 20, 255]))
    (voi,) = read_voi(pydicom.dcmread(write_image(tmp_path / "a", GRAY, VOILUTSequence=tables)))
    assert voi.data == (0, 10, 20, 255)


def of_numbers(**attributes):
    """Return a sequence of one table whose attributes are numbers, where they are anything."""
    sequence = item(**attributes)
    for keyword in attributes:
        sequence[0][keyword].VR = "US"
    return sequence


FAULTY = {
    "too short a table": ({"VOILUTSequence": lut_item([9, 0, 16], [1, 2, 3])}, r"a\.dcm.*9 entries and holds 3"),
    "a table without a descriptor": ({"VOILUTSequence": of_numbers(LUTData=[1, 2])}, "three numbers"),
    "a table without entries": ({"VOILUTSequence": of_numbers(LUTDescriptor=[4, 0, 16])}, "holds"),
    "more centers than widths": ({"WindowCenter": [1, 2], "WindowWidth": 3}, "2 window centers and 1 widths"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_view_that_cannot_be_read_is_refused_where_it_is_used_and_nowhere_else(tmp_path, case):
    attributes, message = FAULTY[case]
    path = write_series(tmp_path, GRAY[None], names=["a.dcm"], **attributes)[0]
    assert np.array_equal(read_series(path).pixels[0], GRAY)
    (voi,) = read_voi(pydicom.dcmread(path))
    with pytest.raises(PyrasegError, match=message):
        apply_voi_lut(GRAY, voi)
    array, meta = MedicalImageReader().get_data([path])
    data = {"image": MetaTensor(torch.as_tensor(array)[None], meta=meta)}
    assert Windowd("image", windows="bone")(data)["image"].shape[0] == 1
    with pytest.raises(PyrasegError, match=message):
        Windowd("image", windows="header")(data)


@pytest.mark.parametrize(
    "table", [item(), item(LUTExplanation="nothing"), of_numbers(LUTDescriptor=None, LUTData=None)]
)
def test_an_empty_table_is_none(tmp_path, table):
    path = write_image(tmp_path / "a", GRAY, VOILUTSequence=table, WindowCenter=40, WindowWidth=400)
    assert read_voi(pydicom.dcmread(path)) == (VoiWindow(40, 400),)


def test_several_windows_and_tables_first(tmp_path):
    attributes = {
        "WindowCenter": [40, 300],
        "WindowWidth": [400, 1500],
        "WindowCenterWidthExplanation": ["SOFT", "BONE"],
        "VOILUTFunction": "SIGMOID",
        "VOILUTSequence": lut_item([2, 0, 8], [0, 255], LUTExplanation="NORMAL"),
    }
    assert read_voi(pydicom.dcmread(write_image(tmp_path / "a.dcm", GRAY, **attributes))) == (
        VoiLut(0, 8, (0, 255), "NORMAL"),
        VoiWindow(40, 400, "SIGMOID", "SOFT"),
        VoiWindow(300, 1500, "SIGMOID", "BONE"),
    )
    assert read_voi(pydicom.dcmread(write_image(tmp_path / "b.dcm", GRAY))) == ()


def test_functional_groups_per_frame_and_shared(tmp_path):
    pixels, positions = np.zeros((2, 2, 2), np.int16), [(0, 0, 0), (0, 0, 1)]
    per_frame = write_enhanced(
        tmp_path / "a.dcm",
        pixels,
        positions,
        per_frame=lambda k: {"FrameVOILUTSequence": item(WindowCenter=10 + k, WindowWidth=5)},
    )
    shared = {"FrameVOILUTSequence": item(WindowCenter=7, WindowWidth=5, VOILUTFunction="LINEAR_EXACT")}
    shared = write_enhanced(tmp_path / "b.dcm", pixels, positions, shared=shared)
    assert [read_voi(pydicom.dcmread(per_frame), k)[0].center for k in (0, 1)] == [10, 11]
    assert read_voi(pydicom.dcmread(shared), 1) == (VoiWindow(7, 5, "LINEAR_EXACT"),)
