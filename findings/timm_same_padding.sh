#!/usr/bin/env bash
# timm's `tf_` encoders move what they see by up to 31 pixels when an image grows by one row and one column.
#
# Surprise: in `tf_efficientnet_lite0`, the pixel of the deepest map looks at another place of the image for each
#   size. In `efficientnet_lite0`, the same network with ordinary padding, it never moves.
# Why: TensorFlow's "SAME" padding depends on the size: an odd side is padded on both sides, an even one at its end
#   alone. Each of the five strided layers decides anew, and what they decide adds up.
# Hurt: whoever trains at one size and predicts at another, as slices of all sizes make usual. Masks end up pixels
#   beside the organ. Here organs lay 2 to 3 pixels off at 137 x 140 after training at 160 x 160; moving them back
#   raised the liver's Dice from 0.85 to 0.91.
# Source: timm 1.0.31, timm.layers.Conv2dSame, and the models whose names begin with tf_.
# Pyraseg: networks repeat the last row and column up to a multiple of 32 and crop the logits.
set -euo pipefail

packages=(timm==1.0.31 torch==2.13.0 torchvision==0.28.0 numpy==2.4.6)
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

try:
    import torchvision  # noqa: F401 timm needs it
except RuntimeError:  # a CPU build of PyTorch beside a torchvision for CUDA: declare what its compiled part would bring
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import timm


def center(network, side):
    """Return where the middle pixel of the deepest map looks, in pixels beside the middle of its own 32 x 32 block."""
    image = torch.full((1, 3, side, 64), 1e-6, requires_grad=True)
    deepest = network(image)[-1]
    row = deepest.shape[2] // 2
    (gradient,) = torch.autograd.grad(deepest[0, 0, row, 0], image)
    weights = gradient[0, 0].sum(1)
    return float((weights * torch.arange(side)).sum() / weights.sum()) - (32 * row + 15.5)


print("Expected: the same place for every size")
moved = {}
for name in ("efficientnet_lite0", "tf_efficientnet_lite0"):
    network = timm.create_model(name, pretrained=False, features_only=True).eval()
    for module in network.modules():  # every filter an average, so that the receptive field has a plain center
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    places = {side: center(network, side) for side in (1024, 1025, 1033, 1036, 1056)}
    moved[name] = max(places.values()) - min(places.values())
    print(f"Seen, {name}:", ", ".join(f"{side} rows: {place:+.1f}" for side, place in places.items()))
as_described = moved["efficientnet_lite0"] < 0.1 and moved["tf_efficientnet_lite0"] > 30
sys.exit(0 if as_described else "The behavior has changed.")
PYTHON
"$python" finding.py
