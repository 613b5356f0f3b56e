# SPDX-License-Identifier: Apache-2.0
"""Time the segmentation of a CT series of 100 slices of 512 x 512, from files to files, against its network alone.

The series is a phantom patient. From files to files: reading DICOM, preprocessing, network, labels on the series' grid,
NIfTI, picture and table, as `inferring` does with its default outputs; without the start of Python. The network alone:
the inferer on the preprocessed series, all windows and batches included. Both alternate in one process. Run
``python -m benchmarks.whole_series`` from the repository root after ``make train``.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.dermoscopy.trials import versions
from benchmarks.networks import processor
from bundle.pyraseg.training import load_model
from bundle.pyraseg.workflow import plain_console, read_config
from bundle.pyraseg_tools.datasets.phantom import phantom_case, write_series

ROOT = Path(__file__).resolve().parents[1]
SLICES, SIDE = 100, 512
PATIENT = 0  # of seed 2024: its slices are upright and as wide as `SIDE`
THREADS = 2


def write_thin_slices(folder: Path) -> float:
    """Write the series, every slice of the phantom repeated until there are 100; return its pixel spacing in mm."""
    case = phantom_case(2024, PATIENT, size=SIDE)
    assert case.hu.shape[1:] == (SIDE, SIDE)
    step = case.slice_step * len(case.hu) / SLICES
    write_series(
        folder,
        replace(
            case,
            hu=case.hu[np.arange(SLICES) * len(case.hu) // SLICES],
            positions=np.round(case.positions[0] + np.arange(SLICES)[:, None] * step, 4),
            slice_step=step,
            outside=None,
        ),
        seed=2024,
        number=1,
    )
    return case.pixel_spacing[0]


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(options: dict[str, Any], *, repeats: int) -> dict[str, Any]:
    """Return the medians in seconds of both with these options of `configs/inference.json`, and their ratio."""

    files = [ROOT / "configs" / "inference.json"]
    alone = read_config(files, options)
    network, path, inferer = (alone.get_parsed_content(name) for name in ("network", "model_file", "inferer"))
    remedy = {"settings": alone.get_parsed_content("settings"), "remedy": "Run make train first."}
    load_model(network, path, **remedy)
    (prepared,) = alone.get_parsed_content("dataloader")
    times: dict[str, list[float]] = {"files_to_files": [], "network": []}

    def only_network() -> None:
        with torch.inference_mode():
            inferer(prepared["image"].as_tensor(), network)

    def everything() -> Callable[[], object]:
        whole = read_config(files, options)
        load_model(whole.get_parsed_content("network"), path, **remedy)
        return whole.get_parsed_content("evaluator").run

    network.eval()
    for repeat in range(-1, repeats):
        found = {"files_to_files": seconds(everything()), "network": seconds(only_network)}
        for name, value in found.items():
            if repeat >= 0:  # the first round allocates
                times[name].append(value)
    medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
    ratios = [both / one for both, one in zip(*times.values(), strict=True)]
    grid = list(prepared["image"].shape[2:])
    return {"spacing_mm": options["spacing"], "network_grid": grid, "median_s": medians, "seconds": times} | {
        "ratio": round(statistics.median(ratios), 2)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model-file", type=Path, default=ROOT / "models" / "model.pt")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "whole_series.json")
    given = parser.parse_args()
    plain_console()
    logging.disable(logging.WARNING)
    torch.set_num_threads(THREADS)
    report = {"slices": SLICES, "side": SIDE, "threads": THREADS, "repeats": given.repeats}
    report |= {"processor": processor(), "versions": versions(), "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        own = write_thin_slices(Path(folder) / "in" / "series")
        for spacing in (own, 2.5):
            places = {"dataset_dir": f"{folder}/in", "output_dir": f"{folder}/out", "model_file": str(given.model_file)}
            row = measure({**places, "spacing": spacing, "device": "cpu"}, repeats=given.repeats)
            report["rows"].append(row)
            print("{spacing_mm} mm, {network_grid}: {median_s}, ratio {ratio}".format(**row))
    given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {given.output}")


if __name__ == "__main__":
    main()
