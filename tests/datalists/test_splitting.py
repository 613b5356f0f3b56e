# SPDX-License-Identifier: Apache-2.0
"""Splits by patient whose parts hold their share of every class."""

import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.splitting import stratified_parts

SHARES = (0.7, 0.15, 0.15)


def cohort(seed: int, patients: int = 100) -> tuple[list[str], list[set[str]]]:
    """Return the patients and classes of patients with 1 to 6 cases each; classes are common, rare and very rare."""
    random = np.random.default_rng(seed)
    names, classes = [], []
    for number in range(patients):
        held = {
            name for name, share in (("common", 0.8), ("rare", 0.2), ("very rare", 0.06)) if random.random() < share
        }
        for _ in range(random.integers(1, 7)):
            names.append(f"p{number}")
            classes.append({name for name in held if random.random() < 0.9})
    return names, classes


def shares_of(parts: np.ndarray, chosen: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(parts[chosen], minlength=count) / chosen.sum()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shares", [SHARES, (0.2,) * 5])
def test_every_part_has_its_share_of_every_class(seed, shares):
    patients, classes = cohort(seed)
    parts = stratified_parts(patients, classes, shares, seed)
    of_patient: dict[str, set[int]] = {}
    for patient, part in zip(patients, parts, strict=True):
        of_patient.setdefault(patient, set()).add(int(part))
    assert all(len(found) == 1 for found in of_patient.values())
    for held, tolerance in ((None, 0.02), ("common", 0.03), ("rare", 0.08)):
        chosen = np.array([held is None or held in own for own in classes])
        np.testing.assert_allclose(shares_of(parts, chosen, len(shares)), shares, atol=tolerance, err_msg=str(held))


def test_better_than_chance():
    """Compare the shares of the rare classes with those of splits at random, by the largest miss."""

    def miss(parts: np.ndarray, classes: list[set[str]]) -> float:
        chosen = np.array(["rare" in own for own in classes])
        return np.abs(shares_of(parts, chosen, 3) - SHARES).max()

    stratified, chance = [], []
    for seed in range(10):
        patients, classes = cohort(seed)
        stratified.append(miss(stratified_parts(patients, classes, SHARES, seed), classes))
        random = np.random.default_rng(seed)
        part_of = {patient: random.choice(3, p=SHARES) for patient in sorted(set(patients))}
        chance.append(miss(np.array([part_of[patient] for patient in patients]), classes))
    assert np.mean(stratified) < 0.4 * np.mean(chance)


def test_the_seed_decides_and_nothing_else():
    patients, classes = cohort(0)
    first = stratified_parts(patients, classes, SHARES, 1)
    np.testing.assert_array_equal(first, stratified_parts(patients, classes, SHARES, 1))
    assert (first != stratified_parts(patients, classes, SHARES, 2)).any()


def test_patients_with_many_cases_are_spread_like_the_others():
    patients = [f"p{n}" for n in range(200)] + [f"p{n}" for n in range(40)]  # 40 have two cases
    parts = stratified_parts(patients, [{"a"}] * 240, SHARES, 0)
    np.testing.assert_allclose(shares_of(parts, np.arange(240) >= 200, 3), SHARES, atol=0.05)


def test_a_patient_with_half_of_all_cases_is_for_training():
    for seed in range(10):
        parts = stratified_parts(["big"] * 20 + [f"p{n}" for n in range(20)], [{"a"}] * 40, SHARES, seed)
        assert set(parts[:20]) == {0}


@pytest.mark.parametrize("patients", [3, 4, 7])
def test_no_part_stays_empty(patients):
    for seed in range(10):
        parts = stratified_parts([f"p{n}" for n in range(patients)], [set()] * patients, SHARES, seed)
        assert set(parts) == {0, 1, 2}


def test_a_part_without_a_share_stays_empty():
    parts = stratified_parts([f"p{n}" for n in range(10)], [{"a"}] * 10, (0.8, 0.2, 0), 0)
    assert np.bincount(parts, minlength=3).tolist() == [8, 2, 0]


def test_too_few_patients_are_refused():
    with pytest.raises(PyrasegError, match="2 patients cannot be split into 3 parts"):
        stratified_parts(["a", "a", "b"], [set()] * 3, SHARES, 0)
