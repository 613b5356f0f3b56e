# SPDX-License-Identifier: Apache-2.0
"""What lies in one place is called what it is, from attributes of the standard or of the vendor, and can be chosen."""

import re

import numpy as np
import pytest
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from bundle.pyraseg.dicom.series import read_series
from tests.helpers.dicom_files import make_image, refusal, save, write_series

SLICES = 3


def private(group, creator, *elements):
    """Return what adds private elements (element, VR, value) to a data set."""

    def add(dataset):
        block = dataset.private_block(group, creator, create=True)
        for element, vr, value in elements:
            block.add_new(element, vr, value)

    return add


def write_phases(folder, phases, **attributes):
    """Write a stack for each of some phases, whose slices have its attributes, or the private elements that it adds."""
    for number, phase in enumerate(phases):
        for k in range(SLICES):
            own = phase if isinstance(phase, dict) else {}
            about = {
                "Modality": "MR", "SOPClassUID": MRImageStorage, "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
                "ImagePositionPatient": [0, 0, 4 * k], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "PixelSpacing": [1, 1], "InstanceNumber": number * SLICES + k + 1, **attributes, **own,
            }  # fmt: skip
            dataset = make_image(np.full((4, 5), 10 * number + k, np.uint16), **about)
            if callable(phase):
                phase(dataset)
            save(dataset, folder / f"{number}_{k}.dcm")


def image_types(*last, before=("DERIVED", "PRIMARY")):
    return [{"ImageType": [*before, *text.split("\\")]} for text in last]


SIEMENS, GE, GE_ACQUISITION = (0x0019, "SIEMENS MR HEADER"), (0x0043, "GEMS_PARM_01"), (0x0019, "GEMS_ACQU_01")
PHILIPS, PHILIPS_MR, PHILIPS_5 = (
    (0x2001, "Philips Imaging DD 001"), (0x2005, "Philips MR Imaging DD 001"), (0x2005, "Philips MR Imaging DD 005")
)  # fmt: skip
UIH = (0x0065, "Image Private Header")
CASES = {
    "b-values of Siemens": ([private(*SIEMENS, (0x0C, "IS", b)) for b in (0, 500)], "b-values", "DiffusionBValue=500"),
    "b-values of GE": (
        [private(*GE, (0x39, "IS", [1_000_000_000 + b, 8, 0, 0])) for b in (0, 800)],
        "b-values", "DiffusionBValue=800"),
    "b-values of Philips": ([private(*PHILIPS, (0x03, "FL", b)) for b in (0, 900)], "b-values", "DiffusionBValue=900"),
    "b-values of United Imaging": (
        [private(*UIH, (0x09, "FD", b)) for b in (0.0, 1000.0)], "b-values", "DiffusionBValue=1000"),
    "b-values of the standard": ([{"DiffusionBValue": b} for b in (0.0, 50.0)], "b-values", "DiffusionBValue=50"),
    "directions of Siemens": (
        [private(*SIEMENS, (0x0C, "IS", 700), (0x0E, "FD", list(map(float, row)))) for row in np.eye(3)],
        "diffusion directions", "DiffusionGradientOrientation=0\\0\\1"),
    "directions of GE": (
        [private(*GE_ACQUISITION, *((0xBB + k, "DS", str(part)) for k, part in enumerate(row))) for row in np.eye(3)],
        "diffusion directions", "DiffusionGradientOrientation=0\\0\\1"),
    "directions of Philips": (
        [private(*PHILIPS_MR, *((0xB0 + k, "FL", float(part)) for k, part in enumerate(row))) for row in np.eye(3)],
        "diffusion directions", "DiffusionGradientOrientation=0\\0\\1"),
    "two images without diffusion": (
        [{"DiffusionBValue": b, "AcquisitionNumber": n} for n, b in enumerate((0.0, 0.0, 900.0), 1)],
        "b-values", "AcquisitionNumber=3"),
    "labeling of Philips": (
        [private(*PHILIPS_5, (0x29, "CS", text)) for text in ("CONTROL", "LABEL")],
        "labeled and control images", "ASLContext=LABEL"),
    "parts of GE": (
        [private(*GE, (0x2F, "SS", part)) for part in (0, 1)],
        "magnitude, phase, real or imaginary images", "ComplexImageComponent=PHASE"),
    "magnitude and phase of Philips": (
        image_types("M_FFE\\M\\FFE", "PHASE MAP\\P\\FFE"), "magnitude, phase", None),
    "Dixon of GE": (
        image_types("DIXON\\WATER", "DIXON\\FAT", "DIXON\\IN_PHASE", "DIXON\\OUT_PHASE"), "Dixon images", None),
    "Dixon of Philips": (image_types("W\\W\\DERIVED", "F\\F\\DERIVED", "IP\\IP\\DERIVED"), "Dixon images", None),
    "ADC beside trace": (
        image_types("DIFFUSION\\ADC\\ND", "DIFFUSION\\TRACEW\\ND"),
        "diffusion images and maps computed from them", None),
    "a perfusion map beside its images": (
        image_types("PERFUSION\\CBF", "PERFUSION\\CBV"), "perfusion images and maps", None),
    "derived beside original": (
        [{"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"]}, {"ImageType": ["DERIVED", "PRIMARY", "OTHER"]}],
        "original and derived images", None),
    "a cine": (
        [{"TriggerTime": 40.0 * k} for k in range(4)], "cardiac phases (a cine)", "TriggerTime=120"),
    "echoes": ([{"EchoTime": time} for time in (2.3, 4.6)], "echoes", "EchoTime=4.6"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_images_in_one_place_are_named_and_chosen(tmp_path, case):
    phases, what, select = CASES[case]
    write_phases(tmp_path, phases)
    message = refusal(tmp_path)
    named = re.search(r"They are several (.*?)\. They differ", message).group(1)
    assert what in named
    assert not named.startswith(("acquisitions", "times", "kinds of image"))
    assert "Remove the copies" not in message
    last = 10 * (len(phases) - 1)
    if select is not None:
        assert np.array_equal(np.unique(read_series(tmp_path, select=select).pixels), last + np.arange(SLICES))
    advised = re.findall(r"--select ('[^']*'|\S+)", message)
    assert len(advised) == min(len(phases), 4)
    found = [int(read_series(tmp_path, select=text.strip("'")).pixels.min()) // 10 for text in advised]
    assert found == list(range(len(advised)))  # each advice reads a stack of its own, whole
    assert all(read_series(tmp_path, select=text.strip("'")).pixels.shape[0] == SLICES for text in advised)


@pytest.mark.parametrize("about", [{"SOPClassUID": SecondaryCaptureImageStorage},
                                   {"ImageType": ["DERIVED", "SECONDARY", "OTHER"]}])  # fmt: skip
def test_pages_of_a_report_are_no_copies_and_no_slices(tmp_path, about):
    write_series(tmp_path, np.arange(60, dtype=np.int16).reshape(3, 4, 5), slice_step=0.0, **about)
    message = refusal(tmp_path)
    assert "exam summaries" in message
    assert "no slices" in message
    assert "Remove the copies" not in message


def test_malformed_private_attributes_say_nothing(tmp_path):
    for k, value in enumerate(["x", "", "5"]):
        dataset = make_image(np.full((4, 5), k, np.uint16), ImagePositionPatient=[0, 0, k],
                             ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[1, 1])  # fmt: skip
        private(*SIEMENS, (0x0C, "LO", value), (0x0E, "LO", value))(dataset)
        private(*GE, (0x2F, "LO", "77"))(dataset)
        save(dataset, tmp_path / f"{k}.dcm")
    assert read_series(tmp_path).pixels.shape == (3, 4, 5)
