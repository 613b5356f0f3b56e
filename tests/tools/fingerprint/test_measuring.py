# SPDX-License-Identifier: Apache-2.0
"""Measures of made-up cases against what was put into them, and what looks odd among them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.data.class_statistics import sum_counts
from bundle.pyraseg_tools.fingerprint.measuring import SAMPLES, CaseFingerprint, body, measure, measure_cases
from bundle.pyraseg_tools.fingerprint.page import class_table
from bundle.pyraseg_tools.fingerprint.rules import (
    foreground_samples,
    propose_background_fraction,
    propose_grid,
    propose_weights,
    propose_windows,
    suspicious,
)

RNG = np.random.default_rng(0)


def phantom(*, spacing=(1.0, 1.0), units="HU", shift=0, beside=0, organ=(100.0, 10.0), background=0.0):
    """Return a disc in air with a lung and an organ of 10 x 10, in 3 of 4 slices; its label may lie beside it."""
    shape = (40, 60, 4)
    x, y = np.mgrid[: shape[0], : shape[1]]
    disc = ((x - shape[0] / 2) / (0.4 * shape[0])) ** 2 + ((y - shape[1] / 2) / (0.4 * shape[1])) ** 2 < 1
    values = np.where(disc, background, -1000.0)[..., None].repeat(shape[2], 2)
    values[15:20, 20:25] = -900  # a lung: a hole in the body
    label = np.zeros(shape, np.uint8)
    label[15 + shift : 25 + shift, 25:35, :3] = 1
    values = np.where(label == 1, RNG.normal(*organ, shape), values)
    label = np.roll(label, beside, axis=0)
    affine = np.diag([-spacing[0], -spacing[1], 3.0, 1.0])  # growing to the left and to the back, as on a screen
    meta = {"units": units, "modality": "CT" if units else "", "has_geometry": True}
    return MetaTensor(torch.tensor(values[None]), affine=affine, meta=meta), MetaTensor(label[None], affine=affine)


def case(name="a", part="training", **options) -> CaseFingerprint:
    stated = None if options.get("units", "HU") else "MR"
    return CaseFingerprint({}, name, part, **measure(*phantom(**options), classes=2, modality=stated))


def test_measures_are_those_of_what_was_made():
    measured = case(spacing=(0.5, 0.75))
    assert measured.size == (40, 60, 4) and measured.spacing == (0.5, 0.75, 3.0)
    assert measured.counts.tolist() == [[2300, 100]] * 3 + [[2400, 0]]
    assert measured.empty_slices == 1
    assert measured.foreground[1] == pytest.approx(100, abs=3)
    assert measured.foreground[2] == pytest.approx(100 + 2.576 * 10, abs=6)  # the normal distribution's quantile
    assert measured.center == pytest.approx((19.5 / 39, 29.5 / 59, 1 / 3))
    assert measured.outside == 0
    assert len(measured.samples[0]) == 9300 and len(measured.samples[1]) == 300


def test_samples_are_bounded_and_repeat():
    image = MetaTensor(torch.arange(40_000.0).reshape(1, 200, 200))
    label = MetaTensor(torch.ones(1, 200, 200, dtype=torch.uint8))
    one, two = (measure(image, label, classes=2)["samples"][1] for _ in range(2))
    assert len(one) == SAMPLES and np.array_equal(one, two)
    assert np.percentile(one, 50) == pytest.approx(20_000, rel=0.05)


def test_pixels_that_nobody_labeled_are_no_foreground():
    image, label = phantom()
    label[label == 1] = 255
    measured = CaseFingerprint({}, "a", "training", **measure(image, label, classes=2))
    assert measured.is_empty and measured.counts.sum() == 9300


def test_the_body_has_its_lungs_and_no_air():
    image, _ = phantom()
    inside = body(image[0].numpy(), "HU")
    assert inside[17, 22].all() and not inside[0, 0].any()


def test_a_case_that_cannot_be_read_has_its_fault(tmp_path):
    def load(item):
        if item["image"].endswith("b"):
            raise PyrasegError("The label lies on another grid.")
        return dict(zip(("image", "label"), phantom(), strict=True))

    items = [{"image": str(tmp_path / name), "label": ""} for name in "ab"]
    fine, faulty = measure_cases({"training": items[:1], "test": items[1:]}, load, root=tmp_path, classes=2)
    assert (fine.name, fine.part, fine.fault) == ("a", "training", "")
    assert (faulty.name, faulty.part, faulty.fault) == ("b", "test", "The label lies on another grid.")
    assert suspicious([fine, faulty]) == {"b": ["The label lies on another grid."]}


def test_labels_of_several_channels_are_refused():
    image, label = phantom()
    with pytest.raises(PyrasegError, match="2 channels"):
        measure(image, torch.cat([label, label]), classes=2)


# --- what is odd ---


@pytest.fixture(scope="module")
def cohort():
    return [case(f"case {k}", shift=int(RNG.integers(-1, 2)), organ=(100 + k, 10)) for k in range(20)]


def test_ordinary_cases_are_not_odd(cohort):
    assert suspicious(cohort) == {}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"beside": -15}, "of the labeled pixels lie outside the body"),
        ({"shift": 9}, "the relative x of the label's center"),
        ({"spacing": (4.0, 4.0)}, "pixels of 4 mm, mostly 1 mm"),
        ({"organ": (-300.0, 5.0)}, "the relative brightness under the label"),
        ({"units": ""}, "the modality is MR, mostly CT"),
    ],
)
def test_an_odd_case_is_found_for_its_reason(cohort, options, reason):
    found = suspicious([*cohort, case("odd", **options)])
    assert found.keys() == {"odd"}
    assert any(reason in words for words in found["odd"]), found


def test_constant_images_and_empty_labels(cohort):
    image, label = phantom()
    constant = CaseFingerprint({}, "constant", "test", **measure(image * 0 + 7, label, classes=2))
    empty = CaseFingerprint({}, "empty", "test", **measure(image, label * 0, classes=2))
    found = suspicious([*cohort, constant, empty])
    assert found["constant"] == ["the image has the value 7 everywhere"]
    assert "empty" not in found and empty.is_empty


def test_few_cases_have_no_usual(cohort):
    assert suspicious([*cohort[:5], case("other", shift=9)]) == {}


# --- what follows ---


def test_a_window_in_hu_holds_99_percent_of_the_labels(cohort):
    (window,) = propose_windows(cohort).value
    values = np.concatenate([foreground_samples(case) for case in cohort])
    low, high = np.percentile(values, (0.5, 99.5))
    assert window["center"] == pytest.approx((low + high) / 2, abs=0.6)
    assert window["width"] == pytest.approx(high - low, abs=1.1)


def test_without_units_percentiles_reach_as_far_as_the_labels():
    inner = [case(units="", organ=(50.0, 1.0), background=60.0) for _ in range(3)]
    assert propose_windows(inner).value == [{"percentiles": [1.0, 99.0]}]
    brightest = [case(units="", organ=(500.0, 100.0)) for _ in range(3)]
    (window,) = propose_windows(brightest).value
    assert window["percentiles"][0] == 1.0 and window["percentiles"][1] > 99.9


@pytest.mark.parametrize(
    ("size", "spacing", "expected"),
    [
        ((512, 400, 9), (0.8, 0.8, 5.0), {"spacing": 0.8, "slice_size": [512, 416]}),
        ((1024, 512, 9), (0.5, 0.5, 5.0), {"spacing": 1.0, "slice_size": [512, 256]}),  # at most 512
        ((35, 51, 35), (1.0, 1.0, 1.0), {"spacing": 0.365, "slice_size": [96, 160]}),  # at least 96
        ((256, 256), None, {"slice_size": [256, 256]}),
        ((3000, 2000), None, {"slice_size": [512, 352]}),
    ],
)
def test_grids(size, spacing, expected):
    cases = [CaseFingerprint({}, str(k), "training", size=size, spacing=spacing) for k in range(3)]
    assert {key: setting.value for key, setting in propose_grid(cases).items()} == expected


def test_the_median_case_decides_on_the_grid():
    spacings = (0.6, 0.8, 3.0)
    cases = [CaseFingerprint({}, "", "training", size=(300, 300, 5), spacing=(s, s, 5.0)) for s in spacings]
    grid = propose_grid(cases)
    assert grid["spacing"].value == 0.8 and grid["slice_size"].value == [320, 320]


def test_weights_and_empty_share(cohort):
    counts = sum_counts(np.concatenate([case.counts for case in cohort]), ["background", "organ"])
    assert propose_weights(counts, method="inverse_frequency", max_ratio=None).value == pytest.approx([0.0625, 1.938])
    assert propose_weights(counts, method="inverse_frequency", max_ratio=9).value == pytest.approx([0.2, 1.8])
    assert propose_background_fraction(cohort).value == 0.2  # a quarter, bounded


# --- units and the kind of image ---


def test_ct_without_a_header_gets_a_window_in_hu():
    image, label = phantom(units="")
    image.meta["modality"] = ""
    measured = CaseFingerprint({}, "a", "training", **measure(image, label, classes=2))
    assert (measured.units, measured.modality) == ("HU", "CT") and "air at -1000" in measured.evidence
    setting = propose_windows([measured])
    assert 90 < setting.value[0]["center"] < 110 and "HU by values" in setting.reason


def test_hu_in_some_cases_alone_are_told_and_not_used():
    setting = propose_windows([case(), case(units="")])
    assert setting.value[0].keys() == {"percentiles"} and "1 of 2 are in HU" in setting.reason


@pytest.mark.parametrize(("kind", "spacing"), [("volume", (1.0, 1.0, 3.0)), ("projection", None), ("photograph", None)])
def test_the_declared_kind_says_whether_pixels_have_a_size(kind, spacing):
    measured = measure(*phantom(units=""), classes=2, image_kind=kind)
    assert measured["spacing"] == spacing
    assert measured["units"] == ("HU" if kind == "volume" else "")


@pytest.mark.parametrize("largest", [1.0, 1e-9, 1e6])
def test_deviations_are_finite_and_bounded(cohort, largest):
    image, label = phantom(units="")
    image[:] = 0
    image[0, 20, 20, 0] = largest  # all but one pixel have one value
    sparse = CaseFingerprint({}, "sparse", "test", **measure(image, label * 1, classes=2, modality="MR"))
    for words in suspicious([*cohort, sparse])["sparse"]:
        assert "inf" not in words and "nan" not in words and len(words) < 90


def test_images_that_differ_by_rounding_alone_are_usual():
    same = [
        CaseFingerprint({}, str(k), "training", **measure(*phantom(organ=(40.0, 0.0)), classes=2)) for k in range(12)
    ]
    shifted = [replace(same[0], name="x", extent=tuple(v * (1 + 1e-12) for v in same[0].extent))]
    assert suspicious([*same, *shifted]) == {}


def test_classes_are_counted_in_the_images_that_were_annotated_for_them():
    annotated = np.array([[True, True, False], [True, True, True]])
    counts = sum_counts(np.array([[60, 40, 0], [50, 30, 20]]), ["background", "liver", "spleen"], annotated)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in class_table(counts).splitlines()[2:]]
    assert rows == [
        ["background", "110", "55.0000%", "2", "2"],
        ["liver", "70", "35.0000%", "2", "2"],
        ["spleen", "20", "20.0000%", "1", "1"],
    ]
    everything = sum_counts(np.array([[60, 40, 0], [50, 30, 20]]), ["background", "liver", "spleen"])
    assert "annotated" not in class_table(everything)
