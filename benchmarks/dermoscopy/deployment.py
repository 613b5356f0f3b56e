# SPDX-License-Identifier: Apache-2.0
"""Latency against Dice: networks on one encoder in eager PyTorch, in ONNX Runtime and OpenVINO, in float and in int8.

Each network is exported and quantized alike. The Dice of both forms is that of the validation part, and that of the
distilled network, in int8, of the test part too, beside the default in float. A network of `benchmarks.dermoscopy`
whose weights are not in the folder of work keeps the Dice of the report that is replaced; its latency does not depend
on its weights. Latency is one photograph; all calls take turns, with the C library's allocator as users of PyTorch have
it and with the setting that programs of Pyraseg make. At 512 x 512 the bundle's networks are timed against the one of
torchvision that recipes for slow processors propose, in eager PyTorch as they run it. Run
``python -m benchmarks.dermoscopy.deployment --dataset-dir DIR``, after ``python -m benchmarks.dermoscopy networks`` to
measure every Dice anew.
"""

import argparse
import importlib.util
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import onnx
import torch
from monai.bundle import ConfigParser
from torch import nn
from tqdm import tqdm

from benchmarks.allocators import ALLOCATORS, Calls, interleaved_in_both
from benchmarks.dermoscopy.latency import RESULTS, build, example
from benchmarks.dermoscopy.networks import NETWORKS, OURS
from benchmarks.networks import (
    PEER,
    check_export,
    eager_call,
    export,
    onnx_call,
    others,
    processor,
    summary,
)
from benchmarks.trials import CONFIGS, Trial, versions
from bundle.pyraseg.commands import on_openvino, training_images
from bundle.pyraseg.core import PyrasegError, task_files
from bundle.pyraseg.deployment import OnnxNetwork, Quantizer, judge, quantize
from bundle.pyraseg.evaluation import count_overlap, difference_interval, mean_interval, ratios
from bundle.pyraseg.training import read_model
from bundle.pyraseg.workflow import plain_console, read_config
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

PICTURE = CONFIGS.parent / "docs" / "images" / "dermoscopy_front.png"
PAGE = CONFIGS.parent / "docs" / "int8.md"
MODELS = CONFIGS.parent / "models"
SIZE, LARGE = 256, 512
#: The network of `configs/dermoscopy_fast.json`, distilled from the default one.
DISTILLED = "PSPNet fast, distilled"
#: The network of the task, as the comparison of networks trains it.
DEFAULT = "PSPNet fpn"
#: Weights that come along.
INCLUDED = {DISTILLED: MODELS / "dermoscopy_fast.pt"}
EAGER, FLOAT, INT8 = "eager", "ONNX Runtime float", "ONNX Runtime int8"
#: Forms of a network: what computes, the file, and the precision that OpenVINO is told.
FORMS = {
    FLOAT: ("float", None),
    INT8: ("int8", None),
    "OpenVINO bfloat16": ("float", "bf16"),
    "OpenVINO int8": ("int8", "f32"),
}


def make(name: str) -> nn.Module:
    """Return a network by its name, with random weights."""
    if name == PEER:
        return others()[PEER]
    if name == DISTILLED:
        parser = read_config(task_files(CONFIGS, "train", "dermoscopy_fast"))
        parser.update({"pretrained": False})
        return parser.get_parsed_content("network_def").to(memory_format=torch.channels_last).eval()
    return build(name)


class Candidates:
    """Make the forms of every network, in a folder.

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
        self.files: dict[str, dict[str, Path]] = {}

    def weights(self, name: str) -> Path:
        if name in INCLUDED:
            return INCLUDED[name]
        return self.work / Trial("networks", name, NETWORKS[name], 0).folder / "model.pt"

    def add(self, name: str, *, in_float: Sequence[str] | None) -> list[str]:
        """Export and quantize a network, with its trained weights if they are there; return the layers in float.

        Args:
            name: of the network.
            in_float: the layers that were left in float when its weights were here; they are found anew if they are.
        """
        network = make(name)
        if self.weights(name).is_file():
            network.load_state_dict(read_model(self.weights(name))[0])
        stem = self.folder / name.replace(" ", "_")
        paths = {form: stem.with_name(f"{stem.name}.{form}.onnx") for form in ("float", "int8")}
        export(network, self.shown, paths["float"], dynamic=name in (*OURS, DISTILLED))
        check_export(network, self.shown, paths["float"], name)
        onnx.save(onnx.load(paths["float"]), paths["float"])  # with its weights, in one file
        self.files[name] = paths
        if not self.weights(name).is_file() and in_float is not None:
            with tempfile.TemporaryDirectory() as folder:
                quantizer = Quantizer(paths["float"], self.images[:4], Path(folder))
                onnx.save(quantizer(in_float=in_float), paths["int8"])
            return list(in_float)
        found = quantize(paths["float"], self.images, self.images[:16])
        onnx.save(found.model, paths["int8"])
        return list(found.in_float)

    def judge(self, name: str, *, every: int) -> dict[str, Any]:
        """Return the Dice of a network on every n-th validation case, in float and in int8."""
        data = self.config.get_parsed_content("validate#dataset")
        verdict = judge(
            (data[index] for index in tqdm(range(0, len(data), every), desc=name, unit="case", disable=None)),
            tuple(OnnxNetwork(path, threads=1, settings=None, remedy="") for path in self.files[name].values()),
            *(self.config.get_parsed_content(f"validate#{key}") for key in ("inferer", "postprocessing")),
            self.config["class_names"],
        )
        return vars(verdict) | {"passed": verdict.passed}

    def test(self, *, every: int) -> dict[str, Any]:
        """Return the Dice of the distilled network in int8 and of the default in float on every n-th test case."""
        default = build(DEFAULT)
        default.load_state_dict(read_model(self.weights(DEFAULT))[0])
        networks = {
            "default, float": default,
            f"{DISTILLED}, int8": OnnxNetwork(self.files[DISTILLED]["int8"], threads=1, settings=None, remedy=""),
        }
        data, inferer, postprocessing = (
            self.config.get_parsed_content(f"validate#{key}") for key in ("dataset", "inferer", "postprocessing")
        )
        cases = self.config.get_parsed_content("cases")["test"][::every]
        scores: dict[str, list[float]] = {name: [] for name in networks}
        for case in tqdm(cases, desc="test", unit="case", disable=None):
            item = data.transform(case)
            for name, network in networks.items():
                with torch.no_grad():
                    logits = inferer(item["image"][None], network)[0]
                result = postprocessing({**item, "pred": logits})
                counts = count_overlap(result["pred"], result["truth"], len(self.config["class_names"]))
                scores[name].append(float(ratios(counts)[0, 0]))
        first, second = (np.array(of_one) for of_one in scores.values())
        return {
            "cases": len(cases),
            "dice": {name: vars(mean_interval(of_one)) for name, of_one in scores.items()},
            "difference": vars(difference_interval(second, first)),
        }


def calls_of(files: dict[str, dict[str, Path]], eager: Sequence[str], size: int, threads: int) -> Calls:
    """Return a call of every network and form, in the process that times them."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    image = example(size)
    calls: Calls = {f"{name}, {EAGER}": eager_call(make(name), image) for name in eager}
    if PEER in eager:  # whose users leave images as they are
        calls[f"{PEER}, {EAGER}, channels last"] = calls[f"{PEER}, {EAGER}"]
        calls[f"{PEER}, {EAGER}"] = eager_call(make(PEER), image.contiguous())
    for name, paths in files.items():
        for form, (file, precision) in FORMS.items():
            if precision is None:
                calls[f"{name}, {form}"] = onnx_call(paths[file], image, threads)
            elif importlib.util.find_spec("openvino"):
                calls[f"{name}, {form}"] = on_openvino(paths[file], threads, (1, size, size), precision)
    return calls


def medians(report: dict[str, Any], size: int, allocator: str) -> dict[int, dict[str, float]]:
    """Return the medians in ms at a size, by number of threads."""
    rows = (row for row in report["rows"] if (row["size"], row["allocator"]) == (size, allocator))
    return {row["threads"]: row["median_ms"] for row in rows}


def fastest(of: dict[str, float], name: str, *, int8: bool) -> float:
    """Return the least time of a network among what computes it in int8, or in float or bfloat16."""
    return min(value for key, value in of.items() if key.rpartition(", ")[0] == name and key.endswith("int8") == int8)


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw Dice against latency at one and two threads: ours round, others square; int8 filled."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.4), dpi=110, sharey=True)
    for axes, (threads, of) in zip(panels, medians(report, SIZE, "kept").items(), strict=True):
        for number, (name, found) in enumerate(report["dice"].items()):
            marker, color = ("o" if name in (*OURS, DISTILLED) else "s"), f"C{number}"
            forms = ((False, found["before"]), (True, found["after"]))
            points = [(fastest(of, name, int8=int8), dice) for int8, dice in forms]
            axes.plot(*zip(*points, strict=True), color=color, linewidth=0.8)
            for (x, y), filled in zip(points, (False, True), strict=True):
                face = color if filled else "white"
                axes.scatter(x, y, marker=marker, s=50, edgecolors=color, facecolors=face, zorder=3)
            axes.plot([], [], marker, color=color, label=name)
        axes.set(xscale="log", xlabel=f"ms a photograph of {SIZE} x {SIZE}, {threads} thread{'s' * (threads > 1)}")
        ticks = [2, 4, 6, 10, 20, 30]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("Dice, validation")
    panels[0].set_title("Round: Pyraseg. Square: segmentation_models.pytorch. Filled: int8", fontsize=9)
    panels[1].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path)


def table(report: dict[str, Any]) -> str:
    """Return Dice and latency of every network, and the times against torchvision's, in Markdown."""
    small = medians(report, SIZE, "kept")
    forms = list(dict.fromkeys(name.rpartition(", ")[2] for of in small.values() for name in of))
    times = [(form, threads) for threads in small for form in forms]
    head = [f"{form}, {threads} thread{'s' * (threads > 1)}" for form, threads in times]
    lines = [f"Milliseconds a photograph of {SIZE} x {SIZE}, {report['processor']}, {ALLOCATORS['kept']}:", ""]
    lines += ["| network | Dice, float | Dice, int8 | same class | " + " | ".join(head) + " |"]
    lines += ["|---" * (4 + len(times)) + "|"]
    for name, found in sorted(report["dice"].items(), key=lambda item: -item[1]["after"]):
        passed = "" if found["passed"] else ", refused"
        cells = [name, f"{found['before']:.4f}", f"{found['after']:.4f}{passed}", f"{found['agreement']:.2%}"]
        cells += [f"{small[threads][f'{name}, {form}']:.1f}" for form, threads in times]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"At {LARGE} x {LARGE}, against torchvision's DeepLabV3 on MobileNetV3 in eager PyTorch:", ""]
    large = {
        (threads, allocator): of
        for allocator in ALLOCATORS
        for threads, of in medians(report, LARGE, allocator).items()
    }
    head = [f"{threads} thread{'s' * (threads > 1)}, {ALLOCATORS[allocator]}" for threads, allocator in large]
    lines += ["| | " + " | ".join(head) + " |", "|---" * (1 + len(large)) + "|"]
    for name in next(iter(large.values())):
        cells = [f"{of[name]:.1f} ms, {of[f'{PEER}, {EAGER}'] / of[name]:.1f}x" for of in large.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    test = report["test"]
    shown = {name: "{mean:.4f} [{low:.4f}, {high:.4f}]".format(**of) for name, of in test["dice"].items()}
    difference = "{mean:+.4f} [{low:+.4f}, {high:+.4f}]".format(**test["difference"])
    lines += ["", f"Dice on the {test['cases']} photographs of the test part: "]
    lines[-1] += (
        ", ".join(f"{name} {value}" for name, value in shown.items()) + f"; the second minus the first {difference}."
    )
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
    before = json.loads(given.output.read_text(encoding="utf-8")) if given.output.is_file() else {"dice": {}}
    with tempfile.TemporaryDirectory() as folder:
        candidates = Candidates(config, given.work, Path(folder))
        report["dice"] = {}
        for name in (DISTILLED, *NETWORKS):
            in_float = candidates.add(name, in_float=before["dice"].get(name, {}).get("layers_in_float"))
            if candidates.weights(name).is_file():
                found = candidates.judge(name, every=given.every) | {"layers_in_float": in_float}
                report["dice"][name] = found | {"weights": "measured in this run"}
            elif name in before["dice"]:
                report["dice"][name] = before["dice"][name] | {"weights": "not here: Dice of an earlier run"}
            else:
                raise PyrasegError(
                    f"There are no weights of {name}. Run python -m benchmarks.dermoscopy networks first."
                )
        report["test"] = candidates.test(every=given.every)
        ours = {name: candidates.files[name] for name in (DEFAULT, DISTILLED)}
        report["rows"] = [
            {"size": size, "threads": threads, "allocator": allocator, **summary(found)}
            for size, files, eager in (
                (SIZE, candidates.files, list(candidates.files)),
                (LARGE, ours, [PEER, *ours]),
            )
            for threads in (1, 2)
            for allocator, found in interleaved_in_both(
                calls_of, files, eager, size, threads, repeats=given.repeats, what=f"{size}, {threads} threads"
            ).items()
        ]
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    draw(report, given.picture)
    page = given.page.read_text(encoding="utf-8")
    given.page.write_text(replace_between_markers(page, "front", table(report)), encoding="utf-8")
    for row in report["rows"]:
        print(f"{row['size']} x {row['size']}, {row['threads']} threads, {ALLOCATORS[row['allocator']]}")
        for name, median in row["median_ms"].items():
            print(f"  {name:60} {median:8.1f} ms")
    print(f"Written to {given.output} and {given.picture}")


if __name__ == "__main__":
    main()
