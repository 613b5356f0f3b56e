# SPDX-License-Identifier: Apache-2.0
"""Which slices an epoch sees."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from monai.transforms import Compose

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.data.slices import SliceDataset
from bundle.pyraseg.training.samplers import StagedSampler

#: Patient of each case, its slices, those with foreground and those with the second class besides the first: p00 has
#: three cases, p01 no slice without foreground, p02 none with it, p03 one with the second class.
CASES = [
    ("p00", 2, 1, 0),
    ("p00", 40, 20, 0),
    ("p00", 4, 2, 0),
    ("p01", 5, 5, 0),
    ("p02", 6, 0, 0),
    ("p03", 10, 8, 1),
    *((f"p{n:02}", 10, 4, 0) for n in range(4, 20)),
]


def make_case(item: dict) -> dict:
    """Return a volume of 2x2 pixels as the file at item["image"] asks for."""
    slices, foreground, rare = map(int, Path(item["image"]).read_text().split())
    label = np.zeros((1, 2, 2, slices))
    label[..., :foreground] = 1
    label[:, 0, 0, :rare] = 2
    return {"image": label, "label": label}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> SliceDataset:
    folder = tmp_path_factory.mktemp("cases")
    items = []
    for index, (patient, *numbers) in enumerate(CASES):
        (folder / str(index)).write_text(" ".join(map(str, numbers)))
        items.append({"image": str(folder / str(index)), "label": str(folder / str(index)), "patient": patient})
    return SliceDataset(items, make_case, augmentation=Compose([]), cache_dir=folder / "cache")


def patients(sampler: StagedSampler, *, epoch: int = 1, data: float = 1.0) -> Counter[str]:
    sampler.set_epoch(epoch, patient_fraction=data, augmentation_strength=1.0)
    return Counter(CASES[draw.case][0] for draw in sampler)


@pytest.mark.parametrize(("data", "expected"), [(0.05, 1), (0.2, 4), (0.6, 12), (0.61, 13), (1.0, 20), (1e-9, 1)])
def test_a_share_is_a_share_of_the_patients(dataset, data, expected):
    sampler = StagedSampler(dataset, samples_per_epoch=2000)
    assert len(patients(sampler, data=data)) == expected


@pytest.mark.parametrize("seed", range(5))
def test_smaller_shares_lie_inside_larger_ones_in_every_epoch(dataset, seed):
    sampler = StagedSampler(dataset, samples_per_epoch=2000, seed=seed)
    small, middle, full = (set(patients(sampler, data=data)) for data in (0.2, 0.6, 1.0))
    assert small < middle < full
    assert all(set(patients(sampler, epoch=epoch, data=0.2)) == small for epoch in range(2, 6))


def test_the_share_depends_on_the_seed(dataset):
    shares = {frozenset(patients(StagedSampler(dataset, samples_per_epoch=500, seed=n), data=0.2)) for n in range(5)}
    assert len(shares) > 1


def test_patients_weigh_the_same_however_many_slices_they_have(dataset):
    sampler = StagedSampler(dataset, samples_per_epoch=20_000)
    counts = patients(sampler)
    # Binomial with n = 20000 and p = 1/20: mean 1000, standard deviation 31.
    assert len(counts) == 20 and all(abs(count - 1000) < 5 * 31 for count in counts.values())
    cases = Counter(draw.case for draw in sampler)
    assert all(abs(cases[case] - 1000 / 3) < 5 * 18 for case in range(3))  # the cases of p00


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_empty_share_is_met_where_a_case_has_both_kinds(dataset, share):
    sampler = StagedSampler(dataset, samples_per_epoch=10_000, background_fraction=share)
    mixed = [draw for draw in sampler if CASES[draw.case][0] not in ("p01", "p02")]
    empty = sum(draw.slice >= CASES[draw.case][2] for draw in mixed) / len(mixed)
    assert empty == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / len(mixed)))


def test_every_slice_of_a_case_of_one_kind_is_drawn(dataset):
    sampler = StagedSampler(dataset, samples_per_epoch=5000, background_fraction=0.3)
    for case, slices in ((3, 5), (4, 6)):
        assert {draw.slice for draw in sampler if draw.case == case} == set(range(slices))


def test_classes_of_a_case_weigh_the_same_however_few_slices_show_them(dataset):
    sampler = StagedSampler(dataset, samples_per_epoch=40_000, background_fraction=0.2)
    slices = [draw.slice for draw in sampler if draw.case == 5]
    both = slices.count(0) / len(slices)  # drawn for the second class always, for the first as one of its 8 slices
    expected = 0.8 * (1 / 2 + 1 / 2 * 1 / 8)
    assert both == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / len(slices)))


def test_draws_depend_on_the_seed_and_the_epoch_alone(dataset):
    def draws(seed: int, epochs: list[int]) -> list:
        sampler = StagedSampler(dataset, samples_per_epoch=50, seed=seed)
        for epoch in epochs:
            sampler.set_epoch(epoch, patient_fraction=0.6, augmentation_strength=0.5)
            result = list(sampler)
        return result

    assert draws(1, [1, 2, 3]) == draws(1, [3])  # a resumed run finds its place
    assert draws(1, [3]) != draws(1, [4])
    assert draws(1, [3]) != draws(2, [3])


def test_an_epoch_has_a_fixed_number_of_draws_with_seeds_of_their_own(dataset):
    sampler = StagedSampler(dataset, samples_per_epoch=64)
    for data in (0.05, 1.0):
        sampler.set_epoch(2, patient_fraction=data, augmentation_strength=0.3)
        draws = list(sampler)
        assert len(draws) == len(sampler) == 64
        assert len({draw.seed for draw in draws}) == 64
        assert {draw.strength for draw in draws} == {0.3}
        assert all(0 <= draw.slice < CASES[draw.case][1] for draw in draws)


@pytest.mark.parametrize(
    "options", [{"background_fraction": -0.1}, {"background_fraction": 1.1}, {"samples_per_epoch": 0}]
)
def test_refused_options(dataset, options):
    with pytest.raises(PyrasegError, match="background_fraction must lie in"):
        StagedSampler(dataset, **{"samples_per_epoch": 1, **options})


@pytest.mark.parametrize(("samples", "processes"), [(64, 2), (67, 3), (64, 1)])
def test_the_batches_of_all_processes_are_the_batch_of_one(dataset, samples, processes):
    def draws(rank: int, count: int) -> list:
        sampler = StagedSampler(dataset, samples_per_epoch=samples, seed=1, rank=rank, processes=count)
        sampler.set_epoch(2, patient_fraction=0.6, augmentation_strength=0.5)
        assert len(list(sampler)) == len(sampler) == samples // count
        return list(sampler)

    shares = [draws(rank, processes) for rank in range(processes)]
    whole, batch = draws(0, 1), 4
    for step in range(samples // processes // batch):
        together = {draw for share in shares for draw in share[step * batch : (step + 1) * batch]}
        assert together == set(whole[step * batch * processes : (step + 1) * batch * processes])


def test_more_processes_than_samples_are_refused(dataset):
    with pytest.raises(PyrasegError, match=r"An epoch of 2 samples, shared by 3 processes, has no batch of 1"):
        StagedSampler(dataset, samples_per_epoch=2, processes=3)


@pytest.mark.parametrize(("samples", "batch", "processes"), [(4, 8, 1), (16, 8, 3), (1, 2, 1)])
def test_an_epoch_without_a_whole_batch_is_refused(dataset, samples, batch, processes):
    with pytest.raises(PyrasegError, match=rf"An epoch of {samples} samples.* has no batch of {batch}: raise"):
        StagedSampler(dataset, samples_per_epoch=samples, processes=processes, batch_size=batch)
    StagedSampler(dataset, samples_per_epoch=batch * processes, processes=processes, batch_size=batch)
