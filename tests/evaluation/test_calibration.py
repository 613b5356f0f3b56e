# SPDX-License-Identifier: Apache-2.0
"""Calibration against scikit-learn, SciPy and probabilities whose temperature is known."""

import json
import logging

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from scipy.spatial.distance import cdist
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.evaluation.calibration import (
    BoundaryCalibration,
    Reliability,
    TemperatureFit,
    fit_temperature,
    near_boundary,
)
from bundle.pyraseg.transforms.label import UNKNOWN
from bundle.pyraseg.transforms.postprocessing import (
    TemperatureScaled,
    read_temperature,
    soften,
    temperature_path,
    write_temperature,
)
from bundle.pyraseg.transforms.reader import geometry_of

CLASSES = ["background", "liver", "lesion"]


def drawn(temperature: float, voxels: int = 60_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities that are too sure by a temperature, (N, C), and classes drawn from the honest ones."""
    random = np.random.default_rng(seed)
    logits = 2 * random.standard_normal((voxels, len(CLASSES)))
    honest = softmax(logits, axis=1)
    truth = (honest.cumsum(axis=1) > random.random((voxels, 1))).argmax(axis=1)
    return softmax(temperature * logits, axis=1), truth


# --- error ---


def test_curve_and_error_are_those_of_scikit_learn():
    probabilities, truth = drawn(1.8)
    reliability = Reliability(bins=15)
    for part in np.array_split(np.arange(len(truth)), 3):
        reliability.add(probabilities[part, 1], truth[part] == 1)
    frequency, probability = calibration_curve(truth == 1, probabilities[:, 1], n_bins=15)
    curve = reliability.curve()
    assert [point["frequency"] for point in curve] == pytest.approx(frequency)
    assert [point["probability"] for point in curve] == pytest.approx(probability)
    shares = np.array([point["voxels"] for point in curve]) / len(truth)
    assert reliability.error == pytest.approx((shares * np.abs(frequency - probability)).sum())
    assert reliability.error > 0.03


def test_honest_probabilities_have_no_error():
    probabilities, truth = drawn(1.0)
    reliability = Reliability()
    reliability.add(probabilities[:, 2], truth == 2)
    assert reliability.error < 0.01


def test_error_by_hand():
    reliability = Reliability(bins=2)
    reliability.add(np.array([0.2, 0.4, 1.0]), np.array([False, True, True]))
    assert reliability.error == pytest.approx((abs(0.3 - 0.5) * 2 + 0) / 3)
    assert np.isnan(Reliability().error)


# --- where it counts ---


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.5, 4.0)])
def test_the_region_is_what_lies_within_the_margin(spacing):
    random = np.random.default_rng(0)
    true = np.zeros((14, 13, 9), bool)
    true[5:9, 4:8, 3:6] = True
    predicted = true & (random.random(true.shape) < 0.8)
    predicted[0, 0, 0] = True  # at the border
    grid = geometry_of(MetaTensor(torch.zeros(1, *true.shape), affine=np.diag([*spacing, 1.0])))
    found = np.zeros(true.shape, bool)
    found[near_boundary(predicted, true, grid, 2.5)] = True
    surface = [  # inside a mask, with a neighbor outside
        index
        for mask in (predicted, true)
        for index in np.argwhere(mask)
        if any(
            (n >= 0).all() and (n < mask.shape).all() and not mask[tuple(n)]
            for n in (index + step * unit for unit in np.eye(3, dtype=int) for step in (-1, 1))
        )
    ]
    everywhere = np.argwhere(np.ones(true.shape, bool))
    near = cdist(everywhere * spacing, np.array(surface) * spacing).min(axis=1) <= 2.5
    assert found.ravel().tolist() == near.tolist()


@pytest.mark.parametrize("value", [False, True])
def test_a_mask_without_a_boundary_has_no_region(value):
    mask = np.full((5, 6), value)
    region = near_boundary(mask, mask, geometry_of(MetaTensor(torch.zeros(3, 5, 6))), 3.0)
    assert len(region) == 2 and all(len(axis) == 0 for axis in region)


def test_background_far_away_does_not_drown_the_error():
    truth = torch.zeros(1, 60, 60, dtype=torch.uint8)
    truth[0, 28:32, 28:32] = 1
    sure = torch.nn.functional.one_hot(truth[0].long(), 3).permute(2, 0, 1).float() * 0.4 + 0.2  # 0.6, 0.2, 0.2
    grid = geometry_of(MetaTensor(torch.zeros(3, 60, 60)))
    near = BoundaryCalibration(CLASSES, margin=1)
    near.start()
    near.add(sure, truth, truth, grid)
    error = near.summary()["uncalibrated"]["liver"]["error"]
    # 12 pixels of the rim and the 4 inside at 0.6, 16 outside at 0.2: each is (or is not) liver for certain.
    assert error == pytest.approx((16 * 0.4 + 16 * 0.2) / 32)
    assert list(near.summary()["uncalibrated"]) == ["liver"]  # there is no lesion whose boundary could count
    truth[0, :, 30:] = UNKNOWN
    known = BoundaryCalibration(CLASSES, margin=1)
    known.start()
    known.add(sure, torch.where(truth == UNKNOWN, 0, truth), truth, grid)
    assert known.summary()["uncalibrated"]["liver"]["curve"][0]["voxels"] < 16


# --- temperature ---


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_was_applied_is_found(temperature):
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.03)


def test_a_weight_is_a_number_of_voxels():
    probabilities, truth = drawn(2.0, voxels=500)
    weights = np.random.default_rng(1).integers(1, 4, len(truth))
    repeated = fit_temperature(probabilities.repeat(weights, axis=0), truth.repeat(weights))
    assert fit_temperature(probabilities, truth, weights) == pytest.approx(repeated, rel=1e-3)


def test_softened_probabilities_are_those_of_the_logits_over_the_temperature():
    logits = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0)) * 5
    found = soften(logits.softmax(dim=0), 1.7, dim=0)
    torch.testing.assert_close(found, (logits / 1.7).softmax(dim=0))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_argmax_stays_also_of_resampled_probabilities(temperature):
    coarse = (8 * torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(0))).softmax(dim=1)
    fine = torch.nn.functional.interpolate(coarse, (50, 50), mode="bilinear")[0]
    softer = soften(fine, temperature, dim=0)
    assert torch.equal(softer.argmax(dim=0), fine.argmax(dim=0))
    torch.testing.assert_close(softer.sum(dim=0), torch.ones(50, 50))
    certain = torch.tensor([[1.0], [0.0]])
    assert torch.equal(soften(certain, temperature, dim=0), certain)


# --- beside the weights ---


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "models" / "model.pt"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


def test_the_file_travels_with_its_weights(model, caplog):
    assert read_temperature(model) is None
    path = write_temperature(model, 1.5, cases=3)
    assert path == model.parent / "model.temperature.json" == temperature_path(str(model))
    assert json.loads(path.read_text())["cases"] == 3
    probabilities = torch.rand(3, 4, 4).softmax(dim=0)
    softer = TemperatureScaled("pred", model_file=model)({"pred": probabilities, "other": 1})
    torch.testing.assert_close(softer["pred"], soften(probabilities, 1.5, dim=0))
    assert read_temperature(model) == 1.5 and not caplog.records
    model.write_bytes(b"other weights")
    with caplog.at_level(logging.WARNING):
        assert read_temperature(model) is None
    assert "belongs to other weights" in caplog.text
    untouched = TemperatureScaled("pred", model_file=model)({"pred": probabilities})["pred"]
    assert untouched is probabilities
    model.unlink()
    with pytest.raises(PyrasegError, match="There are no weights at"):
        read_temperature(model)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"temperature": 0, "weights_sha256": ""}'])
def test_a_file_without_a_temperature_is_refused(model, content):
    temperature_path(model).write_text(content)
    with pytest.raises(PyrasegError, match="holds no temperature"):
        read_temperature(model)


def run(handler: TemperatureFit, cases: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Let a handler see cases (probabilities, truth)."""

    def step(engine: Engine, case: int) -> list[dict]:
        probabilities, truth = cases[case]
        engine.state.batch = [{"original": MetaTensor(torch.zeros(3, *truth.shape[1:]))}]
        prediction = probabilities.argmax(dim=0, keepdim=True)
        return [{"pred": prediction, "truth": truth, "probabilities": probabilities}]

    engine = Engine(step)
    handler.attach(engine)
    engine.run(range(len(cases)))


def test_calibrating_writes_the_temperature_of_the_model(model):
    cases = []
    for seed in range(3):
        probabilities, truth = drawn(2.0, voxels=90 * 90, seed=seed)
        maps = torch.from_numpy(probabilities.T.reshape(3, 90, 90)).float(), torch.from_numpy(truth.reshape(1, 90, 90))
        cases.append(maps)
    run(TemperatureFit(model, class_names=CLASSES, margin=3, voxels=5000), cases)
    assert read_temperature(model) == pytest.approx(2.0, rel=0.05)
    found = BoundaryCalibration(CLASSES, margin=3, model_file=model)
    found.start()
    for probabilities, truth in cases:
        grid = geometry_of(MetaTensor(torch.zeros(3, 90, 90)))
        found.add(probabilities, probabilities.argmax(dim=0, keepdim=True), truth, grid)
    summary = found.summary()
    for name in CLASSES[1:]:
        assert summary["calibrated"][name]["error"] < 0.3 * summary["uncalibrated"][name]["error"]


def test_half_of_the_annotations_find_the_temperature_of_all():
    probabilities, truth = drawn(1.7, voxels=20_000, seed=5)
    annotated = np.ones((len(truth), 3), bool)
    annotated[::2, 1], annotated[1::2, 2] = False, False
    seen = np.where(annotated[np.arange(len(truth)), truth], truth, 0)
    assert fit_temperature(probabilities, seen, annotated=annotated) == pytest.approx(1.7, rel=0.05)
    assert fit_temperature(probabilities, seen) != pytest.approx(1.7, rel=0.2)
    everything = np.ones((len(truth), 3), bool)
    assert fit_temperature(probabilities, truth, annotated=everything) == pytest.approx(
        fit_temperature(probabilities, truth), rel=1e-6
    )


def test_nothing_to_calibrate_with_is_told(model):
    background = torch.zeros(1, 8, 8, dtype=torch.uint8)
    probabilities = torch.zeros(3, 8, 8)
    probabilities[0] = 1
    with pytest.raises(PyrasegError, match="calibration is not possible"):
        run(TemperatureFit(model, class_names=CLASSES, margin=3), [(probabilities, background)])
    assert not temperature_path(model).exists()
