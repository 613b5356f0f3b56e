# SPDX-License-Identifier: Apache-2.0
"""Time one photograph through every network that is compared, in eager PyTorch and in ONNX Runtime.

All calls take turns, with the C library's allocator as users of PyTorch have it and as programs of Pyraseg set it. Ours
are exported with dynamic batch, height and width, as they are delivered; the others with the fixed size, which is the
best that all of them can. Run ``python -m benchmarks.dermoscopy.latency``.
"""

import argparse
import json
import logging
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.allocators import ALLOCATORS, Calls, interleaved_in_both
from benchmarks.dermoscopy.networks import NETWORKS, OURS
from benchmarks.networks import check_export, eager_call, export, onnx_call, processor, summary
from benchmarks.trials import CONFIGS, versions
from bundle.pyraseg.core import task_files
from bundle.pyraseg.workflow import read_config

RESULTS = Path(__file__).resolve().parents[1] / "results" / "dermoscopy"
MODES = ("eager", "onnxruntime")


def build(name: str) -> nn.Module:
    """Return a network as the dermoscopy config with its overrides makes it, with random weights."""
    parser = read_config(task_files(CONFIGS, "train", "dermoscopy"))
    parser.update(NETWORKS[name] | {"pretrained": False})
    return parser.get_parsed_content("network_def").to(memory_format=torch.channels_last).eval()


def example(size: int) -> Tensor:
    """Return the image that all networks are timed on, (1, 3, size, size)."""
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(
        memory_format=torch.channels_last
    )


def calls_of(mode: str, size: int, threads: int, paths: dict[str, Path]) -> Calls:
    """Return a call of every network, in the process that times them."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    if mode == "eager":
        return {name: eager_call(build(name), example(size)) for name in paths}
    return {name: onnx_call(path, example(size), threads) for name, path in paths.items()}


def measure(*, size: int, threads: int, repeats: int) -> dict[str, Any]:
    """Return medians and quartiles in ms of every network, by mode and allocator."""
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{index}.onnx" for index, name in enumerate(NETWORKS)}
        for name, path in paths.items():
            network = build(name)
            export(network, example(size), path, dynamic=name in OURS)
            check_export(network, example(size), path, name)
        return {
            mode: {
                allocator: summary(found)
                for allocator, found in interleaved_in_both(
                    calls_of, mode, size, threads, paths, repeats=repeats, what=mode
                ).items()
            }
            for mode in MODES
        }


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
        for mode, allocator in product(MODES, ALLOCATORS):
            print(f"{name:22} {mode}, {allocator}: {report[mode][allocator]['median_ms'][name]:.1f} ms")
    print(f"Written to {given.output}")


if __name__ == "__main__":
    main()
