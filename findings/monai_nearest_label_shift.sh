#!/usr/bin/env bash
# MONAI's Resized with ("bilinear", "nearest") moves the label away from its image, by one pixel of 300 and more.
#
# Surprise: the usual pair of modes puts the label up to half a target pixel towards the lower right of the image. An
#   organ that fits its image to the pixel does not fit any more, so training teaches the offset, and scores hide it,
#   since the truth was moved with it.
# Why: torch's "nearest" takes the source pixel floor(i * scale) rather than the one at the pixel's center. It is kept
#   so for compatibility; "nearest-exact" is the right one. "nearest" is what most training configs name for labels.
# Hurt: whoever resizes images and masks by the same call. A disk that goes from 300 to 60 pixels and back keeps a
#   Dice of 0.970 by "nearest" and 0.982 by "nearest-exact".
# Source: MONAI 1.6.1, monai.transforms.Resized; PyTorch 2.13.0, torch.nn.functional.interpolate.
# Pyraseg: labels are resized by "nearest-exact".
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
from monai.transforms import Resize, Resized


def middle(image):
    """Return the center of mass along the rows of a picture that is 0 outside of an organ."""
    return float((image.sum(1) * torch.arange(len(image))).sum() / image.sum())


def dice(a, b):
    return float(2 * (a * b).sum() / (a.sum() + b.sum()))


rows = torch.arange(300) - 149.5
organ = ((rows[:, None] ** 2 + rows**2) < 60**2).float()[None]
print("Expected: image and label, which are the same disk, stay in the same place")
worst = {"nearest": 0.0, "nearest-exact": 0.0}
for size in (256, 128, 100, 60):
    for mode in worst:
        pair = Resized(("image", "label"), (size, size), mode=("bilinear", mode))({"image": organ, "label": organ})
        shift = (middle(pair["label"][0]) - middle(pair["image"][0])) * 300 / size
        back = dice(Resize((300, 300), mode=mode)(pair["label"]), organ)
        print(f"Seen, 300 -> {size}, {mode}: the label moved by {shift:+.2f} pixels; there and back Dice {back:.3f}")
        worst[mode] = max(worst[mode], abs(shift))
sys.exit(0 if worst["nearest"] > 1.5 and worst["nearest-exact"] < 0.2 else "The behavior has changed.")
PYTHON
"$python" finding.py
