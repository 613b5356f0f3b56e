#!/usr/bin/env bash
# quantize_dynamic on nn.Conv2d changes nothing and says nothing.
#
# Surprise: the call that recipes for segmentation models show, quantize_dynamic(model, {nn.Conv2d}, dtype=qint8), returns
#   a model whose convolutions are in float: no warning, the same logits to the bit, the same size on disk.
# Why: dynamic quantization has replacements for linear and recurrent layers; a type without one is passed over.
# Hurt: whoever ships the "quantized" model, or reports its accuracy as that of int8.
# Source: PyTorch 2.13.0, torch.ao.quantization.quantize_dynamic and its default mapping of dynamic modules.
# Pyraseg: int8 comes from static quantization in ONNX Runtime, and a gate compares its masks with those in float.
set -euo pipefail

packages=(torch==2.13.0 numpy==2.4.6)
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
import io
import sys
import warnings

import torch
from torch import nn

warnings.simplefilter("ignore")  # of the module's deprecation, which speaks of no layer
torch.manual_seed(0)


def size(model):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


def network():
    return nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(64, 2, 1)).eval()  # fmt: skip


model, image = network(), torch.randn(1, 3, 64, 64)
quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Conv2d}, dtype=torch.qint8)
kinds = {type(layer).__name__ for layer in quantized if not isinstance(layer, nn.ReLU)}
types = {layer.weight.dtype for layer in quantized if isinstance(layer, nn.Conv2d)}
difference = (quantized(image) - model(image)).abs().max().item()
ratio = size(quantized) / size(model)
linear = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(64, 64)), {nn.Linear}, dtype=torch.qint8)
print("Expected: convolutions with weights of 8 bits, a file of about a quarter of the size, or a refusal")
print(f"Seen: {kinds} with weights of {types}, size {ratio:.2f} of the original, largest difference of logits {difference}")
print(f"  nn.Linear for comparison: {type(linear[0]).__module__}.{type(linear[0]).__name__}")
as_described = types == {torch.float32} and difference == 0 and ratio > 0.99 and "quantized" in type(linear[0]).__module__
sys.exit(0 if as_described else "The behavior has changed.")
PYTHON
"$python" finding.py
