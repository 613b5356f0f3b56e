#!/usr/bin/env bash
# The PSPNet of segmentation_models.pytorch leaves out the two deepest stages of its encoder, and keeps their
# parameters.
#
# Surprise: PSPNet("efficientnet-b0") has 4.1 million parameters, of which the logits depend on 0.12 million. The
#   docstring says of encoder_depth "Default is 5"; the default is 3, so the network stops at stride 8 and the stages
#   that know most are loaded, counted and saved, and never run.
# Why: the decoder reads one feature map, the third; encoders are built whole.
# Hurt: whoever compares architectures by their defaults (here Dice 0.81 instead of 0.86 with all stages), publishes
#   the number of parameters, or trains with DistributedDataParallel, which refuses parameters without a gradient.
# Source: segmentation_models_pytorch 0.6.0, PSPNet.__init__ and its docstring.
# Pyraseg: its PSPNet takes the deepest stages; its tables count the parameters that the logits depend on.
set -euo pipefail

packages=(segmentation_models_pytorch==0.6.0 timm==1.0.31 torch==2.13.0 torchvision==0.28.0 numpy==2.4.6)
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
import inspect
import re
import sys

import torch

try:
    import torchvision  # noqa: F401 the library needs it
except RuntimeError:  # a CPU build of PyTorch beside a torchvision for CUDA: declare what its compiled part would bring
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import segmentation_models_pytorch as smp

text = re.search(r"encoder_depth:.*?Default is (\d)", inspect.getdoc(smp.PSPNet), re.DOTALL).group(1)
default = inspect.signature(smp.PSPNet).parameters["encoder_depth"].default
print(f"Expected: encoder_depth={text}, as the docstring says; all parameters take part")
print(f"Seen: encoder_depth={default}")
shares = {}
for encoder in ("resnet50", "mobilenet_v2", "efficientnet-b0"):
    network = smp.PSPNet(encoder, encoder_weights=None, classes=2)
    network(torch.rand(2, 3, 64, 64)).sum().backward()
    counts = [(parameter.numel(), parameter.grad is not None) for parameter in network.parameters()]
    whole, used = sum(number for number, _ in counts), sum(number for number, learns in counts if learns)
    shares[encoder] = used / whole
    print(f"Seen, {encoder}: {whole:,} parameters, {used:,} with a gradient ({used / whole:.0%})")
sys.exit(0 if default == 3 and text == "5" and max(shares.values()) < 0.2 else "The behavior has changed.")
PYTHON
"$python" finding.py
