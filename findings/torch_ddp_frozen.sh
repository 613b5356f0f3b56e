#!/usr/bin/env bash
# A parameter that is frozen when DistributedDataParallel wraps it is never synchronized, also after it is unfrozen.
#
# Surprise: freeze the encoder, wrap the network, train the head, unfreeze the encoder: from then on each process
#   trains an encoder of its own. Nothing is raised or logged, losses fall, and the checkpoint holds that of the first
#   process. find_unused_parameters=True changes nothing.
# Why: the wrapper hangs its gradient hooks on the parameters that require a gradient at that moment.
# Hurt: training in stages on several GPUs, which then is worse than on one, with no sign of why.
# Source: PyTorch 2.13.0, torch.nn.parallel.DistributedDataParallel.
# Pyraseg: the network is wrapped while everything learns, with find_unused_parameters, and stages freeze afterwards;
#   a test with two processes holds all weights equal over an unfreezing.
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
import os
import sys

os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def train(rank, order, meeting, results):
    """Train 10 steps with a frozen encoder and 10 without; write how far the two processes are apart."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    encoder, head = network[0], network[2]
    encoder.requires_grad_(order == "wrap first")
    parallel = DistributedDataParallel(network, find_unused_parameters=True)
    encoder.requires_grad_(False)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    torch.manual_seed(1 + rank)
    for step in range(20):
        if step == 10:
            encoder.requires_grad_(True)
        optimizer.zero_grad()
        parallel(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
    apart = []
    for part in (encoder, head):
        weights = [torch.empty_like(part.weight) for _ in range(2)]
        dist.all_gather(weights, part.weight.detach())
        apart.append(float((weights[0] - weights[1]).abs().max()))
    if rank == 0:
        torch.save(apart, results)
    dist.destroy_process_group()


if __name__ == "__main__":
    print("Expected: after 20 steps both processes have the same weights, whatever was frozen when")
    seen = {}
    for order in ("freeze first", "wrap first"):
        meeting, results = (os.path.abspath(f"{order} {name}".replace(" ", "_")) for name in ("meeting", "results"))
        torch.multiprocessing.spawn(train, (order, meeting, results), nprocs=2)
        seen[order] = torch.load(results)
        print(f"Seen, {order}: the encoders differ by up to {seen[order][0]:.1e}, the heads by {seen[order][1]:.1e}")
    as_described = seen["freeze first"][0] > 1e-4 and seen["freeze first"][1] == 0 and seen["wrap first"] == [0, 0]
    sys.exit(0 if as_described else "The behavior has changed.")
PYTHON
"$python" finding.py
