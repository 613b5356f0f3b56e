# SPDX-License-Identifier: Apache-2.0
"""Which images are unlike those of a training: what is learned from these, and where it is kept."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import t
from torch import nn

from bundle.pyraseg.core import ModelSettings, PyrasegError, freeing, protecting_inputs
from bundle.pyraseg.inference import read_guard
from bundle.pyraseg.networks import restore, shrink
from bundle.pyraseg.runtime import image_statistics
from bundle.pyraseg.training import (
    add_guard,
    fit_guard,
    guarding,
    load_model,
    read_model,
    require_settings,
    save_model,
    start_from,
)

SETTINGS = ModelSettings({"class_names": ["background", "disk"]}, {"class_names": "class_names"})


def disk(seed: int) -> np.ndarray:
    """Return a bright disk somewhere near the middle of a dark, grained plane, (1, 48, 64)."""
    random = np.random.default_rng(seed)
    x, y = np.indices((48, 64))
    across, along, radius = *random.uniform(-4, 4, 2), random.uniform(10, 16)
    inside = np.hypot(x - 24 - across, y - 32 - along) < radius
    picture = np.where(inside, 0.6, -0.5) + random.normal(0, 0.1, inside.shape)
    return gaussian_filter(picture, 0.7)[None].astype(np.float32)


def foreign(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "noise": random.normal(0, 0.5, (1, 48, 64)).astype(np.float32),
        "inverted": -disk(seed),
        "empty": np.zeros((1, 48, 64), np.float32),
        "stripes": np.sin(np.arange(64) * random.uniform(0.5, 1.5), dtype=np.float32)[None, None].repeat(48, axis=1),
        "cut off": np.roll(disk(seed), 32, axis=2),
    }


class Training:
    """Disks as a training has them, a plane or a volume of planes a case."""

    def __init__(self, cases: int, depth: int = 1, first: int = 0) -> None:
        self.entries = range(cases)
        self.depth, self.first = depth, first

    def slices_of(self, case: int) -> np.ndarray:
        return np.stack([disk(self.first + self.depth * case + number) for number in range(self.depth)])

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        planes = torch.from_numpy(self.slices_of(index))
        return {"image": planes[0] if self.depth == 1 else planes.permute(1, 2, 3, 0)}


def guarded(folder: Path, training: Training, validation: Training) -> Path:
    network = nn.Conv2d(1, 2, 1)
    save_model(network.state_dict(), folder / "best.pt", settings=SETTINGS)
    add_guard(folder / "best.pt", training=training, validation=validation, seed=0)
    return folder / "best.pt"


def test_it_knows_images_of_its_kind_and_no_others(tmp_path):
    guard = read_guard(guarded(tmp_path, Training(150), Training(40, first=1000)))
    assert guard is not None
    own = [guard.unlike([image_statistics(disk(2000 + seed))]) for seed in range(200)]
    assert 0 < np.mean(np.array(own) > 1) < 0.06  # 2 in 100 are meant to be
    for seed in range(10):
        for name, image in foreign(seed).items():
            assert guard.unlike([image_statistics(image)]) > 1.5, name


def test_of_a_volume_its_planes_are_learned(tmp_path):
    guard = read_guard(guarded(tmp_path, Training(30, depth=4), Training(12, depth=4, first=1000)))
    assert guard is not None
    volume = [image_statistics(disk(3000 + number)) for number in range(4)]
    assert guard.unlike(volume) < 1 < guard.unlike([image_statistics(foreign(number)["noise"]) for number in range(4)])


def test_of_many_cases_the_threshold_is_one_of_theirs_whatever_their_distribution():
    random = np.random.default_rng(0)
    beyond = []
    for _ in range(2000):
        values = random.standard_cauchy(100)
        beyond.append(values[99] > guarding.upper_bound(values[:99]))
    assert np.mean(beyond) == pytest.approx(0.02, abs=0.007)
    assert guarding.upper_bound(np.arange(1, 49)) > 49 == guarding.upper_bound(np.arange(1, 50))


def test_of_few_cases_it_is_the_bound_of_a_prediction_interval():
    planes = np.stack([image_statistics(disk(seed)) for seed in range(40)])
    judged = [[image_statistics(disk(1000 + seed))] for seed in range(5)]
    guard = fit_guard(planes, judged, channels=1)
    logs = np.log([float(guard.distances(np.stack(case))[0]) for case in judged])
    expected = np.exp(logs.mean() + t.ppf(0.98, 4) * logs.std(ddof=1) * np.sqrt(1.2))
    assert guard.threshold == pytest.approx(expected, rel=1e-6)
    assert np.median(guard.distances(planes)) == pytest.approx(1, abs=0.25)


def test_each_kind_of_statistics_has_the_same_weight():
    planes = np.stack([image_statistics(disk(seed)) for seed in range(40)])
    guard = fit_guard(planes, [[planes[0]], [planes[1]]], channels=1)
    scaled = ((planes - guard.center) * guard.scale) ** 2
    shares = [part.sum(axis=1).mean() for part in np.split(scaled, np.cumsum([64, 13, 20]), axis=1)]
    np.testing.assert_allclose(shares, 1, rtol=1e-4)
    np.testing.assert_allclose(guard.axes @ guard.axes.T, np.eye(len(guard.axes)), atol=2e-3)


def test_the_weights_stay_what_they_were_but_for_the_guard(tmp_path):
    network = nn.Conv2d(1, 2, 1)
    save_model(network.state_dict(), tmp_path / "best.pt", settings=SETTINGS)
    before = (tmp_path / "best.pt").stat().st_size
    for _ in range(2):  # a second one replaces the first
        add_guard(tmp_path / "best.pt", training=Training(300), validation=Training(8, first=500), seed=0)
    assert (tmp_path / "best.pt").stat().st_size - before < 200_000
    weights, settings = read_model(tmp_path / "best.pt")
    assert settings == SETTINGS.values
    loaded = load_model(nn.Conv2d(1, 2, 1), tmp_path / "best.pt", settings=SETTINGS, remedy="")
    for name, value in network.state_dict().items():
        assert torch.equal(weights[name], value) and torch.equal(loaded.state_dict()[name], value)


def test_weights_that_are_stored_small_stay_small(tmp_path):
    network = nn.Conv2d(64, 64, 3)
    small = shrink(network.state_dict())
    torch.save(small, tmp_path / "model.pt")
    before = (tmp_path / "model.pt").stat().st_size
    add_guard(tmp_path / "model.pt", training=Training(20), validation=Training(4, first=100), seed=0)
    guard = read_guard(tmp_path / "model.pt")
    assert guard is not None
    assert (tmp_path / "model.pt").stat().st_size < before + len(guard.text) + 1000
    assert torch.equal(read_model(tmp_path / "model.pt")[0]["weight"], restore(small)["weight"])


def test_another_training_that_starts_from_the_weights_has_no_guard_yet(tmp_path):
    path = guarded(tmp_path, Training(20), Training(4, first=100))
    network = nn.Conv2d(1, 2, 1)
    start_from(path, networks=[network], settings=SETTINGS)
    save_model(network.state_dict(), tmp_path / "other.pt", settings=SETTINGS)
    assert read_guard(tmp_path / "other.pt") is None


@pytest.mark.parametrize(("cases", "validated"), [(7, 4), (20, 1)])
def test_too_few_images_teach_nothing(cases, validated, tmp_path, caplog):
    path = guarded(tmp_path, Training(cases), Training(validated, first=100))
    assert read_guard(path) is None
    assert f"The model gets no guard: {cases} images of the training and {validated} cases" in caplog.text


def test_many_are_drawn_by_the_seed(tmp_path, monkeypatch):
    for name, most in (("MOST_CASES", 10), ("MOST_PLANES", 20), ("MOST_VALIDATED", 3)):
        monkeypatch.setattr(guarding, name, most)
    random = [np.random.default_rng(seed) for seed in (0, 0, 1)]
    drawn = [np.stack(list(guarding._planes(Training(30, depth=5), one))) for one in random]
    assert len(drawn[0]) == 20 and np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_weights_of_another_training_are_refused(tmp_path):
    path = guarded(tmp_path, Training(20), Training(4, first=100))
    require_settings(path, settings=SETTINGS, remedy="")
    other = ModelSettings({"class_names": ["background", "square"]}, {"class_names": "class_names"})
    with pytest.raises(PyrasegError, match="was trained with other settings"):
        require_settings(path, settings=other, remedy="")
    with pytest.raises(PyrasegError, match=r"There is no trained model at .*none.pt. Train one"):
        require_settings(tmp_path / "none.pt", settings=SETTINGS, remedy="Train one.")
    with freeing(), protecting_inputs():  # what was read is not protected from the guard
        require_settings(path, settings=SETTINGS, remedy="")
        add_guard(path, training=Training(20), validation=Training(4, first=100), seed=1)


def test_a_run_without_a_best_epoch_leaves_no_file(tmp_path):
    add_guard(tmp_path / "none.pt", training=Training(20), validation=Training(4, first=100), seed=0)
    assert not (tmp_path / "none.pt").exists()  # `promote` says so
