# SPDX-License-Identifier: Apache-2.0
"""Reconstructed slices of nuclear medicine lie where PS3.3 C.8.4.15 puts them, and others nowhere."""

import numpy as np
import pytest

from bundle.pyraseg.dicom.geometry import frame_planes
from tests.helpers.dicom_files import AXIAL, CORONAL, SAGITTAL, item, make_image

FIRST = (-20.5, 30.0, 100.0)


def header(**changes):
    """Return five slices, 4 mm apart, the first at `FIRST`."""
    attributes = {
        "Modality": "NM",
        "ImageType": ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"],
        "PixelSpacing": [4, 3.5],
        "SpacingBetweenSlices": 4,
        "SliceThickness": 4,
        "DetectorInformationSequence": item(ImagePositionPatient=list(FIRST), ImageOrientationPatient=list(AXIAL)),
        **changes,
    }
    return make_image(np.zeros((5, 6, 7), np.uint16), **attributes)


def positions(dataset):
    return np.array([plane.position for plane in frame_planes(dataset)])


@pytest.mark.parametrize(("orientation", "normal"), [(AXIAL, (0, 0, 1)), (CORONAL, (0, 1, 0)), (SAGITTAL, (-1, 0, 0))])
@pytest.mark.parametrize("step", [4, -4, 3.3])
def test_slices_follow_the_first_along_the_normal_or_against_it(orientation, normal, step):
    detector = item(ImagePositionPatient=list(FIRST), ImageOrientationPatient=list(orientation))
    found = positions(header(DetectorInformationSequence=detector, SpacingBetweenSlices=step))
    np.testing.assert_allclose(found, FIRST + np.arange(5)[:, None] * step * np.array(normal), atol=1e-6)


def test_the_slice_vector_says_which_frame_is_which_slice():
    found = positions(header(SliceVector=[3, 1, 2, 5, 4]))
    np.testing.assert_allclose(found[:, 2], 100 + 4 * np.array([2, 0, 1, 4, 3]))


def test_the_place_may_stand_at_the_top():
    found = positions(header(DetectorInformationSequence=None, ImagePositionPatient=list(FIRST),
                             ImageOrientationPatient=list(AXIAL)))  # fmt: skip
    np.testing.assert_allclose(found[:, 2], 100 + 4 * np.arange(5))


@pytest.mark.parametrize(
    "changes",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]},  # projections around the patient
        {"ImageType": ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"]},
        {"SpacingBetweenSlices": None},
        {"SpacingBetweenSlices": 0},
        {"PixelSpacing": None},
        {"DetectorInformationSequence": item(CollimatorType="PARA")},
    ],
)
def test_nothing_else_is_placed(changes):
    assert frame_planes(header(**changes)) == [None] * 5
