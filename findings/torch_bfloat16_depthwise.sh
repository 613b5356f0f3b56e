#!/usr/bin/env bash
# bfloat16 autocast on a CPU makes depthwise convolutions slower, in the direction that takes most of a training step.
#
# Surprise: on a processor with bfloat16 instructions, the backward pass of a strided 3 x 3 depthwise convolution
#   takes more than twice as long as in float32. MobileNet and EfficientNet are made of such layers, so autocast slows
#   training down although the forward pass gains.
# Why: for the gradient of the input oneDNN takes its depthwise kernel in float32 and a general convolution, one group
#   after the other, in bfloat16 (ONEDNN_VERBOSE=1 prints jit_dw and brgconv_strided).
# Hurt: whoever turns mixed precision on to save time. The default CT network here took 1.07 times as long a step.
# Source: PyTorch 2.13.0, torch.autocast("cpu"); dense 3 x 3 convolutions are measured beside it. The ratios are the
#   processor's: 2.5 to 5 where this was written (AVX-512 with bfloat16), 3 on another one with AMX.
# Pyraseg: mixed precision is on where there is a GPU, and off on CPUs.
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
import sys
import time

import torch

torch.set_num_threads(1)


def ratio(groups):
    """Return the seconds of a backward pass in float32, in bfloat16 (least of ten, in turn), and bfloat16 / float32."""
    convolution = torch.nn.Conv2d(96, 96, 3, stride=2, padding=1, groups=groups).to(memory_format=torch.channels_last)
    images = torch.randn(8, 96, 80, 80).to(memory_format=torch.channels_last).requires_grad_()
    seconds = {False: [], True: []}
    for _ in range(12):
        for bfloat16, taken in seconds.items():
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                output = convolution(images)
            gradient = torch.randn_like(output)
            start = time.perf_counter()
            output.backward(gradient)
            taken.append(time.perf_counter() - start)
    single, half = (min(taken[2:]) for taken in seconds.values())
    return single, half, half / single


print("Expected: bfloat16 is no slower than float32")
seen = {}
for name, groups in {"depthwise": 96, "dense": 1}.items():
    single, half, seen[name] = ratio(groups)
    print(f"Seen, {name} backward: float32 {1e3 * single:.1f} ms, bfloat16 {1e3 * half:.1f} ms, ratio {seen[name]:.2f}")
sys.exit(0 if seen["depthwise"] > 1.3 else "The behavior has changed, or this processor is another kind.")
PYTHON
"$python" finding.py
