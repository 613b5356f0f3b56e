# SPDX-License-Identifier: Apache-2.0
"""Segment a large CT series with a network that sees volumes in three dimensions: peak memory, seconds, labels.

The series is a phantom patient of 512 x 512 x 300 voxels, 1 mm between slices; the network that of
`configs/volumes_inference.json`, with random weights, whose labels are ragged and everywhere: the most that the way
back to the grid of the series can have to do. The bundle and the exported model without PyTorch segment it, each in a
process of its own. What such a process takes when its libraries are loaded and its network is built (the resident
memory, `VmRSS`) is the base; what it takes beyond that at its peak (`VmHWM`) counts. The label maps are compared voxel
by voxel.

``python -m benchmarks.large_volume`` from the repository root; ``--size 128 40`` is a small one.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser

from benchmarks.memory import CONFIG, PATIENT, ROOT, RUNTIME, child, differing, python
from benchmarks.networks import processor
from benchmarks.trials import versions
from bundle.pyraseg_tools.datasets.phantom import phantom_case, write_series

RESULTS = ROOT / "benchmarks" / "results" / "large_volume" / "large_volume.json"
FILES = [str(ROOT / "configs" / name) for name in ("inference.json", "volumes_inference.json")]
#: mm between slices of the series.
STEP = 1.0


def write_volume(folder: Path, side: int, slices: int) -> None:
    """Write a phantom patient's slices, repeated, as a DICOM series."""
    case = phantom_case(2024, PATIENT, size=side)
    step = case.slice_step / np.linalg.norm(case.slice_step) * STEP
    changed = {
        "hu": case.hu[np.arange(slices) * len(case.hu) // slices],
        "positions": np.round(case.positions[0] + np.arange(slices)[:, None] * step, 4),
    }
    write_series(folder, replace(case, **changed, slice_step=step, outside=None), seed=2024, number=1)


def write_weights(path: Path, settings: dict[str, Any]) -> None:
    """Write random weights of the network that a config has."""
    parser = ConfigParser()
    parser.read_config(FILES)
    parser.update({**settings, "bundle_root": str(ROOT)})
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Return what both programs take, and how their labels compare."""
    side, slices = options.size
    write_volume(work / "in" / "series", side, slices)
    settings = {"spacing": options.spacing, "patch_size": options.patch_size, "channels": options.channels}
    weights = work / "large_volume.pt"
    write_weights(weights, settings)
    places = {"dataset_dir": str(work / "in"), "output_dir": str(work / "bundle"), "model_file": str(weights)}
    given = {"files": FILES, "base": ["network", "evaluator"], "metric": ""}
    run = {**places, **settings, "device": "cpu", "outputs": ["labels"], "bundle_root": str(ROOT)}
    rows = [{"program": "bundle", **child(ROOT, CONFIG, threads=options.threads, options=run, **given)}]
    print(json.dumps(rows[-1]), flush=True)
    words = [word for name, value in settings.items() for word in (f"--{name}", json.dumps(value))]
    export = ["-m", "bundle.pyraseg", "export", *FILES, "--model-file", str(weights), *words]
    python(ROOT, *export, threads=options.threads)
    model = {"model": str(weights.with_suffix(".onnx")), "input": str(work / "in"), "output": str(work / "runtime")}
    rows.append({"program": "runtime", **child(ROOT, RUNTIME, threads=options.threads, **model)})
    print(json.dumps(rows[-1]), flush=True)
    first, second = (
        np.asanyarray(nib.load(next((work / program).rglob("*.nii.gz"))).dataobj) for program in ("bundle", "runtime")
    )
    return {**settings, "rows": rows, "labels": differing(first, second)}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[512, 300], metavar=("SIDE", "SLICES"))
    parser.add_argument("--spacing", type=float, nargs=3, default=[1.5, 1.5, 1.5], help="mm that the network sees")
    parser.add_argument("--patch-size", type=int, nargs=3, default=[96, 96, 96])
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--note", default="", help="what is to be known of the machine, such as what else it did")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    report: dict[str, Any] = {"size": [options.size[0], *options.size], "step_mm": STEP, "threads": options.threads}
    report |= {"note": options.note, "processor": processor(), "versions": versions()}
    with tempfile.TemporaryDirectory() as name:
        report |= measure(options, Path(name))
    print("{differ} of {voxels} voxels differ, {classes} classes".format(**report["labels"]))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {options.output}")


if __name__ == "__main__":
    main()
