#!/usr/bin/env bash
# MONAI's FocalLoss(ignore_index=...) is as many times too large as there are classes.
#
# Surprise: naming an ignored value multiplies the loss by the number of channels, even if no pixel has that value.
# Why: with "mean" reduction the sum over pixels and classes is divided by the number of pixels kept, since the mask
#   has one channel; without `ignore_index` it is divided by pixels times classes.
# Hurt: whoever marks unlabeled pixels as 255. Beside a Dice term the focal term suddenly weighs C times as much, and
#   losses of runs with and without the option do not compare.
# Source: MONAI 1.6.1, monai.losses.FocalLoss.forward.
# Pyraseg: its losses leave ignored pixels out of the sum and of the mean; the loss is that of the labeled pixels
#   alone.
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

import torch
from monai.losses import FocalLoss

torch.manual_seed(0)
print("Expected: with a part of the pixels ignored, the loss of the other pixels (ratio 1)")
print("Seen:")
as_described = True
for classes in (2, 3, 8):
    logits = torch.randn(2, classes, 16, 16)
    labels = torch.randint(0, classes, (2, 1, 16, 16))
    half = labels.clone()
    half[..., 8:] = 255
    for use_softmax in (True, False):
        plain = FocalLoss(use_softmax=use_softmax, to_onehot_y=True)
        ignoring = FocalLoss(use_softmax=use_softmax, to_onehot_y=True, ignore_index=255)
        nothing_ignored = (ignoring(logits, labels) / plain(logits, labels)).item()
        half_ignored = (ignoring(logits, half) / plain(logits[..., :8], labels[..., :8])).item()
        ratios = f"half of the pixels ignored {half_ignored:.3f}, none ignored {nothing_ignored:.3f}"
        print(f"  {classes} classes, use_softmax={use_softmax}, ratio with {ratios}")
        as_described &= abs(half_ignored - classes) < 1e-3 and abs(nothing_ignored - classes) < 1e-3
sys.exit(0 if as_described else "The behavior has changed.")
PYTHON
"$python" finding.py
