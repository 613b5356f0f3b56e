# SPDX-License-Identifier: Apache-2.0
"""Time RandDeformd against MONAI's Rand2DElasticd: one slice with its mask, the same settings, one thread.

Both draw an elastic deformation and an affine one and resample once; calls alternate in one process, so that whatever
else the machine does hits both alike. Run ``python -m benchmarks.deformation`` from the repository root.
"""

import argparse
import json
import math
import platform
import statistics
import time
from pathlib import Path

import monai
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Rand2DElasticd

from bundle.pyraseg.transforms import RandDeformd

SETTINGS = {"rotation": 15.0, "scale": 0.1, "elastic_magnitude": 3.0, "elastic_spacing": 32}
COMMON = {"keys": ["image", "label"], "prob": 1.0, "mode": ["bilinear", "nearest"], "padding_mode": "border"}


def transforms() -> dict[str, object]:
    """Return both transforms with the same settings, and ours with the grid distortion that MONAI's lacks."""
    angle, scale = math.radians(SETTINGS["rotation"]), SETTINGS["scale"]
    return {
        "Rand2DElasticd": Rand2DElasticd(
            spacing=SETTINGS["elastic_spacing"],
            magnitude_range=(0, SETTINGS["elastic_magnitude"]),
            rotate_range=angle,
            scale_range=(scale, scale),
            **COMMON,
        ),
        "RandDeformd": RandDeformd(**SETTINGS, **COMMON),
        "RandDeformd with grid distortion": RandDeformd(**SETTINGS, grid_distortion=0.2, **COMMON),
    }


def measure(*, size: int, channels: int, repeats: int) -> dict[str, float]:
    """Return the median milliseconds of each transform, called in turn."""
    generator = torch.Generator().manual_seed(0)
    image = MetaTensor(torch.rand(channels, size, size, generator=generator))
    data = {"image": image, "label": (image[:1] > 0.5).to(torch.uint8)}
    turns = list(transforms().items())
    milliseconds: dict[str, list[float]] = {name: [] for name, _ in turns}
    for repeat in range(-3, repeats):
        turns.append(turns.pop(0))  # whoever follows MONAI finds a cold cache: each has its turn at that
        for name, transform in turns:
            transform.set_random_state(repeat + 3)
            start = time.perf_counter()
            transform(data)
            if repeat >= 0:  # the first calls build the matrices
                milliseconds[name].append(1e3 * (time.perf_counter() - start))
    return {name: round(statistics.median(values), 3) for name, values in milliseconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="pixels per side")
    parser.add_argument("--repeats", type=int, default=100, help="timed calls per transform; the median is reported")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "deformation.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__}
    versions["numpy"] = np.__version__
    print(", ".join(f"{name} {version}" for name, version in versions.items()), "| 1 thread, CPU", flush=True)
    rows = []
    for channels in (1, 3):
        medians = measure(size=options.size, channels=channels, repeats=options.repeats)
        ratio = round(medians["Rand2DElasticd"] / medians["RandDeformd"], 1)
        rows.append({"channels": channels, "median_ms": medians, "ratio": ratio})
        timings = ", ".join(f"{name} {value:.2f} ms" for name, value in medians.items())
        print(f"{channels} x {options.size} x {options.size} float32 and its uint8 mask: {timings}")
        print(f"RandDeformd is {ratio:.1f} times as fast as Rand2DElasticd", flush=True)
    report = {"size": options.size, "repeats": options.repeats, "threads": 1, "settings": SETTINGS}
    report |= {"versions": versions, "machine": platform.machine(), "results": rows}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"Written to {options.output}")


if __name__ == "__main__":
    main()
