#!/usr/bin/env bash
# MONAI's random transforms in PyTorch's DataLoader with workers: every epoch has the augmentation of the first one.
#
# Surprise: with num_workers=0 all is well. With two workers each of them draws the same numbers as the other, and
#   each epoch draws those of the epoch before: a sample is seen in one single variant for the whole training.
# Why: each MONAI transform owns a numpy RandomState. Workers are copies of the main process, made anew every epoch,
#   and PyTorch seeds the generators it knows in them (its own, Python's, numpy's global one), which that is none of.
#   MONAI's own DataLoader adds a worker_init_fn that does. persistent_workers=True ends the repetition, not the equal
#   numbers.
# Hurt: whoever takes MONAI's transforms and PyTorch's loader. The training overfits and nothing shows why.
# Source: MONAI 1.6.1, monai.transforms.Randomizable; PyTorch 2.13.0, torch.utils.data.DataLoader.
# Pyraseg: the sampler yields a seed with each index, and the dataset sets the state of its transforms by it.
set -euo pipefail

packages=(monai==1.6.1 torch==2.13.0 numpy==2.4.6)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$folder/venv"
    python=$folder/venv/bin/python
    "$python" -m pip install --quiet "${packages[@]}"
fi
cd "$folder"
"$python" - "${packages[@]}" <<'PYTHON'
import sys
from importlib.metadata import PackageNotFoundError, version

for name, pinned in (package.split("==") for package in sys.argv[1:]):
    try:
        installed = version(name)
    except PackageNotFoundError:
        installed = "is not installed"
    print(name, installed)
    if installed.partition("+")[0] != pinned:
        print(f"This finding is about {name} {pinned}.")
        sys.exit(2)
PYTHON
cat > finding.py <<'PYTHON'
import sys

import monai.data
import torch
import torch.utils.data
from monai.transforms import Compose, RandScaleIntensity

torch.manual_seed(0)
transform = Compose([RandScaleIntensity(0.5, prob=1)]).set_random_state(0)
dataset = monai.data.Dataset([torch.ones(1, 2, 2)] * 8, transform)


def epochs(loader):
    """Return the factors that three epochs of eight samples were multiplied by."""
    return [[float(batch.flatten()[0]) for batch in loader] for _ in range(3)]


def different(factors):
    return len({factor for epoch in factors for factor in epoch})


print("Expected: 24 different factors in three epochs of eight samples")
seen = {}
for name, loader in {"torch": torch.utils.data.DataLoader, "MONAI": monai.data.DataLoader}.items():
    for workers in (0, 2):
        factors = epochs(loader(dataset, batch_size=1, num_workers=workers))
        seen[name, workers] = factors
        print(f"Seen, {name}'s DataLoader, {workers} workers: {different(factors)} different factors")
for number, epoch in enumerate(seen["torch", 2]):
    print(f"  torch, 2 workers, epoch {number}:", *(f"{factor:.3f}" for factor in epoch))
first, second, third = seen["torch", 2]
as_described = first == second == third and first[::2] == first[1::2] and different(seen["MONAI", 2]) > 20
sys.exit(0 if as_described else "The behavior has changed.")
PYTHON
"$python" finding.py
