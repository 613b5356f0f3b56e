# SPDX-License-Identifier: Apache-2.0
"""Measure how the search for leaks tells copies of volumes from volumes of other people in the same frame.

The set is made by code: head MR images of people in one frame, and changed copies of some. It is not the set on which
the bars of the search were set (`tests/helpers/heads.py` is of that kind): there, each person was a few ellipsoids of
HU with a texture added. Here, one anatomy with T1 contrast is bent by a smooth displacement of each person's own and
tilted by up to 2 degrees; the sulci, partly the person's own, are sheets instead of a Gaussian texture; there are eyes,
a falx, a neck, a bias field, and Rician noise whose level varies. Nothing may be tuned on it.

Run ``python -m benchmarks.copies`` from the repository root: it takes minutes on one core.
"""

import argparse
import io
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates, zoom
from tqdm import tqdm

from benchmarks.networks import processor
from bundle.pyraseg.core import replacing
from bundle.pyraseg.datalists import THRESHOLD, Likeness, alike_volumes, copies_among, reduce_volume
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "copies.json"
PAGE = ROOT / "docs" / "data.md"

SEED = 20261128
PEOPLE, SIZE = 286, 64


def field(random: np.random.Generator, size: int, scale: float) -> np.ndarray:
    """Return smooth noise of unit variance on a cube, `scale` voxels wide."""
    noise = gaussian_filter(random.normal(size=(size,) * 3), scale)
    return noise / noise.std()


def person(index: int, size: int = SIZE) -> np.ndarray:
    """Return the head of a person as T1-weighted MR shows it, (size, size, size) float32 of whole numbers."""
    common, random = np.random.default_rng([SEED, 0]), np.random.default_rng([SEED, 1, index])
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij"))
    bent = grid + 0.035 * np.stack([field(random, size, size / 7) for _ in range(3)])
    angles = np.radians(random.uniform(-2, 2, 3))
    skew = np.cross(np.eye(3), angles)  # a rotation, for angles as small as these
    turn = (np.eye(3) + skew) * (1 + 0.03 * random.normal(size=(3, 1)))
    x, y, z = np.tensordot(turn, bent, 1) + 0.015 * random.normal(size=(3, 1, 1, 1))

    def ball(center: tuple[float, float, float], axes: tuple[float, float, float]) -> np.ndarray:
        offsets = ((at - middle) / axis for at, middle, axis in zip((np.abs(x), y, z), center, axes, strict=True))
        return np.sqrt(sum(offset**2 for offset in offsets))

    skull = 0.055 * (1 + 0.25 * random.normal())
    radius = np.sqrt((x / 0.70) ** 2 + (y / 0.86) ** 2 + ((z - 0.1) / 0.78) ** 2)
    in_common = map_coordinates(field(common, size, size / 26), (np.stack([x, y, z]) + 1) / 2 * (size - 1), order=1)
    folds = np.abs(0.8 * in_common + 0.6 * field(random, size, size / 26))
    depth = 0.88 - skull - radius  # below the skull
    brain = np.where(depth < 0.10 + 0.05 * folds, 90.0, 130.0)  # cortex, white matter
    brain[(folds < 0.25) & (depth < 0.25)] = 35  # sulci
    brain[(np.abs(x) < 0.02) & (z > 0.15)] = 40  # falx
    width = 0.07 * np.exp(0.25 * random.normal())
    brain[ball((0.13 + 0.03 * np.tanh(random.normal()), 0.0, 0.15), (width, 0.34, 0.13)) < 1] = 25  # ventricles
    brain[ball((0.2, 0.05, 0.02), (0.1, 0.16, 0.1)) < 1] = 105  # deep gray matter
    neck = (np.sqrt((x / 0.42) ** 2 + ((y + 0.1) / 0.5) ** 2) < 1) & (z < -0.35)
    values = np.select([depth > 0, radius < 0.88, radius < 0.92, radius < 1, neck], [brain, 15, 60, 150, 80], 0.0)
    values[ball((0.28, 0.68, -0.1), (0.11, 0.11, 0.11)) < 1] = 45  # eyes
    nose = ball((0.12 + 0.03 * random.normal(), 0.6, -0.35), (0.1, 0.2, 0.14 * np.exp(0.2 * random.normal())))
    values[nose < 1] = 5  # sinuses
    values = gaussian_filter(values, 0.6) * np.exp(0.12 * field(random, size, size / 4))
    noise = random.uniform(2, 5) * random.normal(size=(2, *values.shape))
    return np.rint(np.hypot(values + noise[0], noise[1])).astype(np.float32)


def windowed(values: np.ndarray) -> np.ndarray:
    """Return gray levels of 8 bits in a window on the brain, as an exported picture has them."""
    low, high = np.percentile(values, (40, 97))
    return np.rint((values - low).clip(0, high - low) / (high - low) * 255)


def jpeg(values: np.ndarray, quality: int) -> np.ndarray:
    """Return every slice in that window, saved as JPEG and read again."""
    slices = []
    for plane in np.moveaxis(windowed(values).astype(np.uint8), 2, 0):
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(plane)).save(file, "JPEG", quality=quality)
        slices.append(np.asarray(Image.open(file)))
    return np.stack(slices, axis=2)


def cropped(values: np.ndarray, share: float) -> np.ndarray:
    """Return what is left when this share is cut off at each of the six faces."""
    return values[tuple(slice(round(share * length), length - round(share * length)) for length in values.shape)]


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "3/4 of the size": lambda v: zoom(v, 0.75, order=1),
    "1/2 of the size": lambda v: zoom(v, 0.5, order=1),
    "windowed": windowed,
    "windowed, JPEG of quality 95": lambda v: jpeg(v, 95),
    "windowed, JPEG of quality 85": lambda v: jpeg(v, 85),
    "mirrored in x": lambda v: v[::-1],
    "mirrored in y": lambda v: v[:, ::-1],
    "mirrored in z": lambda v: v[:, :, ::-1],
    "cropped by 5 % at each edge": lambda v: cropped(v, 0.05),
    "cropped by 10 % at each edge": lambda v: cropped(v, 0.1),
    "shifted by a slice": lambda v: np.roll(v, 1, axis=2),
    "6 bits": lambda v: np.rint(v / v.max() * 63),
    "4 bits": lambda v: np.rint(v / v.max() * 15),
    "inverted": lambda v: v.max() - v,
    "lower half of the slices": lambda v: v[..., : v.shape[2] // 2],
    "upper half of the slices": lambda v: v[..., v.shape[2] // 2 :],
    "3/4 of the size, windowed": lambda v: windowed(zoom(v, 0.75, order=1)),
    "mirrored in x, windowed, JPEG of quality 85": lambda v: jpeg(v[::-1], 85),
}


def measure(people: int, size: int) -> dict[str, Any]:
    """Return what the search finds among the people alone, and with a copy of one of them for every change."""
    volumes = [person(index, size) for index in tqdm(range(people), desc="Making heads", disable=None)]
    origins = {name: place * (people // len(CHANGES)) for place, name in enumerate(CHANGES)}
    copies = [np.asarray(CHANGES[name](volumes[origin]), np.float32) for name, origin in origins.items()]
    planted = {(origin, people + place): name for place, (name, origin) in enumerate(origins.items())}
    alone, _ = searched(volumes, {})
    together, alike = searched([*volumes, *copies], planted)
    found = copies_among(alike)
    return {
        "alone": alone,
        "with_copies": together,
        "copies": [
            {"change": name, "person": pair[0], "found": pair in found, **figures(alike.get(pair))}
            for pair, name in planted.items()
        ],
    }


def searched(
    volumes: list[np.ndarray], planted: dict[tuple[int, int], str]
) -> tuple[dict[str, Any], dict[tuple[int, int], Likeness]]:
    """Return a report of one search, and all pairs above the threshold."""
    start = time.process_time()
    alike = alike_volumes([reduce_volume(values, np.eye(4)) for values in volumes], THRESHOLD)
    seconds = time.process_time() - start
    false = [{"pair": list(pair), **figures(each)} for pair, each in copies_among(alike).items() if pair not in planted]
    strangers = [pair for pair in alike if pair not in planted]
    report = {
        "volumes": len(volumes),
        "above_threshold": len(alike),
        "strangers_above_threshold": len(strangers),
        "highest_excess_of_strangers": round(max((alike[pair].excess for pair in strangers), default=-1.0), 3),
        "false_pairs": false,
        "processor_seconds": round(seconds, 1),
    }
    print(report, flush=True)
    return report, alike


def figures(likeness: Likeness | None) -> dict[str, float | None]:
    """Return the figures of a pair; None where it is no candidate or correlates less than the threshold."""
    if likeness is None:
        return dict.fromkeys(Likeness._fields)
    return {name: round(value, 3) for name, value in likeness._asdict().items()}


def table(report: dict[str, Any]) -> str:
    """Return the tables of the docs: of the two searches, and of the planted copies."""
    alone, together, copies = report["alone"], report["with_copies"], report["copies"]
    lines = [
        f"| | {alone['volumes']} people | with {len(copies)} copies |",
        "|---|---|---|",
        f"| copies that are found | | {sum(copy['found'] for copy in copies)} of {len(copies)} |",
    ]
    for label, count in (
        ("pairs of two people that are called copies", lambda search: len(search["false_pairs"])),
        ("pairs of two people above the threshold", lambda search: search["strangers_above_threshold"]),
        ("seconds of a processor core, without reading", lambda search: f"{search['processor_seconds']:.0f}"),
    ):
        lines.append(f"| {label} | {count(alone)} | {count(together)} |")
    lines += ["", "| copy | found | correlation | residual | needed |", "|---|---|---|---|---|"]
    for copy in copies:
        cells = ["" if copy[name] is None else f"{copy[name]:.2f}" for name in Likeness._fields]
        lines.append(f"| {copy['change']} | {'yes' if copy['found'] else 'no'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=PEOPLE, help="default: %(default)s")
    parser.add_argument("--size", type=int, default=SIZE, help="voxels along each edge (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=PAGE, help="whose tables are replaced (default: %(default)s)")
    options = parser.parse_args(argv)
    report = {
        "seed": SEED,
        "people": options.people,
        "size": options.size,
        "threshold": THRESHOLD,
        "versions": {"python": python_version(), **{name: version(name) for name in ("numpy", "scipy", "pillow")}},
        "processor": processor(),
        **measure(options.people, options.size),
    }
    with replacing(options.output) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = replace_between_markers(options.page.read_text(encoding="utf-8"), "copies", table(report))
    with replacing(options.page) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"Written to {options.output} and to the tables of {options.page}")


if __name__ == "__main__":
    main()
