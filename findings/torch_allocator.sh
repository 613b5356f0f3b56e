#!/usr/bin/env bash
# On a CPU, PyTorch may spend more time in the kernel's memory management than in the network.
#
# Surprise: two calls of mallopt when the process starts make the forward pass of a small network several times as
#   fast. No profiler of PyTorch shows what they save: it is spread over all operators.
# Why: glibc maps every block above its threshold (32 MB at most) anew and gives it back to the kernel when it is
#   freed. So each layer's output is made of pages that the kernel must clear first: a fault for every 4 KB, in every
#   pass.
# Hurt: inference of large images on a CPU, above all in virtual machines, where a page fault costs most; and whoever
#   compares PyTorch with a runtime that keeps its memory (ONNX Runtime), and takes the difference for arithmetic.
# Source: PyTorch 2.13.0 on glibc 2.36 (mallopt(3): M_MMAP_MAX, M_TRIM_THRESHOLD). The ratio is the machine's: 4 to 7
#   on the virtual machine where this was written, less on bare metal, and less where the kernel gives huge pages
#   unasked.
# Pyraseg: says so where its programs begin, unless the user has chosen an allocator (core/process.py). Its deployed form
#   runs in ONNX Runtime, which keeps its memory by itself.
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
import ctypes
import resource
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def measure(keep_memory):
    """Print the seconds and the page faults of a forward pass, medians of three."""
    torch.set_num_threads(1)
    if keep_memory:
        libc = ctypes.CDLL(None)
        assert libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    layers = [nn.Conv2d(3, 32, 3, padding=1)]
    for _ in range(5):
        layers += [nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, groups=32)]
    network = nn.Sequential(*layers).eval()
    images = torch.randn(4, 3, 512, 512)
    seconds, faults = [], []
    with torch.inference_mode():
        for _ in range(5):
            before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
            network(images)
            seconds.append(time.perf_counter() - start)
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    print(statistics.median(seconds[2:]), int(statistics.median(faults[2:])))


if len(sys.argv) > 1:
    measure(sys.argv[1] == "keep")
    sys.exit()
print("Expected: the allocator makes no difference worth speaking of")
seen = {}
for way in ("default", "keep"):
    output = subprocess.run([sys.executable, __file__, way], check=True, capture_output=True, text=True).stdout
    seconds, faults = output.split()
    seen[way] = float(seconds), int(faults)
    print(f"Seen, {way}: {float(seconds):.2f} s and {int(faults)} page faults a forward pass")
print(f"Seen: {seen['default'][0] / seen['keep'][0]:.1f} times as fast")
as_described = seen["default"][1] > 100_000 and seen["keep"][1] < 1000 and seen["default"][0] > 1.1 * seen["keep"][0]
sys.exit(0 if as_described else "The behavior has changed, or this machine is another kind.")
PYTHON
"$python" finding.py
