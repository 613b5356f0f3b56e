# SPDX-License-Identifier: Apache-2.0
"""Slices that lie in the same place are named by what tells them apart, and `select` chooses among them."""

import ast
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai.bundle import ConfigParser

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.selection import read_selection
from bundle.pyraseg.dicom.series import read_series
from tests.helpers.dicom_files import CORONAL, item, refusal, save, uid, write_enhanced, write_series

STACK = np.random.default_rng(0).integers(-1000, 1000, (5, 32, 40), dtype=np.int16)


@pytest.mark.parametrize(
    ("keyword", "values", "wanted"),
    [
        ("AcquisitionNumber", (1, 2), 2),
        ("EchoTime", (4.6, 9.2), "9.2"),
        ("TemporalPositionIdentifier", (1, 2), 2.0),
        ("DiffusionBValue", (0.0, 800.0), 800),
        ("ContrastBolusAgent", (None, "AGENT"), "AGENT"),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]), ["ORIGINAL", "PRIMARY", "P"]),
    ],
)
def test_duplicate_positions_name_what_differs_and_select_chooses(tmp_path, keyword, values, wanted):
    for k, value in enumerate(values):
        own = {keyword: value, "ContentTime": f"10000{k}"}
        write_series(tmp_path, STACK + k, names=[f"{k}{i}" for i in range(5)], Modality="MR", **own)
    message = refusal(tmp_path)
    assert "10 slices lie in 5 places" in message
    assert "(00, 10 in the same one)" in message
    assert f"differ in {keyword}: " in message
    assert f"--select {keyword}=" in message.replace("'", "")
    np.testing.assert_array_equal(read_series(tmp_path, select={keyword: wanted}).pixels, STACK + 1)


def test_select_reaches_the_frames_of_an_enhanced_object(tmp_path):
    positions = [(0, 0, k // 2) for k in range(4)]
    path = write_enhanced(
        tmp_path / "a",
        STACK[:4],
        positions,
        per_frame=lambda k: {"FrameContentSequence": item(TemporalPositionIndex=k % 2 + 1)},
    )
    assert "differ in TemporalPositionIndex: 1 (2), 2 (2)" in refusal(path)
    image = read_series(path, select={"TemporalPositionIndex": 2})
    np.testing.assert_array_equal(image.pixels, STACK[[1, 3]])
    assert image.frame_numbers == (2, 4)


def test_select_that_finds_nothing_or_is_misspelt_is_refused(tmp_path):
    write_series(tmp_path, STACK, AcquisitionNumber=3)
    assert "no slice has AcquisitionNumber = 4. There are: 3 (5)" in refusal(tmp_path, select={"AcquisitionNumber": 4})
    assert "The nearest name is 'AcquisitionNumber'" in refusal(tmp_path, select={"AquisitionNumber": 3})
    assert len(read_series(tmp_path, select={"ProtocolName": ""}).pixels) == 5  # any keyword, absent ones too


def test_refuses_the_same_slice_twice(tmp_path):
    files = write_series(tmp_path, STACK)
    copy = pydicom.dcmread(files[1])
    copy.SOPInstanceUID = uid("exported anew")
    save(copy, tmp_path / "copy.dcm")
    message = refusal(tmp_path)
    assert "copy.dcm, slice_001.dcm" in message
    assert "Remove the copies" in message


def phases(folder: Path, count: int, of: Callable[[int, int], dict[str, object]], slices: int = 6) -> np.ndarray:
    """Write phases in the same places, numbered on, with attributes by phase and slice; return (phases, N, r, c)."""
    pixels = np.random.default_rng(1).integers(-1000, 1000, (count, slices, 8, 10), dtype=np.int16)
    for phase in range(count):
        write_series(
            folder, pixels[phase], slice_step=3, names=[f"{phase}_{k}" for k in range(slices)], Modality="MR",
            per_slice=lambda k, phase=phase: {"InstanceNumber": phase * slices + k + 1, **of(phase, k)},
        )  # fmt: skip
    return pixels


FORMS = {
    "a cine whose trigger times differ in every slice": (
        8, lambda phase, k: {"TriggerTime": round(phase * (700 + 7 * k) / 8, 3)}, "cardiac phases (a cine)"),
    "acquisitions of which one lasts for a second more": (
        3, lambda phase, k: {"AcquisitionNumber": (0, 2, 2)[phase],
                             "AcquisitionTime": ("085803" if k < 5 else "085804", "090415", "090953")[phase]},
        "acquisitions, times"),
    "nothing but the number of the image": (2, lambda phase, k: {}, "no attribute says of what"),
    "b-values and directions": (
        4, lambda phase, k: {"DiffusionBValue": 500.0 * (phase // 2 + 1),
                             "DiffusionGradientOrientation": [float(phase % 2), float(1 - phase % 2), 0.0]},
        "b-values, diffusion directions"),
    "directions without a name within b-values": (
        4, lambda phase, k: {"DiffusionBValue": 0.0 if phase == 0 else 800.0}, ""),
    "times of a dynamic series": (
        3, lambda phase, k: {"TemporalPositionIdentifier": phase + 1}, "times of a dynamic series"),
    "fractions of a second": (
        3, lambda phase, k: {"AcquisitionTime": f"120000.{phase + 1}50000"}, "times"),
    "magnitude and phase of two echoes": (
        4, lambda phase, k: {"EchoTime": 4.6 * (phase // 2 + 1), "ImageType": ["ORIGINAL", "PRIMARY", "MP"[phase % 2]]},
        "echoes, magnitude, phase, real or imaginary images"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_what_is_advised_reads_one_whole_stack(tmp_path: Path, form: str) -> None:
    """Every choice in the message is typed as it stands there."""
    count, of, what = FORMS[form]
    pixels = phases(tmp_path, count, of)
    message = refusal(tmp_path)
    assert what in message and "Remove the copies" not in message and len(message) < 1500
    words = shlex.split(re.sub(r"[()]", " ", message.split("Read one of them with")[1].partition("(in Python")[0]))
    advised = [words[place + 1] for place, word in enumerate(words) if word == "--select"]
    stacks = [read_series(tmp_path, select=select).pixels for select in advised]
    found = [next(k for k in range(count) if np.array_equal(stack, pixels[k])) for stack in stacks]
    assert len(set(found)) == len(found) == min(count, 4)
    in_python = ast.literal_eval(re.search(r"in Python select=(\{.*\})", message)[1])
    np.testing.assert_array_equal(read_series(tmp_path, select=in_python).pixels, stacks[0])


NUMBERED = {
    "TriggerTime": lambda phase, k: {"TriggerTime": round(phase * (700 + 7 * k) / 3, 3)},
    "InstanceNumber": lambda phase, k: {},
}


@pytest.mark.parametrize("keyword", NUMBERED)
@pytest.mark.parametrize("gone", ["file", "number"])
def test_a_rank_is_neither_advised_nor_taken_where_places_hold_different_numbers(tmp_path, keyword, gone):
    """The second of two slices is of the third phase where the second phase lacks its slice."""
    pixels = phases(tmp_path, 3, NUMBERED[keyword])
    np.testing.assert_array_equal(read_series(tmp_path, select=f"{keyword}=#2").pixels, pixels[1])
    if gone == "file":
        (tmp_path / "1_2").unlink()
    else:
        dataset = pydicom.dcmread(tmp_path / "1_2")
        delattr(dataset, keyword)
        save(dataset, tmp_path / "1_2")
    assert f"{keyword}=#" not in refusal(tmp_path)
    message = refusal(tmp_path, select=f"{keyword}=#2")
    held = "2 slices" if gone == "file" else f"3 slices, of which {keyword} numbers 2"
    assert f"5 of 6 hold 3 slices, but there are {held} at 0\\0\\6 (0_2, " in message and "Add the slices" in message


def test_a_rank_counts_among_what_else_is_selected(tmp_path):
    """A slice that is missing from one b-value leaves the ranks of the other one as they are."""
    pixels = phases(tmp_path, 4, lambda phase, k: {"DiffusionBValue": 500.0 * (phase // 2 + 1)})
    (tmp_path / "0_2").unlink()
    chosen = read_series(tmp_path, select="InstanceNumber=#2;DiffusionBValue=1000")
    np.testing.assert_array_equal(chosen.pixels, pixels[3])
    assert "would mix stacks" in refusal(tmp_path, select="DiffusionBValue=500;InstanceNumber=#2")


@pytest.mark.parametrize(
    ("keyword", "times"),
    [
        ("AcquisitionTime", ("093000.12", "093000.14")),
        ("AcquisitionTime", ("000001.000001", "000001.000002")),
        ("ContentTime", ("235959.999998", "235959.999999")),
        ("AcquisitionDateTime", ("20260101093000.120001", "20260101093000.120002")),
    ],
)
def test_times_are_told_apart_by_all_their_digits(tmp_path, keyword, times):
    pixels = phases(tmp_path, 2, lambda phase, k: {keyword: times[phase], "InstanceNumber": 1})
    for phase, time in enumerate(times):
        np.testing.assert_array_equal(read_series(tmp_path, select=f"{keyword}={time}").pixels, pixels[phase])
    if keyword != "AcquisitionDateTime":
        assert f"--select {keyword}={times[0]} (6 slices) or --select {keyword}={times[1]} (6 " in refusal(tmp_path)


def test_a_time_is_typed_with_or_without_zeros(tmp_path):
    pixels = phases(tmp_path, 2, lambda phase, k: {"AcquisitionTime": ("093000.120000", "093000.14")[phase]})
    for typed in ("093000.12", "93000.12", 93000.12):
        np.testing.assert_array_equal(read_series(tmp_path, select={"AcquisitionTime": typed}).pixels, pixels[0])


def test_a_list_given_in_python_is_advised_as_it_is_typed(tmp_path):
    pixels = phases(tmp_path, *FORMS["magnitude and phase of two echoes"][:2])
    given = {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}
    advised = shlex.split(refusal(tmp_path, select=given).partition("Read one of them with ")[2])[1]
    np.testing.assert_array_equal(read_series(tmp_path, select=advised).pixels, pixels[1])


def test_a_choice_that_leaves_places_empty_says_so(tmp_path, caplog):
    phases(tmp_path, 3, FORMS["acquisitions of which one lasts for a second more"][1])
    assert len(read_series(tmp_path, select="AcquisitionTime=085803").pixels) == 5
    assert "AcquisitionTime=085803 chooses 5 slices, and the series has slices in 6 places: 1 stay empty" in caplog.text
    caplog.clear()
    assert len(read_series(tmp_path, select="AcquisitionNumber=0").pixels) == 6
    assert not caplog.text


def test_equal_places_of_other_pixels_are_no_copies(tmp_path):
    phases(tmp_path, 2, lambda phase, k: {"InstanceNumber": 1})
    message = refusal(tmp_path)
    assert "no attribute says of what" in message and "Remove" not in message
    assert "Move the files of one stack to a folder of their own" in message


def test_a_frame_of_reference_for_each_image_is_read_on_request(tmp_path):
    write_series(tmp_path, np.zeros((60, 4, 5), np.int16), per_slice=lambda k: {"FrameOfReferenceUID": uid("f", k)})
    message = refusal(tmp_path)
    assert len(message) < 500 and "each of its 60 slices has one of its own" in message
    assert "Read one of them with --select FrameOfReferenceUID=any (" in message
    image = read_series(tmp_path, select="FrameOfReferenceUID=any")
    assert len(image.pixels) == 60 and image.geometry.slice_spacing == pytest.approx(1)


def test_a_frame_of_reference_for_each_image_of_a_cine_is_read_by_the_advice(tmp_path):
    """Positions alone leave several stacks: what is advised reads one of them, and was tried."""
    pixels = np.arange(24, dtype=np.int16)[:, None, None] * np.ones((24, 4, 5), np.int16)
    write_series(
        tmp_path, pixels, per_slice=lambda k: {
            "FrameOfReferenceUID": uid("f", k), "ImagePositionPatient": [0, 0, k % 6], "TriggerTime": k // 6,
        },
    )  # fmt: skip
    advised = shlex.split(refusal(tmp_path).partition("Read one of them with ")[2])
    image = read_series(tmp_path, select=advised[1])
    np.testing.assert_array_equal(image.pixels[:, 0, 0], np.arange(6) + 6 * (image.pixels[0, 0, 0] // 6))
    assert advised[1].startswith("FrameOfReferenceUID=any;")


def test_stacks_that_cannot_be_one_are_chosen_by_what_differs(tmp_path):
    write_series(tmp_path / "a", STACK)
    write_series(tmp_path / "b", STACK[:2, :, :8], orientation=CORONAL, per_slice=lambda k: {"InstanceNumber": k + 50},
                 FrameOfReferenceUID=uid("other"))  # fmt: skip
    for k, file in enumerate((tmp_path / "b").iterdir()):
        file.rename(tmp_path / "a" / f"b{k}.dcm")
    message = refusal(tmp_path)
    assert "mixes image sizes: " in message and "32x40 (5 of 7," in message and len(message) < 1500
    assert f"--select FrameOfReferenceUID={uid('other')} (2 slices)" in message
    assert len(read_series(tmp_path, select=f"FrameOfReferenceUID={uid('other')}").pixels) == 2


@pytest.mark.parametrize("many", [
    lambda k: {"PixelSpacing": [1 + k / 10, 1]},
    lambda k: {"ContrastBolusAgent": "x" * 60, "FrameOfReferenceUID": uid("f", k % 30)},
    lambda k: {"ImageOrientationPatient": [1, 0, 0, 0, np.cos(k / 30), np.sin(k / 30)]},
])  # fmt: skip
def test_messages_are_bounded(tmp_path, many):
    write_series(tmp_path, np.zeros((60, 4, 5), np.int16), per_slice=many)
    assert len(refusal(tmp_path)) < 1500


def test_what_is_typed_may_name_several(tmp_path):
    phases(tmp_path, *FORMS["b-values and directions"][:2])
    for select in ("DiffusionBValue=500; DiffusionGradientOrientation=1\\0\\0",
                   ["DiffusionBValue=500", "DiffusionGradientOrientation=1\\0\\0"]):  # fmt: skip
        assert len(read_series(tmp_path, select=select).pixels) == 6
    with pytest.raises(PyrasegError, match="Write KEYWORD=VALUE"):
        read_series(tmp_path, select="DiffusionBValue")
    assert "nowhere do 9 slices of different InstanceNumber lie in one place" in refusal(
        tmp_path, select="InstanceNumber=#9"
    )


def test_no_value_of_a_patient_is_told(tmp_path):
    write_series(tmp_path, STACK)
    assert "There are: other values" in refusal(tmp_path, select="PatientID=X")


def test_what_is_typed_reaches_the_reader_through_a_config():
    """MONAI's parser changes texts with a # in them."""
    for typed in ("InstanceNumber=#12", "DiffusionBValue=800;InstanceNumber=#2", {"TriggerTime": "#3"}):
        read = ConfigParser({"select": typed}).get_parsed_content("select")
        assert read_selection(read) == read_selection(typed)
    assert read_selection("TriggerTime=#3") == {"TriggerTime": "#3"}


def test_a_value_with_a_sign_that_configs_change_is_chosen(tmp_path):
    kinds = (["ORIGINAL", "PRIMARY", "#1"], ["ORIGINAL", "PRIMARY", "#2"])
    for number, kind in enumerate(kinds):
        names = [f"{number}_{k}.dcm" for k in range(len(STACK))]
        write_series(tmp_path, STACK + number, names=names, ImageType=kind)
    read = ConfigParser({"select": r"ImageType=ORIGINAL\PRIMARY\#2"}).get_parsed_content("select")
    np.testing.assert_array_equal(read_series(tmp_path, select=read).pixels, STACK + 1)
