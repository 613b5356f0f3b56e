# SPDX-License-Identifier: Apache-2.0
"""Time the augmentation of volumes beside MONAI's and TorchIO's: one volume with its label, one thread.

Each draws rotation about three axes, scaling, shift and elastic displacements, then changes contrast, gamma, noise and
sharpness, with the same amplitudes. MONAI's ``Rand3DElasticd`` resamples once, as ours does; TorchIO resamples for the
affine part and again for the elastic one, which is how its two transforms are meant to be composed. Calls take turns
in one process, so that whatever else the machine does hits all alike. Run ``python -m benchmarks.volume_augmentation``
from the repository root; TorchIO comes with the extra ``benchmark``.
"""

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import monai
import monai.transforms as mt
import numpy as np
import SimpleITK
import torch
import torchio as tio

from bundle.pyraseg.transforms import (
    RandBlurd,
    RandBrightnessContrastd,
    RandDeformVolumed,
    RandGammad,
    RandNoised,
)

SIZES = {"cube": (128, 128, 128), "hippocampus": (40, 56, 40), "thick slices": (256, 256, 24)}
#: Degrees, relative magnification, share of the length, and voxels between the control points.
SPATIAL = {"rotation": 15.0, "scale": 0.1, "translation": 0.05, "elastic_magnitude": 3.0, "elastic_spacing": 32.0}
INTENSITY = {"contrast": 0.1, "log_gamma": 0.3, "noise_std": 0.05, "blur_sigma": 1.0}
KEYS = ["image", "label"]


def ours(size: tuple[int, ...]) -> dict[str, list[object]]:
    """Return our transforms: spatial and intensity."""
    return {
        "spatial": [RandDeformVolumed(KEYS, mode=["bilinear", "nearest"], **SPATIAL)],
        "intensity": [
            RandBrightnessContrastd("image", prob=1, brightness=0, contrast=INTENSITY["contrast"]),
            RandGammad("image", prob=1, log_gamma=INTENSITY["log_gamma"]),
            RandNoised("image", prob=1, std=INTENSITY["noise_std"]),
            RandBlurd("image", prob=1, sigma=INTENSITY["blur_sigma"]),
        ],
    }


def monais(size: tuple[int, ...]) -> dict[str, list[object]]:
    """Return MONAI's transforms, its elastic part smoothed as far as control points 32 voxels apart smooth ours.

    A Gaussian whose standard deviation is a third of that distance has about the width of a cubic kernel at that
    distance; it divides white noise of [-1, 1) by so much that the magnitude makes up for it.
    """
    sigma = SPATIAL["elastic_spacing"] / 3
    # Standard deviation of smoothed uniform noise in three dimensions: 1/sqrt(3) * (2 sqrt(pi) sigma) ** -1.5.
    magnitude = SPATIAL["elastic_magnitude"] * math.sqrt(3) * (2 * math.sqrt(math.pi) * sigma) ** 1.5
    angle, scale = math.radians(SPATIAL["rotation"]), SPATIAL["scale"]
    gamma = (math.exp(-INTENSITY["log_gamma"]), math.exp(INTENSITY["log_gamma"]))
    blur = {f"sigma_{axis}": (0.0, INTENSITY["blur_sigma"]) for axis in "xyz"}
    return {
        "spatial": [
            mt.Rand3DElasticd(
                KEYS,
                prob=1.0,
                sigma_range=(sigma, sigma),
                magnitude_range=(0, magnitude),
                rotate_range=(angle,) * 3,
                scale_range=(scale,) * 3,
                translate_range=tuple(SPATIAL["translation"] * n for n in size),
                mode=["bilinear", "nearest"],
                padding_mode=["border", "zeros"],
            )
        ],
        "intensity": [
            mt.RandScaleIntensityd("image", prob=1.0, factors=INTENSITY["contrast"]),
            mt.RandAdjustContrastd("image", prob=1.0, gamma=gamma),
            mt.RandGaussianNoised("image", prob=1.0, std=INTENSITY["noise_std"]),
            mt.RandGaussianSmoothd("image", prob=1.0, **blur),
        ],
    }


def torchios(size: tuple[int, ...]) -> dict[str, list[object]]:
    """Return TorchIO's transforms; at least five control points, displacements up to (not about) the amplitude."""
    points = tuple(max(5, round(n / SPATIAL["elastic_spacing"]) + 3) for n in size)
    shift = SPATIAL["translation"]
    return {
        "spatial": [
            tio.RandomAffine(
                scales=SPATIAL["scale"],
                degrees=SPATIAL["rotation"],
                translation=tuple(bound for n in size for bound in (-shift * n, shift * n)),
                isotropic=True,
            ),
            tio.RandomElasticDeformation(num_control_points=points, max_displacement=SPATIAL["elastic_magnitude"]),
        ],
        "intensity": [  # TorchIO has no change of contrast beside its gamma
            tio.RandomGamma(log_gamma=INTENSITY["log_gamma"]),
            tio.RandomNoise(std=(0, INTENSITY["noise_std"])),
            tio.RandomBlur(std=(0, INTENSITY["blur_sigma"])),
        ],
    }


MAKERS: dict[str, Callable[[tuple[int, ...]], dict[str, list[object]]]] = {
    "Pyraseg": ours,
    "MONAI": monais,
    "TorchIO": torchios,
}


def measure(size: tuple[int, ...], *, repeats: int) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of the parts of each library, called in turn."""
    image = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    label = (image > 0.5).to(torch.uint8)
    subject = tio.Subject(image=tio.ScalarImage(tensor=image), label=tio.LabelMap(tensor=label))
    data = {"Pyraseg": {"image": image, "label": label}, "TorchIO": subject}
    data["MONAI"] = data["Pyraseg"]
    chains = {name: make(size) for name, make in MAKERS.items()}
    turns = list(chains)
    milliseconds = {name: {"spatial": [], "intensity": [], "total": []} for name in turns}
    for _ in range(1 + repeats):
        turns.append(turns.pop(0))  # whoever follows the largest finds a cold cache: each has its turn at that
        for name in turns:
            item, total = data[name], 0.0
            for part, transforms in chains[name].items():
                start = time.perf_counter()
                for transform in transforms:
                    item = transform(item)
                elapsed = 1e3 * (time.perf_counter() - start)
                total += elapsed
                milliseconds[name][part].append(elapsed)
            milliseconds[name]["total"].append(total)
    return {  # the first calls build matrices
        name: {part: round(statistics.median(values[1:]), 2) for part, values in parts.items()}
        for name, parts in milliseconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="volumes to time")
    parser.add_argument("--repeats", type=int, default=9, help="timed calls of each; the median is reported")
    parser.add_argument("--note", default="", help="what else the machine did, kept in the result")
    folder = Path(__file__).parent / "results" / "volume_augmentation"
    parser.add_argument("--output", type=Path, default=folder / "results.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # TorchIO resamples with it
    versions = {"python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__}
    versions |= {"torchio": tio.__version__, "numpy": np.__version__}
    report = {"repeats": options.repeats, "threads": 1, "spatial": SPATIAL, "intensity": INTENSITY}
    report |= {"note": options.note, "versions": versions, "machine": platform.machine()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in options.sizes:
        medians = measure(SIZES[name], repeats=options.repeats)
        total = {library: parts["total"] for library, parts in medians.items()}
        ratios = {library: round(total[library] / total["Pyraseg"], 1) for library in total if library != "Pyraseg"}
        rows.append({"volume": name, "size": SIZES[name], "median_ms": medians, "times_as_fast": ratios})
        print(f"{name} {SIZES[name]}: {medians}; Pyraseg is {ratios} times as fast", flush=True)
        options.output.write_text(json.dumps(report | {"results": rows}, indent=2) + "\n")  # the whole takes minutes
    print(f"Written to {options.output}")


if __name__ == "__main__":
    main()
