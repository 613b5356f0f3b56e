#!/usr/bin/env bash
# A frozen encoder in evaluation mode changes under MONAI's SupervisedTrainer.
#
# Surprise: parameters with requires_grad = False and encoder.eval() before the run, and yet after 20 steps the
#   encoder's output for the same image is another one: every parameter is equal, the batch norm's statistics are not.
# Why: the trainer calls network.train() in every iteration, which takes all parts out of evaluation mode; batch norm
#   then updates its running statistics without any gradient.
# Hurt: whoever trains a new head on a pretrained encoder. While it trains the loss looks fine. When a stage unfreezes
#   an encoder, the same drift is why Dice falls: here from 0.845 to 0.744 in 16 batches that taught nothing.
# Source: MONAI 1.6.1, monai.engines.SupervisedTrainer._iteration.
# Pyraseg: the network owns its frozen state, and its train() leaves frozen parts in evaluation mode.
set -euo pipefail

packages=(monai==1.6.1 pytorch-ignite==0.5.5 torch==2.13.0 numpy==2.4.6)
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
import logging
import sys

import torch
from monai.engines import SupervisedTrainer
from torch import nn

logging.disable(logging.INFO)
torch.manual_seed(0)
encoder = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
head = nn.Conv2d(8, 2, 1)
network = nn.Sequential(encoder, head)
for parameter in encoder.parameters():
    parameter.requires_grad = False
encoder.eval()

images = 2 + 3 * torch.rand(8, 3, 32, 32)
features = encoder(images)
parameters = [parameter.clone() for parameter in encoder.parameters()]
SupervisedTrainer(
    device=torch.device("cpu"),
    max_epochs=1,
    train_data_loader=[{"image": images, "label": torch.zeros(8, 2, 32, 32)}] * 20,
    network=network,
    optimizer=torch.optim.SGD(head.parameters(), 1e-2),
    loss_function=nn.MSELoss(),
).run()
training = encoder.training
encoder.eval()
change = float((encoder(images) - features).abs().mean() / features.abs().mean())
equal = all(torch.equal(a, b) for a, b in zip(parameters, encoder.parameters(), strict=True))
print("Expected: a frozen encoder in evaluation mode gives the same features after the training")
print(f"Seen: its parameters are equal: {equal}; it is in training mode: {training};", end=" ")
print(f"its features changed by {change:.0%} on average")
sys.exit(0 if training and equal and change > 0.5 else "The behavior has changed.")
PYTHON
"$python" finding.py
