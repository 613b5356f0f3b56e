# SPDX-License-Identifier: Apache-2.0
"""Slices of several frames of reference are read by their positions on request, and told apart otherwise."""

import re

import numpy as np
import pydicom
import pytest

from bundle.pyraseg.dicom.series import read_series
from bundle.pyraseg.dicom.source import read_sources
from bundle.pyraseg.labels.seg_writer import SegmentClass, write_segmentation
from tests.helpers.dicom_files import PATIENT, refusal, uid, write_series

STACK = np.random.default_rng(4).integers(0, 900, (6, 4, 5), dtype=np.int16)
#: What the frame of reference of slice k is.
KINDS = {
    "one an image": lambda k: uid("frame", k),
    "two halves, as after a pause": lambda k: uid("frame", k // 3),
    "every other slice, as of two reconstructions": lambda k: uid("frame", k % 2),
    "one odd slice": lambda k: uid("frame", k == 4),
    "one an image, and the last without any": lambda k: uid("frame", k) if k < 5 else None,
    "one an image, and the first without any": lambda k: uid("frame", k) if k else None,
}


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_read_by_position_on_request(tmp_path, kind):
    write_series(
        tmp_path, STACK, slice_step=3.0, per_slice=lambda k: {"FrameOfReferenceUID": KINDS[kind](k)}, **PATIENT
    )
    message = refusal(tmp_path)
    assert "frames of reference" in message
    assert len(message) < 1500
    image = read_series(tmp_path, select="FrameOfReferenceUID=any")
    assert np.array_equal(image.pixels, STACK)
    assert np.allclose(image.geometry.gaps, 3.0)
    mask = np.ones(STACK.shape, np.uint8)
    write_segmentation(tmp_path / "seg", mask, read_sources(image.files), [SegmentClass.organ("liver")])
    segmentation = pydicom.dcmread(tmp_path / "seg")  # which has one place for it
    assert segmentation.FrameOfReferenceUID in {KINDS[kind](k) for k in range(6)}
    heights = [float(group.PlanePositionSequence[0].ImagePositionPatient[2])
               for group in segmentation.PerFrameFunctionalGroupsSequence]  # fmt: skip
    assert sorted(heights) == [3.0 * k for k in range(6)]


@pytest.mark.parametrize("kind", ["two halves, as after a pause", "every other slice, as of two reconstructions"])
def test_or_one_frame_of_reference_is(tmp_path, kind):
    write_series(tmp_path, STACK, slice_step=3.0, per_slice=lambda k: {"FrameOfReferenceUID": KINDS[kind](k)})
    advised = re.findall(r"--select (FrameOfReferenceUID=[0-9.]+)", refusal(tmp_path))
    assert len(advised) == 2
    found = [read_series(tmp_path, select=text.rstrip(".")).pixels for text in advised]
    assert sorted(len(pixels) for pixels in found) == [3, 3]


def test_two_scans_of_one_place_are_not_mixed_by_position(tmp_path):
    for number in (0, 1):
        about = {"FrameOfReferenceUID": uid("scan", number), "AcquisitionNumber": number}
        names = [f"{number}_{k}" for k in range(6)]
        write_series(tmp_path, STACK + number, names=names, slice_step=3.0, **about,
                     per_slice=lambda k, number=number: {"InstanceNumber": 6 * number + k + 1})  # fmt: skip
    message = refusal(tmp_path, select="FrameOfReferenceUID=any")
    assert "12 slices lie in 6 places" in message
    assert np.array_equal(read_series(tmp_path, select="FrameOfReferenceUID=any;AcquisitionNumber=1").pixels, STACK + 1)


@pytest.mark.parametrize("frame", [lambda k: None, lambda k: "", lambda k: uid("frame") if k < 4 else None])
def test_slices_without_one_are_in_that_of_the_others(tmp_path, frame):
    write_series(tmp_path, STACK, per_slice=lambda k: {"FrameOfReferenceUID": frame(k)})
    assert np.array_equal(read_series(tmp_path).pixels, STACK)
