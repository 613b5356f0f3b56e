# SPDX-License-Identifier: Apache-2.0
"""Latency against Dice: the trained networks of `benchmarks.dermoscopy` in eager PyTorch, in ONNX Runtime and in int8.

Each network is exported and quantized alike, and its Dice measured on the validation part in both forms. Latency is one
photograph; all calls alternate in one process. At 512 x 512 the bundle's default is timed against the network of
torchvision that recipes for slow processors propose, in eager PyTorch as they run it. Run
``python -m benchmarks.dermoscopy.deployment --dataset-dir DIR`` after ``python -m benchmarks.dermoscopy networks``.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import onnx
import torch
from monai.bundle import ConfigParser
from torch import nn
from tqdm import tqdm

from benchmarks.dermoscopy.latency import RESULTS, build
from benchmarks.dermoscopy.networks import NETWORKS, OURS
from benchmarks.dermoscopy.tables import SHIPPED
from benchmarks.dermoscopy.trials import CONFIGS, Trial, versions
from benchmarks.networks import (
    PEER,
    check_export,
    eager_call,
    export,
    interleaved,
    onnx_call,
    others,
    processor,
    summary,
)
from bundle.pyraseg.commands import training_images
from bundle.pyraseg.core import task_files
from bundle.pyraseg.deployment import OnnxNetwork, judge, quantize
from bundle.pyraseg.training import read_model
from bundle.pyraseg.workflow import plain_console, read_config
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

PICTURE = CONFIGS.parent / "docs" / "images" / "dermoscopy_front.png"
PAGE = CONFIGS.parent / "docs" / "int8.md"
SIZE, LARGE = 256, 512
FORMS = ("eager", "onnxruntime", "int8")


class Candidates:
    """Make the forms of every trained network, in a folder.

    Args:
        config: of the training, with the data's folder.
        work: folder of the trained weights, as `python -m benchmarks.dermoscopy` leaves it.
        folder: where ONNX files go.
    """

    def __init__(self, config: ConfigParser, work: Path, folder: Path) -> None:
        self.config = config
        self.work = work
        self.folder = folder
        cases, preprocessing = (config.get_parsed_content(key) for key in ("cases", "train#preprocessing"))
        self.images = training_images(cases["training"], preprocessing, 64)
        self.shown = torch.from_numpy(self.images[0]).to(memory_format=torch.channels_last)
        self.networks: dict[str, nn.Module] = {}
        self.files: dict[tuple[str, str], Path] = {}

    def add(self, name: str, *, every: int) -> dict[str, Any]:
        """Export, quantize and judge a network on every n-th validation case; return its Dice in both forms."""
        trial = Trial("networks", name, NETWORKS[name], 0)
        weights = self.work / trial.folder / "model.pt"
        network, remedy = build(name), "Run python -m benchmarks.dermoscopy networks first."
        network.load_state_dict(read_model(weights, remedy=remedy)[0])
        self.networks[name] = network.eval()
        stem = self.folder / Path(trial.folder).name
        paths = {form: stem.with_name(f"{stem.name}.{form}.onnx") for form in FORMS[1:]}
        export(network, self.shown, paths["onnxruntime"], dynamic=name in OURS)
        check_export(network, self.shown, paths["onnxruntime"], name)
        onnx.save(onnx.load(paths["onnxruntime"]), paths["onnxruntime"])  # with its weights, in one file
        found = quantize(paths["onnxruntime"], self.images, self.images[:16])
        onnx.save(found.model, paths["int8"])
        data = self.config.get_parsed_content("validate#dataset")
        verdict = judge(
            (data[index] for index in tqdm(range(0, len(data), every), desc=name, unit="case", disable=None)),
            tuple(OnnxNetwork(path, threads=1, settings=None, remedy="") for path in paths.values()),
            *(self.config.get_parsed_content(f"validate#{key}") for key in ("inferer", "postprocessing")),
            self.config["class_names"],
        )
        self.files |= {(name, form): path for form, path in paths.items()}
        return vars(verdict) | {"passed": verdict.passed, "layers_in_float": list(found.in_float)}

    def time(self, names: list[str], *, size: int, threads: int, repeats: int, others: dict[str, nn.Module]) -> dict:
        """Return medians and quartiles in ms of every network and form, and of others in eager PyTorch."""
        torch.set_num_threads(threads)
        image = torch.randn(1, 3, size, size).to(memory_format=torch.channels_last)
        calls: dict[str, Callable[[], object]] = {
            f"{name}, eager": eager_call(network, image.contiguous()) for name, network in others.items()
        }
        for name in names:
            calls[f"{name}, eager"] = eager_call(self.networks[name], image)
            calls |= {f"{name}, {form}": onnx_call(self.files[name, form], image, threads) for form in FORMS[1:]}
        timings = interleaved(calls, repeats=repeats, what=f"{size} x {size}, {threads} threads")
        return {"size": size, "threads": threads, **summary(timings)}


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw Dice against latency on one thread: ours round, others square; int8 filled."""
    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=110)
    medians = report["rows"][0]["median_ms"]
    for number, (name, found) in enumerate(report["dice"].items()):
        marker, color = ("o" if name in OURS else "s"), f"C{number}"
        points = [(medians[f"{name}, onnxruntime"], found["before"]), (medians[f"{name}, int8"], found["after"])]
        axes.plot(*zip(*points, strict=True), color=color, linewidth=0.8)
        for (x, y), filled in zip(points, (False, True), strict=True):
            axes.scatter(x, y, marker=marker, s=50, edgecolors=color, facecolors=color if filled else "white", zorder=3)
        axes.plot([], [], marker, color=color, label=name)
    axes.set(xscale="log", xlabel="ms a photograph of 256 x 256, ONNX Runtime, one thread", ylabel="Dice, validation")
    ticks = [4, 6, 10, 20, 30]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_title("Round: Pyraseg. Square: segmentation_models.pytorch. Filled: int8", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path)


def table(report: dict[str, Any]) -> str:
    """Return Dice and latency of every network, and the times against torchvision's, in Markdown."""
    small = {row["threads"]: row["median_ms"] for row in report["rows"] if row["size"] == SIZE}
    large = {row["threads"]: row["median_ms"] for row in report["rows"] if row["size"] == LARGE}
    times = [f"{form}, {threads} thread{'s' * (threads > 1)}" for threads in small for form in FORMS]
    lines = [f"Milliseconds a photograph of {SIZE} x {SIZE}, {report['processor']}:", ""]
    lines += ["| network | Dice, float | Dice, int8 | same class | " + " | ".join(times) + " |"]
    lines += ["|---" * (4 + len(times)) + "|"]
    for name, found in sorted(report["dice"].items(), key=lambda item: -item[1]["after"]):
        passed = "" if found["passed"] else ", refused"
        cells = [name, f"{found['before']:.4f}", f"{found['after']:.4f}{passed}", f"{found['agreement']:.2%}"]
        cells += [f"{medians[f'{name}, {form}']:.1f}" for medians in small.values() for form in FORMS]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"At {LARGE} x {LARGE}, against torchvision's DeepLabV3 on MobileNetV3 in eager PyTorch:", ""]
    lines += ["| | " + " | ".join(f"{threads} thread{'s' * (threads > 1)}" for threads in large) + " |"]
    lines += ["|---" * (1 + len(large)) + "|"]
    for name in next(iter(large.values())):
        peer = f"{PEER}, eager"
        cells = [f"{medians[name]:.1f} ms, {medians[peer] / medians[name]:.1f}x" for medians in large.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    plain_console()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-dir", type=Path, required=True, help="folder with images/ and masks/")
    parser.add_argument("--work", type=Path, default=CONFIGS.parent / "runs" / "dermoscopy_benchmark")
    parser.add_argument("--every", type=int, default=1, help="take every n-th validation case")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--output", type=Path, default=RESULTS / "deployment.json")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--page", type=Path, default=PAGE, help="whose table is written")
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # the exporter's remarks
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    options = {"dataset_dir": str(given.dataset_dir), "pretrained": False}
    config = read_config(task_files(CONFIGS, "train", "dermoscopy"), options)
    report: dict[str, Any] = {"processor": processor(), "versions": versions(), "repeats": given.repeats}
    with tempfile.TemporaryDirectory() as folder:
        candidates = Candidates(config, given.work, Path(folder))
        report["dice"] = {name: candidates.add(name, every=given.every) for name in NETWORKS}
        recipe = {PEER: others()[PEER]}
        report["rows"] = [
            candidates.time(names, size=size, threads=threads, repeats=given.repeats, others=extra)
            for size, names, extra in ((SIZE, list(NETWORKS), {}), (LARGE, [SHIPPED], recipe))
            for threads in (1, 2)
        ]
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    draw(report, given.picture)
    page = given.page.read_text(encoding="utf-8")
    given.page.write_text(replace_between_markers(page, "front", table(report)), encoding="utf-8")
    for row in report["rows"]:
        print(f"{row['size']} x {row['size']}, {row['threads']} threads")
        for name, median in row["median_ms"].items():
            print(f"  {name:60} {median:8.1f} ms")
    print(f"Written to {given.output} and {given.picture}")


if __name__ == "__main__":
    main()
