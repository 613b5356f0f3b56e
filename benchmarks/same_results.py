# SPDX-License-Identifier: Apache-2.0
"""Compare what two revisions made of the same inputs: label maps voxel by voxel, logs of trainings figure by figure.

Each folder holds one folder a set, as two runs left them: label maps (NIfTI, PNG) of `inferring` with the outputs
`labels`, or `log.csv` of `training`. Files are compared by their path. A label map must have the same numbers of the
same type, a volume also the same affine; every figure of a log but the times and the memory must agree to 1e-6. Other
files are not looked at. One line a set says how much was compared; the exit code is 1 where anything differs, is
missing on either side, or where there is nothing to compare. Run ``python -m benchmarks.same_results OLD_FOLDER
NEW_FOLDER`` from the repository root.
"""

import argparse
import csv
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

LABEL_MAPS = (".nii.gz", ".nii", ".png")
LOG = "log.csv"
TOLERANCE = 1e-6  # of the figures of a log
UNLIKE = ("seconds", "gpu_memory_mb")  # columns of a log that differ from run to run


@dataclass
class Comparison:
    """What was compared in one set, and what of it differs."""

    files: int = 0
    voxels: int = 0
    labelled: int = 0
    voxels_differ: int = 0
    figures: int = 0
    differ: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        maps = f", {self.voxels} voxels, {self.labelled} of them labelled, {self.voxels_differ} voxels differ"
        figures = f", {self.figures} figures of a training"
        shown = (maps if self.voxels else "") + (figures if self.figures else "")
        return f"{self.files} files{shown}, {len(self.differ)} files differ"


def compare_label_maps(old: Path, new: Path, result: Comparison) -> str:
    """Add a pair of label maps to a result; return how they differ, or nothing."""
    (before, affine), (after, other_affine) = _label_map(old), _label_map(new)
    result.voxels += before.size
    result.labelled += np.count_nonzero(before)
    if (before.shape, before.dtype) != (after.shape, after.dtype):
        result.voxels_differ += before.size
        return f"{before.shape} of {before.dtype} and {after.shape} of {after.dtype}"
    differ = np.count_nonzero(before != after)
    result.voxels_differ += differ
    if differ:
        return f"{differ} of {before.size} voxels"
    return "" if np.array_equal(affine, other_affine) else "affine"


def _label_map(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    if path.suffix == ".png":
        return np.asarray(Image.open(path)), None
    image = nib.load(path)
    return np.asanyarray(image.dataobj), image.affine


def compare_logs(old: Path, new: Path, result: Comparison) -> str:
    """Add a pair of logs to a result; return the figures that differ, or nothing."""
    before, after = _figures(old), _figures(new)
    result.figures += len(before)
    if not any(name.endswith(" loss") for name in before):
        return "no loss is logged"
    pairs = {name: (before.get(name, "nothing"), after.get(name, "nothing")) for name in before | after}
    return ", ".join(f"{name} {a} and {b}" for name, (a, b) in pairs.items() if not _agree(a, b))


def _figures(path: Path) -> dict[str, str]:
    """Return the values of a log, each under its epoch and column."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {f"epoch {row['epoch']} {name}": row[name] for row in rows for name in row if name not in UNLIKE}


def _agree(one: str, other: str) -> bool:
    try:
        return one == other or math.isclose(float(one), float(other), rel_tol=0, abs_tol=TOLERANCE)
    except ValueError:  # the name of a stage, or nothing
        return False


def compare(old: Path, new: Path) -> dict[str, Comparison]:
    """Return what the sets below two folders have in common and what not."""
    files = {folder: {p.relative_to(folder) for p in folder.rglob("*") if _is_result(p)} for folder in (old, new)}
    results: dict[str, Comparison] = {}
    for path in sorted(files[old] | files[new]):
        result = results.setdefault(path.parts[0], Comparison())
        result.files += 1
        absent = [folder for folder in (old, new) if path not in files[folder]]
        compare_pair = compare_logs if path.name == LOG else compare_label_maps
        difference = f"not in {absent[0]}" if absent else compare_pair(old / path, new / path, result)
        if difference:
            result.differ.append(f"{path}: {difference}")
    return results


def _is_result(path: Path) -> bool:
    return path.is_file() and (path.name == LOG or path.name.endswith(LABEL_MAPS))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, metavar="OLD_FOLDER", help="results of one revision, a folder a set")
    parser.add_argument("new", type=Path, metavar="NEW_FOLDER", help="results of the other one")
    options = parser.parse_args(argv)
    results = compare(options.old, options.new)
    for name, result in results.items():
        print(f"{name}: {result}", *result.differ, sep="\n  ")
    if not results:
        print("There is nothing to compare: neither folder holds a label map or a log.")
    sys.exit(not results or any(result.differ for result in results.values()))


if __name__ == "__main__":
    main()
