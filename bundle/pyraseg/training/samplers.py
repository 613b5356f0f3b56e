# SPDX-License-Identifier: Apache-2.0
"""Which slices an epoch sees."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
from torch.utils.data import Sampler

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.data import Draw, SliceDataset


def require_batch(samples_per_epoch: int, batch_size: int, *, processes: int = 1) -> None:
    """Refuse epochs without a whole batch: what is left over is no step of a training.

    Raises:
        PyrasegError: a process has fewer samples than a batch takes.
    """
    if samples_per_epoch // processes < batch_size:
        shared = f", shared by {processes} processes," if processes > 1 else ""
        raise PyrasegError(
            f"An epoch of {samples_per_epoch} samples{shared} has no batch of {batch_size}: raise samples_per_epoch, "
            "or lower batch_size."
        )


class StagedSampler(Sampler[Draw]):
    """Draw a fixed number of slices an epoch, patient by patient, from the share of the patients that the stage allows.

    Every draw picks a patient, then one of the patient's cases, then a class that the case holds, then a slice that
    shows it: all patients weigh the same, however many slices they have, and so do the classes of a case, however few
    of its slices show them. Draws depend on the seed and the epoch alone. Of n processes each takes every n-th, so that
    their batches of a step, taken together, are the batch that one process of n times the batch size would see.

    Args:
        dataset: slices to draw from.
        samples_per_epoch: number of draws.
        background_fraction: share of the draws that show no foreground, where a case has such slices.
        seed: of the order of the patients and of the draws.
        rank: number of this process, from 0 on.
        processes: how many share the draws; what they do not share evenly is left out.
        batch_size: of each process; an epoch is to have one batch at least.
    """

    def __init__(
        self,
        dataset: SliceDataset,
        *,
        samples_per_epoch: int,
        background_fraction: float = 0.2,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
        batch_size: int = 1,
    ) -> None:
        if not 0 <= background_fraction <= 1 or samples_per_epoch < 1:
            raise PyrasegError(
                "background_fraction must lie in [0, 1] and samples_per_epoch be positive, "
                f"got {background_fraction} and {samples_per_epoch}."
            )
        require_batch(samples_per_epoch, batch_size, processes=processes)
        self.samples_per_epoch = samples_per_epoch
        self.rank = rank
        self.processes = processes
        self.background_fraction = background_fraction
        self.seed = seed
        names = sorted(set(dataset.patients))
        shuffled = np.random.default_rng(seed).permutation(len(names))
        #: Cases of each patient, in an order whose first share is the share of every stage: smaller ones are nested.
        self.patients = [[i for i, p in enumerate(dataset.patients) if p == names[n]] for n in shuffled]
        #: Slices of each case without foreground, and with each class that it holds.
        self.empty = [np.flatnonzero(~present[:, 1:].any(axis=1)) for present in dataset.present]
        self.showing = [[np.flatnonzero(c) for c in present[:, 1:].T if c.any()] for present in dataset.present]
        self.set_epoch(1, patient_fraction=1.0, augmentation_strength=1.0)

    def set_epoch(self, epoch: int, *, patient_fraction: float, augmentation_strength: float) -> None:
        """Choose the draws of the next pass: of `epoch`, from the first `patient_fraction` of the patients."""
        self.epoch = epoch
        self.allowed = self.patients[: max(1, int(np.ceil(patient_fraction * len(self.patients) - 1e-9)))]
        self.augmentation_strength = augmentation_strength

    def __len__(self) -> int:
        return self.samples_per_epoch // self.processes

    def __iter__(self) -> Iterator[Draw]:
        return islice(self._draws(), self.rank, len(self) * self.processes, self.processes)

    def _draws(self) -> Iterator[Draw]:
        random = np.random.default_rng([self.seed, self.epoch])
        for _ in range(self.samples_per_epoch):
            cases = self.allowed[random.integers(len(self.allowed))]
            case = cases[random.integers(len(cases))]
            empty, showing = self.empty[case], self.showing[case]
            wants_empty = random.random() < self.background_fraction
            slices = empty if len(empty) and (wants_empty or not showing) else showing[random.integers(len(showing))]
            yield Draw(case, int(random.choice(slices)), int(random.integers(2**31)), self.augmentation_strength)
