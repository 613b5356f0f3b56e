# SPDX-License-Identifier: Apache-2.0
"""JPEG of 12 bits is decoded as other programs decode it, without a word on the console, or refused."""

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames

from bundle.pyraseg.dicom.series import read_series
from tests.helpers.dicom_files import refusal

PATH = get_testdata_file("JPEG-lossy.dcm")


def test_read_as_by_itk_and_silently(capfd):
    image = read_series(PATH)
    assert capfd.readouterr().err == ""
    expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(PATH))
    assert image.pixels.max() == 264  # of libjpeg-turbo, by imagecodecs 2026.3.6
    assert np.array_equal(image.pixels, expected)


def altered(path, change):
    dataset = pydicom.dcmread(PATH)
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([change(dataset, stream)])
    dataset.save_as(path)
    return path


def other_size(dataset, stream):
    dataset.Rows = 512
    return stream


CHANGES = {
    "another size": other_size,
    "cut short within its header": lambda dataset, stream: stream[:40],
    "no JPEG": lambda dataset, stream: bytes(len(stream)),
    "other bits": lambda dataset, stream: stream.replace(b"\xff\xc1\x00\x0b\x0c", b"\xff\xc1\x00\x0b\x08"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_contradicts_the_header_is_refused(tmp_path, case):
    assert "cannot be decoded" in refusal(altered(tmp_path / "a.dcm", CHANGES[case]))
