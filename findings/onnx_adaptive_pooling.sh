#!/usr/bin/env bash
# Adaptive average pooling, exported to ONNX with dynamic sizes, is wrong at other sizes, and nothing says so.
#
# Surprise: torch.onnx.export (the dynamo exporter) takes adaptive_avg_pool2d with height and width marked as dynamic.
#   The graph declares them dynamic, ONNX Runtime accepts any image, and the answer is right up to about the traced
#   size. For a larger image, errors are as large as the output's own standard deviation.
# Why: the pooling is decomposed into a sum over the window, and that sum is unrolled to the window's width at the
#   traced size. A larger window is summed in part and divided by its whole area.
# Hurt: whoever exports a pyramid pooling head (PSPNet, LR-ASPP, DeepLab with image pooling). Comparing masks hides
#   it: a network without training flips few pixels or none, so compare logits, at sizes that were not traced.
# Source: PyTorch 2.13.0, the decomposition of aten._adaptive_avg_pool2d used by torch.onnx.export(dynamo=True).
# Pyraseg: when exporting, its pyramid pooling multiplies by averaging matrices that are made from the run-time shape;
#   an export is compared with PyTorch at six sizes before anything is written.
set -euo pipefail

packages=(torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1 numpy==2.4.6)
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
import warnings

import numpy as np
import onnxruntime
import torch
from torch.export import Dim


class Pyramid(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.classify = torch.nn.Conv2d(32, 2, 1)

    def forward(self, image):
        features = self.features(image)
        pooled = torch.nn.functional.adaptive_avg_pool2d(features, 3)
        pooled = torch.nn.functional.interpolate(pooled, features.shape[-2:], mode="bilinear")
        return self.classify(torch.cat([features, pooled], 1))


warnings.simplefilter("ignore", FutureWarning)  # about torch's own use of its pytrees
torch.manual_seed(0)
network = Pyramid().eval()
dynamic = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
torch.onnx.export(
    network, (torch.rand(2, 3, 32, 32),), "pyramid.onnx", dynamo=True, dynamic_shapes=dynamic, verbose=False
)
session = onnxruntime.InferenceSession("pyramid.onnx")
(entry,) = session.get_inputs()
print("Expected: one graph for all sizes, since its input is", entry.shape)
print("Seen, largest difference of logits from PyTorch:")
errors = {}
for size in ((32, 32), (48, 48), (64, 96), (96, 96)):
    image = torch.rand(1, 3, *size)
    with torch.no_grad():
        truth = network(image).numpy()
    logits = session.run(None, {entry.name: image.numpy()})[0]
    errors[size] = float(np.abs(logits - truth).max())
    flipped = float((logits.argmax(1) != truth.argmax(1)).mean())
    print(f"  {size}: {errors[size]:.1e} (standard deviation {truth.std():.2f}, {flipped:.1%} of the pixels flip)")
traced = errors.pop((32, 32))
sys.exit(0 if traced < 1e-5 and min(errors.values()) > 1e-2 else "The behavior has changed.")
PYTHON
"$python" finding.py
