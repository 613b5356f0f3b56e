# SPDX-License-Identifier: Apache-2.0
"""What all runs of the comparison share: the cases and their split, and the folder that a run leaves.

A run leaves `run.json`, which says what it was and what it cost, and label maps on the grids of the images, as
`labels/validation/CASE.nii.gz` and `labels/test/CASE.nii.gz`. `benchmarks.hippocampus.score` reads no more than that.
"""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.pyraseg.core import NIFTI, PyrasegError, replacing, without_suffix
from bundle.pyraseg.datalists import load_cases, split_hash

#: The parts of the split that are predicted.
PREDICTED = ("validation", "test")
CLASS_NAMES = ("background", "anterior", "posterior")
#: The split of the bundle's tasks, whatever seed a training has.
SPLIT_SEED = 0


def read_split(dataset_dir: Path) -> tuple[dict[str, dict[str, tuple[Path, Path]]], dict[str, Any]]:
    """Return image and label of every case by part and name, and the split's hash with the number of cases.

    Raises:
        PyrasegError: an image is no NIfTI file, or what `load_cases` raises.
    """
    cases = load_cases(dataset_dir, seed=SPLIT_SEED, class_names=CLASS_NAMES)
    split = {"hash": split_hash(cases), **{part: len(items) for part, items in cases.items()}}
    found = {
        part: {case_name(item["image"]): (Path(item["image"]), Path(item["label"])) for item in items}
        for part, items in cases.items()
    }
    return found, split


def case_name(path: str | Path) -> str:
    """Return the name of a case from the path of its image.

    >>> case_name("images/hippocampus_001.nii.gz")
    'hippocampus_001'
    """
    name = Path(path).name
    if not name.lower().endswith(NIFTI):
        raise PyrasegError(f"{path} is no NIfTI file: this comparison is of NIfTI volumes, as the Decathlon has them.")
    return without_suffix(name)


def label_file(run: Path, part: str, case: str) -> Path:
    """Return where a run leaves the label map of a case."""
    return run / "labels" / part / f"{case}.nii.gz"


def read_run(run: Path) -> dict[str, Any]:
    """Return what a run says of itself.

    Raises:
        PyrasegError: it is not finished.
    """
    path = run / "run.json"
    if not path.is_file():
        raise PyrasegError(f"{run} holds no run.json: the run is not finished. Start it again, it goes on.")
    return json.loads(path.read_text(encoding="utf-8"))


def write_run(run: Path, record: Mapping[str, Any]) -> None:
    """Write what a run says of itself, last of all, with the machine that it ran on."""
    where = {"processor": processor(), "machine_processors": os.cpu_count(), "python": platform.python_version()}
    with replacing(run / "run.json") as temporary:
        temporary.write_text(json.dumps({**record, **where}, indent=1) + "\n", encoding="utf-8")


def processor() -> str:
    """Return the processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
