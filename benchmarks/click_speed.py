# SPDX-License-Identifier: Apache-2.0
"""Time one click on one thread: drawing it, the graph for clicks, and the logits that follow from it.

It is set beside the look at the image, which is taken once, and beside the whole network (look and click). Forms are
float and int8, each at several sizes; they take turns, so that a busy moment meets all of them. The table has
medians of the processor time of the thread: what it takes on a core of its own. The results also have the time on the
clock, with its quartiles, and the load of the machine at the beginning. An int8 form is made
here with ranges of random images: it takes as long as one of real ranges, and means nothing else.

``python -m benchmarks.click_speed models/dermoscopy_click.network.onnx`` from the repository root, with what `pyraseg
export dermoscopy_click` has written. The table goes into docs/clicks.md, with ``--page``.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.networks import processor
from benchmarks.trials import versions
from bundle.pyraseg.deployment import OnnxClickNetwork
from bundle.pyraseg.runtime import FEATURES, click_file, draw_prompts, log_odds_of, open_session
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "clicks.md"
RESULTS = ROOT / "benchmarks" / "results" / "click_speed.json"
FORMS = ("float", "int8")


class Random(CalibrationDataReader):
    """Hand random inputs of a graph to the quantizer."""

    def __init__(self, feeds: list[dict[str, np.ndarray]]) -> None:
        self.feeds: Iterator[dict[str, np.ndarray]] = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def quantized(graph: Path, folder: Path, feeds: list[dict[str, np.ndarray]]) -> Path:
    """Write a graph in int8, as `pyraseg quantize` does it, and return its file."""
    prepared, result = folder / f"prepared_{graph.name}", folder / f"int8_{graph.name}"
    quant_pre_process(graph, prepared, skip_symbolic_shape=True)
    types: dict[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    quantize_static(prepared, result, Random(feeds), quant_format=QuantFormat.QDQ, **types)
    return result


def calls(network: Path, refining: Path, side: int, channels: int) -> dict[str, Callable[[], object]]:
    """Return the look at an image of a size, and one click on it."""
    looking = open_session(network, threads=1, remedy="pyraseg export writes it.")
    clicking = open_session(refining, threads=1, remedy="pyraseg export writes it.")
    image = np.random.default_rng(0).normal(size=(1, channels, side, side)).astype(np.float32)
    names = ["logits", *FEATURES]
    logits, *features = looking.run(names, {"image": image})
    own = dict(zip(FEATURES, features, strict=True))
    clicks = [(side / 3, side / 4, True), (side / 2, side / 2, False)]

    def click() -> np.ndarray:
        log_odds = log_odds_of(logits[0], 1, overlapping=False)
        last = 1 / (1 + np.exp(-log_odds))
        prompts = draw_prompts(clicks, None, log_odds.shape, last)
        return clicking.run(["corrected"], {"log_odds": log_odds[None, None], **own, "prompts": prompts[None]})[0]

    return {"look": lambda: looking.run(names, {"image": image}), "click": click}


def measured(network: Path, sides: list[int], repeats: int) -> dict[str, Any]:
    """Return medians and quartiles in milliseconds, by form, size and part."""
    refining = click_file(network)
    channels = open_session(network, threads=1, remedy="").get_inputs()[0].shape[1]
    random = np.random.default_rng(1)
    images = [{"image": random.normal(size=(1, channels, 256, 256)).astype(np.float32)} for _ in range(4)]
    whole = OnnxClickNetwork(network, refining, overlapping=False, threads=1, settings=None, remedy="")
    feeds = []
    for item in images:
        logits, *features = whole.session.run(["logits", *FEATURES], item)
        log_odds = log_odds_of(logits[0], 1, overlapping=False)
        prompts = draw_prompts([(60, 80, True)], None, log_odds.shape, 1 / (1 + np.exp(-log_odds)))
        own = dict(zip(FEATURES, features, strict=True))
        feeds.append({"log_odds": log_odds[None, None], **own, "prompts": prompts[None]})
    seconds: dict[tuple[str, int, str], list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        int8 = quantized(network, Path(folder), images), quantized(refining, Path(folder), feeds)
        files = {"float": (network, refining), "int8": int8}
        timed = {
            (form, side, part): call
            for form in FORMS
            for side in sides
            for part, call in calls(*files[form], side, channels).items()
        }
        for repeat in range(-2, repeats):
            for name, call in timed.items():
                start, worked = time.perf_counter(), time.thread_time()
                call()
                if repeat >= 0:  # the first rounds allocate
                    taken = time.perf_counter() - start, time.thread_time() - worked
                    seconds.setdefault(name, []).append([1000 * part for part in taken])
        sizes = {form: [path.stat().st_size for path in files[form]] for form in FORMS}
    rows = []
    for form in FORMS:
        for side in sides:
            look, click = (np.array(seconds[form, side, part]) for part in ("look", "click"))
            medians = np.median(look, axis=0), np.median(click, axis=0)
            rows.append(
                {
                    **{"form": form, "side": side, "look_ms": medians[0][0], "click_ms": medians[1][0]},
                    **{"click_least_ms": click[:, 0].min(), "click_quartiles_ms": quartiles(click[:, 0])},
                    **{"look_processor_ms": medians[0][1], "click_processor_ms": medians[1][1]},
                    "share_of_whole": medians[1][1] / (medians[0][1] + medians[1][1]),
                }
            )
    return {"rows": rows, "bytes": {form: {"look": a, "click": b} for form, (a, b) in sizes.items()}}


def quartiles(values: np.ndarray) -> list[float]:
    """Return the first and the last quartile."""
    return np.percentile(values, [25, 75]).tolist()


def table(report: dict[str, Any]) -> str:
    """Return the medians of the processor times in a report as Markdown."""
    lines = ["| form | size | first look, ms | a click, ms | share of look and click |", "|---|---|---|---|---|"]
    for row in report["rows"]:
        lines.append(
            f"| {row['form']} | {row['side']} x {row['side']} | {row['look_processor_ms']:.0f} | "
            f"{row['click_processor_ms']:.1f} | {row['share_of_whole']:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "network", type=Path, help="the network alone, NAME.network.onnx; NAME.click.onnx lies beside it"
    )
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true", help="put the table into docs/clicks.md")
    options = parser.parse_args()
    about = {"network": options.network.name, "threads": 1, "repeats": options.repeats, "processor": processor()}
    load = os.getloadavg()[0]
    report = {
        **about,
        "load_before": load,
        "versions": versions(),
        **measured(options.network, options.sides, options.repeats),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.page:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(replace_between_markers(text, "click speed", table(report)), encoding="utf-8")
    print(table(report))


if __name__ == "__main__":
    main()
