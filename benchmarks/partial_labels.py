# SPDX-License-Identifier: Apache-2.0
"""Train on all annotations of a phantom study, and on half of them, with and without saying which.

python -m benchmarks.partial_labels run
python -m benchmarks.partial_labels table

Of every two cases for training and validation one keeps the labels of liver and spleen, the other those of lesion and
kidney; the labels of the others are set to 0. The test cases keep all of theirs. `run` takes ten
minutes of a processor.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import nibabel as nib
import numpy as np
from monai.transforms import Compose, LoadImaged

from bundle.pyraseg.core import task_files, write_json
from bundle.pyraseg.datalists import load_cases
from bundle.pyraseg.transforms import LoadLabeld
from bundle.pyraseg_tools.commands.network_table import replace_between_markers
from bundle.pyraseg_tools.datasets.phantom import write_phantom_study

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "partial_labels.json"
PAGE = ROOT / "docs" / "training.md"
CLASSES = ("background", "liver", "lesion", "spleen", "kidney")
HALVES = (("liver", "spleen"), ("lesion", "kidney"))
#: What a training knows of the annotations.
ARMS = {
    "all": "all annotations",
    "annotated": "half of them, `annotated` says which",
    "twice": "the same, as many draws of each annotation",
    "background": "half of them, 0 taken for background",
}
PATIENTS, SIZE = 36, 96
SETTINGS = {
    "spacing": 4.0,
    "slice_size": [96, 96],
    "windows": [{"center": 90, "width": 180}],
    "context_slices": 0,
    "samples_per_epoch": 256,
    "epochs": 8,
    "val_interval": 8,
    "num_workers": 0,
}


def bundle(run_id: str, program: str, *options: str) -> None:
    """Run a program of the default task on one thread; its output goes to the screen."""
    files = str([str(file) for file in task_files(ROOT / "configs", program, None)])
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", files, *options]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)


def processor_seconds() -> float:
    """Return the processor time of the programs that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_arms(study: Path, work: Path) -> None:
    """Write for every arm the folder of a data set with its own data list and labels, and the images of the study."""
    load = Compose(
        [
            LoadImaged("image", reader="bundle.pyraseg.transforms.MedicalImageReader", ensure_channel_first=True),
            LoadLabeld("label", class_names=CLASSES),
        ]
    )
    cases = load_cases(study)
    lists = {arm: {"test": cases["test"]} for arm in ARMS}
    for part in ("training", "validation"):
        for arm in ARMS:
            lists[arm][part] = []
        for number, case in enumerate(cases[part]):
            names = HALVES[number % len(HALVES)]
            label = load(case)["label"]
            kept = np.isin(np.asarray(label)[0], [CLASSES.index(name) for name in names])
            path = work / "halves" / f"{part}_{number:02d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            halved = np.where(kept, np.asarray(label)[0], 0).astype(np.uint8)
            nib.save(nib.Nifti1Image(halved, np.asarray(label.affine)), path)
            half = {**case, "label": str(path)}
            lists["all"][part].append(case)
            for arm in ("annotated", "twice"):
                lists[arm][part].append({**half, "annotated": list(names)})
            lists["background"][part].append(half)
    for arm, content in lists.items():
        write_json(work / arm / "data" / "datalist.json", content)


def train(arm: str, seed: int, work: Path) -> dict[str, Any]:
    """Train and evaluate one arm; return the Dice of every class over the test cases, and the minutes it took."""
    folder = work / arm / f"seed_{seed}"
    options = {**SETTINGS, "seed": seed, "dataset_dir": str(work / arm / "data"), "cache_dir": str(work / "cache")}
    options |= {"output_dir": str(folder), "model_file": str(folder / "model.pt")}
    if arm == "twice":
        options |= {key: 2 * SETTINGS[key] for key in ("epochs", "val_interval")}
    pairs = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    before = processor_seconds()
    bundle("training", "train", *pairs, "--previews", "0")
    minutes = (processor_seconds() - before) / 60
    options["output_dir"] = str(folder / "test")
    pairs = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    bundle("evaluating", "evaluate", *pairs, "--uncertainty_rotations", "[]", "--report", "False")
    summary = json.loads((folder / "test" / "summary.json").read_text(encoding="utf-8"))
    dice = {name: round(of["metrics"]["dice"]["mean"], 4) for name, of in summary["classes"].items()}
    return {"arm": arm, "seed": seed, "dice": dice, "processor_minutes": round(minutes, 1)}


def run(work: Path, seeds: int) -> None:
    """Run all arms and keep the results."""
    study = work / "study"
    if not study.exists():
        write_phantom_study(study, patients=PATIENTS, size=SIZE, workers=1)
        write_arms(study, work)
    settings = {"patients": PATIENTS, "size": SIZE, "halves": HALVES, **SETTINGS}
    runs: list[dict[str, Any]] = []
    for seed in range(seeds):
        for arm in ARMS:
            runs.append(train(arm, seed, work))
            write_json(RESULTS, {"settings": settings, "runs": runs}, indent=1)


def table(content: dict[str, Any]) -> str:
    """Return the table of the docs: the mean over the seeds of every class's Dice, and their mean."""
    names = CLASSES[1:]
    lines = [f"| labels | {' | '.join(names)} | mean |", "|---" * (len(names) + 2) + "|"]
    for arm, told in ARMS.items():
        runs = [of["dice"] for of in content["runs"] if of["arm"] == arm]
        dice = [fmean(of[name] for of in runs) for name in names]
        lines.append(f"| {told} | {' | '.join(f'{value:.3f}' for value in (*dice, fmean(dice)))} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    programs = parser.add_subparsers(dest="program", required=True)
    running = programs.add_parser("run", help="train and evaluate all arms, and keep the results")
    running.add_argument("--work", type=Path, default=ROOT / "runs" / "partial_labels", help="default: %(default)s")
    running.add_argument("--seeds", type=int, default=1, help="trainings of each arm (default: %(default)s)")
    programs.add_parser("table", help=f"write the table of {os.path.relpath(PAGE, ROOT)} from the results")
    options = parser.parse_args(argv)
    if options.program == "run":
        run(options.work.resolve(), options.seeds)
    else:
        text = table(json.loads(RESULTS.read_text(encoding="utf-8")))
        PAGE.write_text(
            replace_between_markers(PAGE.read_text(encoding="utf-8"), "partial labels", text), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
