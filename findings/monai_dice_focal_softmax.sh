#!/usr/bin/env bash
# MONAI's DiceFocalLoss(softmax=True) takes the softmax for its Dice term and a sigmoid for its focal term.
#
# Surprise: the focal term treats every class as a yes-or-no question of its own. A softmax does not change when a
#   constant is added to all logits; this loss grows without bound.
# Why: the loss hands `softmax` to DiceLoss and builds FocalLoss without `use_softmax`, whose default is False; the
#   class has no argument to set it.
# Hurt: whoever trains exclusive classes with it, and whoever compares its value with the focal loss of a paper.
# Source: MONAI 1.6.1, monai.losses.DiceFocalLoss.__init__.
# Pyraseg: its own DiceFocalLoss takes the focal term of the softmax; tests hold it to the closed form.
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
from monai.losses import DiceFocalLoss, FocalLoss

torch.manual_seed(0)
logits = 2 * torch.randn(2, 4, 16, 16)
labels = torch.randint(0, 4, (2, 1, 16, 16))
focal_part = DiceFocalLoss(softmax=True, to_onehot_y=True, lambda_dice=0)
dice_part = DiceFocalLoss(softmax=True, to_onehot_y=True, lambda_focal=0)
by_softmax = FocalLoss(use_softmax=True, to_onehot_y=True)
by_sigmoid = FocalLoss(use_softmax=False, to_onehot_y=True)

value = focal_part(logits, labels).item()
print("Expected: the focal term of the softmax,", round(by_softmax(logits, labels).item(), 4))
print("Seen:", round(value, 4), "which is that of the sigmoid,", round(by_sigmoid(logits, labels).item(), 4))

shifted = logits + 20
print("Expected: adding 20 to all logits of a pixel changes nothing, for the softmax is the same")
print("Seen: Dice term", round(dice_part(logits, labels).item(), 4), "->", round(dice_part(shifted, labels).item(), 4))
print("      focal term", round(value, 4), "->", round(focal_part(shifted, labels).item(), 4))

is_sigmoid = torch.isclose(focal_part(logits, labels), by_sigmoid(logits, labels))
grows = focal_part(shifted, labels) > 10 * value
sys.exit(0 if is_sigmoid and grows else "The behavior has changed.")
PYTHON
"$python" finding.py
