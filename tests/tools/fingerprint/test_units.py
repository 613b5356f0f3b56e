# SPDX-License-Identifier: Apache-2.0
"""Hounsfield units are told by values where they are there, and nothing else is taken for them."""

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from bundle.pyraseg_tools.fingerprint.units import recognize, units_of


def scan() -> np.ndarray:
    """Return the HU of a trunk in air: fat, muscle, two lungs, a spine, noise; (48, 40, 12)."""
    random = np.random.default_rng(0)
    x, y = np.mgrid[-1:1:48j, -1:1:40j]
    plane = np.full(x.shape, -1000.0)
    plane[x**2 + y**2 < 0.8] = -100
    plane[x**2 + y**2 < 0.6] = 50
    plane[(abs(x) - 0.35) ** 2 + y**2 < 0.05] = -850
    plane[x**2 + (y - 0.5) ** 2 < 0.02] = 700
    return np.rint(plane[..., None] + random.normal(0, 12, (48, 40, 12)))


def round_field(values: np.ndarray, padding: float) -> np.ndarray:
    x, y = np.mgrid[-1:1:48j, -1:1:40j]
    return np.where((x**2 + y**2 < 1)[..., None], values, padding)


HU = {
    "as they are": lambda v: v,
    "int16": lambda v: v.astype(np.int16),
    "air at -1024": lambda v: np.where(v < -900, v - 24, v),
    "clipped at -1000 and 1000": lambda v: v.clip(-1000, 1000),
    "padding -1024": lambda v: round_field(v, -1024),
    "padding -2000": lambda v: round_field(v, -2000),
    "padding -3024": lambda v: round_field(v, -3024),
    "metal": lambda v: np.where(np.arange(v.size).reshape(v.shape) % 1000 == 0, 12000, v),
    "resampled": lambda v: zoom(v, (0.7, 0.7, 1.5), order=1),
    "resampled by splines": lambda v: zoom(v, (1.3, 1.3, 1), order=3),
}
NOT = {
    "1024 added": lambda v: (v + 1024).clip(0).astype(np.uint16),
    "0 to 1": lambda v: (v - v.min()) / np.ptp(v),
    "8 bits": lambda v: np.uint8((v - v.min()) / np.ptp(v) * 255),
    "standardized": lambda v: (v - v.mean()) / v.std(),
    "clipped to -160 to 240": lambda v: v.clip(-160, 240),
    "without air": lambda v: v[18:30, 8:16].clip(-200),
    "one slice": lambda v: v[..., :1],
    "a picture": lambda v: v[..., 0],
    "constant": lambda v: np.full(v.shape, -1000.0),
    "air alone": lambda v: np.full(v.shape, -1000.0) + np.arange(12),
    "uptake": lambda v: gaussian_filter(np.abs(v), 2) / 300,
    "MR": lambda v: np.random.default_rng(1).rayleigh(150, v.shape) + 3 * (v > -900) * (v + 200),
    "MR around 0": lambda v: np.random.default_rng(2).normal(0, 700, v.shape),
    "phase from -4096 to 4095": lambda v: np.random.default_rng(3).integers(-4096, 4096, v.shape),
    "nothing finite": lambda v: np.full(v.shape, np.nan),
}


@pytest.mark.parametrize("change", HU.values(), ids=HU)
def test_hounsfield_units_are_recognized(change):
    found = recognize(change(scan()))
    assert (found.units, found.modality) == ("HU", "CT")
    assert "% air at -" in found.evidence


@pytest.mark.parametrize("change", NOT.values(), ids=NOT)
def test_nothing_else_is_taken_for_them(change):
    assert recognize(change(scan()))[:2] == ("", "")


def test_what_was_added_is_told():
    assert "1024 added" in recognize(NOT["1024 added"](scan())).evidence
    assert "1024 added" in units_of(NOT["1024 added"](scan()), modality="", units="", stated="CT").evidence


def test_the_padding_is_told():
    assert recognize(HU["padding -3024"](scan())).evidence.endswith("padding -3024")


@pytest.mark.parametrize(
    ("header", "stated", "expected"),
    [
        (("CT", "HU"), "MR", ("HU", "CT", "DICOM header")),
        (("MR", ""), "CT", ("", "MR", "DICOM header")),
        (("", ""), "CT", ("HU", "CT", "--modality")),
        (("", ""), "MR", ("", "MR", "--modality")),
    ],
)
def test_a_header_goes_before_a_user_and_a_user_before_values(header, stated, expected):
    assert units_of(scan().clip(-160, 240), modality=header[0], units=header[1], stated=stated) == expected


# --- real data ---


def test_real_ct_is_recognized_and_mr_is_not(real_data):
    ct = nib.load(real_data / "ct_abdomen" / "small_image.nii.gz")
    assert recognize(np.asarray(ct.dataobj, np.float32)).units == "HU"
    for path in sorted((real_data / "mr_hippocampus" / "images").iterdir()):
        assert recognize(np.asarray(nib.load(path).dataobj, np.float32)).units == ""
