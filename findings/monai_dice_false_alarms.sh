#!/usr/bin/env bash
# MONAI's MeanDice handler cannot see a lesion that the network invents in a healthy patient.
#
# Surprise: a patient without the lesion does not count, whatever is predicted for him. A network that marks half of
#   every healthy image has the Dice of one that leaves them alone.
# Why: DiceMetric has ignore_empty=True as its default: an empty truth gives NaN, also beside false positives, and NaN
#   is left out of the mean. The MeanDice handler, which MONAI's engines and bundles use, has no argument to change
#   it.
# Hurt: whoever validates a detector of lesions on a cohort with healthy patients, and chooses the checkpoint by it.
# Source: MONAI 1.6.1, monai.metrics.DiceMetric, monai.handlers.MeanDice.
# Pyraseg: such cases are not in the mean either, and the false alarms among them are counted and shown beside it.
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
import inspect
import sys

import torch
from ignite.engine import Engine
from monai.handlers import MeanDice
from monai.metrics import DiceMetric


def one_hot(mask):
    return torch.stack([1 - mask, mask])[None]


lesion = torch.zeros(64, 64)
lesion[20:40, 20:40] = 1
healthy = torch.zeros(64, 64)
half = torch.zeros(64, 64)
half[:32] = 1


def score_by_handler(pairs):
    evaluator = Engine(lambda engine, pair: [one_hot(mask) for mask in pair])
    MeanDice(include_background=False).attach(evaluator, "dice")
    return evaluator.run(pairs).metrics["dice"]


cautious = score_by_handler([(lesion, lesion)] + [(healthy, healthy)] * 9)
alarming = score_by_handler([(lesion, lesion)] + [(half, healthy)] * 9)
counting = DiceMetric(include_background=False, ignore_empty=False)
for prediction, truth in [(lesion, lesion)] + [(half, healthy)] * 9:
    counting(one_hot(prediction), one_hot(truth))
print("One patient with a lesion, which both networks find, and nine healthy ones.")
print("Expected: marking half of all nine healthy images lowers the score, or an argument of the handler makes it so")
print(f"Seen: {cautious:.2f} without false alarms, {alarming:.2f} with nine;", end=" ")
print(f"DiceMetric(ignore_empty=False) gives {counting.aggregate().item():.2f}")
has_switch = "ignore_empty" in inspect.signature(MeanDice).parameters
print("Seen: MeanDice has an argument ignore_empty:", has_switch)
sys.exit(0 if cautious == alarming == 1 and not has_switch else "The behavior has changed.")
PYTHON
"$python" finding.py
