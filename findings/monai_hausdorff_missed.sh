#!/usr/bin/env bash
# A network that finds nothing has the best Hausdorff distance in MONAI: 0.
#
# Surprise: a case whose organ was missed altogether has the distance NaN; the mean leaves it out, and if all cases
#   are missed the mean is 0.0, that of a perfect result. The more of the hard cases a network misses, the better it
#   looks.
# Why: without a predicted surface there is no distance. aggregate() averages over what is not NaN, and where nothing
#   is left it returns 0 rather than NaN. A warning names the empty prediction, case by case; the figure stands.
# Hurt: whoever ranks networks, or chooses a checkpoint, by the 95th percentile Hausdorff distance of small lesions.
# Source: MONAI 1.6.1, monai.metrics.HausdorffDistanceMetric and monai.metrics.utils.do_metric_reduction.
# Pyraseg: missed cases are counted beside the mean distance, and the surface Dice, in which a miss is 0, stands with
#   it.
set -euo pipefail

packages=(monai==1.6.1 torch==2.13.0 scipy==1.17.1 numpy==2.4.6)
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

import torch
from monai.metrics import HausdorffDistanceMetric

warnings.simplefilter("ignore")


def one_hot(mask):
    return torch.stack([1 - mask, mask])[None]


def mean_distance(predictions):
    metric = HausdorffDistanceMetric(include_background=False, percentile=95)
    for prediction in predictions:
        metric(one_hot(prediction), one_hot(organ))
    return metric.aggregate().item()


organ = torch.zeros(64, 64)
organ[20:40, 20:40] = 1
good = organ.roll(1, 0)
poor = organ.roll(6, 0)
nothing = torch.zeros(64, 64)
networks = {
    "one good case, one poor": [good, poor],
    "one good case, one missed": [good, nothing],
    "both missed": [nothing, nothing],
}
print("Expected: the distance grows, or is undefined, from line to line")
seen = {name: mean_distance(predictions) for name, predictions in networks.items()}
for name, distance in seen.items():
    print(f"Seen, {name}: mean distance {distance:.1f} pixels")
distances = list(seen.values())
sys.exit(0 if distances == sorted(distances, reverse=True) and distances[-1] == 0 else "The behavior has changed.")
PYTHON
"$python" finding.py
