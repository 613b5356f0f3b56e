# SPDX-License-Identifier: Apache-2.0
"""Time one photograph through every network that is compared, in eager PyTorch and in ONNX Runtime.

All calls alternate in one process. Ours are exported with dynamic batch, height and width, as they are delivered; the
others with the fixed size, which is the best that all of them can. Run ``python -m benchmarks.dermoscopy.latency``.
"""

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.dermoscopy.networks import NETWORKS, OURS
from benchmarks.dermoscopy.trials import CONFIGS, versions
from benchmarks.networks import check_export, eager_call, export, interleaved, onnx_call, processor, summary
from bundle.pyraseg.core import task_files
from bundle.pyraseg.workflow import read_config

RESULTS = Path(__file__).resolve().parents[1] / "results" / "dermoscopy"
MODES = ("eager", "onnxruntime")


def build(name: str) -> nn.Module:
    """Return a network as the dermoscopy config with its overrides makes it, with random weights."""
    parser = read_config(task_files(CONFIGS, "train", "dermoscopy"))
    parser.update(NETWORKS[name] | {"pretrained": False})
    return parser.get_parsed_content("network_def").to(memory_format=torch.channels_last).eval()


def measure(*, size: int, threads: int, repeats: int) -> dict[str, Any]:
    """Return medians and quartiles in ms of every network, by mode."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    image = torch.randn(1, 3, size, size).to(memory_format=torch.channels_last)
    networks = {name: build(name) for name in NETWORKS}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        calls = {}
        for index, (name, network) in enumerate(networks.items()):
            path = Path(folder) / f"{index}.onnx"
            export(network, image, path, dynamic=name in OURS)
            check_export(network, image, path, name)
            calls[name] = onnx_call(path, image, threads)
        eager = {name: eager_call(network, image) for name, network in networks.items()}
        for mode, of_mode in zip(MODES, (eager, calls), strict=True):
            found[mode] = summary(interleaved(of_mode, repeats=repeats, what=mode))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="pixels per side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=50, help="timed calls per network and mode")
    parser.add_argument("--output", type=Path, default=RESULTS / "latency.json")
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # the exporter's remarks
    report = {"size": given.size, "threads": given.threads, "repeats": given.repeats}
    report |= {"processor": processor(), "versions": versions()}
    report |= measure(size=given.size, threads=given.threads, repeats=given.repeats)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name in NETWORKS:
        print(f"{name:22}" + "".join(f"{mode} {report[mode]['median_ms'][name]:7.1f} ms  " for mode in MODES))
    print(f"Written to {given.output}")


if __name__ == "__main__":
    main()
