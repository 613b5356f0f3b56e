# SPDX-License-Identifier: Apache-2.0
"""Measure the peak memory of large inputs with many classes, here and at an older revision, and compare the results.

The inputs: a CT series of many slices of 512 x 512, a phantom patient, segmented by the bundle and by the exported
model without PyTorch; the same series validated as a training does it; and a photograph of many megapixels. The network
is that of the included phantom model with a classifier of random weights for so many classes, at the default spacing.

Each measurement is a process of its own. What it takes when its libraries are loaded and its network is built (the
resident memory, `VmRSS`) is the base; what it takes beyond that at its peak (`VmHWM`) counts. The older revision holds
all classes of all slices at a time, so it gets fewer slices; this revision gets both numbers. The labels are compared
voxel by voxel: with as many slices, and the first slices of the whole series with those of the short one, whose last
slice has another neighbor. Run ``python -m benchmarks.memory --old WORKTREE`` from the repository root, where WORKTREE
is a worktree of the older revision with a virtual environment ``.venv`` of its own; without it, this revision alone is
measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from PIL import Image

from benchmarks.networks import processor
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.training import read_model
from bundle.pyraseg.transforms import MedicalImageReader
from bundle.pyraseg_tools.datasets.phantom import phantom_case, write_series

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "memory.json"
SIDE = 512
PATIENT = 0  # of seed 2024: its slices are upright and as wide as `SIDE`
KINDS = ("inferring", "runtime", "validating", "photograph")
#: What every measuring process begins with; it runs in either revision.
STATUS = """
import json, sys, time
def memory(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith(what))
def reset_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
given = json.loads(sys.argv[1])
"""
#: Run a config, beyond what its network and its libraries take.
CONFIG = (
    STATUS
    + """
from monai.bundle import ConfigWorkflow
workflow = ConfigWorkflow(given["files"], workflow_type="train", run_id="run", **given["options"])
workflow.initialize()
for name in given["base"]:
    workflow.parser.get_parsed_content(name)
base = memory("VmRSS")
reset_peak()
start = time.perf_counter()
workflow.run()
found = {"base_mb": base, "peak_mb": memory("VmHWM") - base, "seconds": round(time.perf_counter() - start, 1)}
if given["metric"]:
    found["metric"] = workflow.parser.get_parsed_content(given["metric"]).state.metrics
print(json.dumps(found))
"""
)
#: Run the runtime, beyond what a loaded graph and its libraries take.
RUNTIME = (
    STATUS
    + """
from bundle.pyraseg.runtime.__main__ import main
from bundle.pyraseg.runtime import images, writers
from bundle.pyraseg.runtime.model import Model
import nibabel
model = Model(given["model"], threads=given["threads"])
base = memory("VmRSS")
del model
reset_peak()
start = time.perf_counter()
places = [given["model"], given["input"], given["output"]]
assert main([*places, "--format", "nifti", "--threads", str(given["threads"])]) == 0
seconds = round(time.perf_counter() - start, 1)
print(json.dumps({"base_mb": base, "peak_mb": memory("VmHWM") - base, "seconds": seconds}))
"""
)
#: What a photograph's overlay builds upon, in the older revision and in this one.
PHOTOGRAPHS: tuple[list[str], list[str]] = ([], ["photographs_inference.json"])


def class_names(count: int) -> list[str]:
    return ["background", *(f"class {number}" for number in range(1, count))]


def write_series_of(folder: Path, slices: int, classes: int) -> None:
    """Write the first slices of a phantom patient as DICOM, and on its grid `labels.nii.gz` with every class."""
    case = phantom_case(2024, PATIENT, size=SIDE)
    step = case.slice_step / 5
    changed = {
        "hu": case.hu[np.arange(slices) % len(case.hu)],
        "positions": np.round(case.positions[0] + np.arange(slices)[:, None] * step, 4),
    }
    series = folder / "in" / "series"
    write_series(series, replace(case, **changed, slice_step=step, outside=None), seed=2024, number=1)
    reader = MedicalImageReader()
    image, meta = reader.get_data(reader.read(series))
    cells = np.add.outer(*(np.arange(side) // 32 for side in image.shape[:2]))
    labels = ((7 * cells[..., None] + np.arange(slices)) % classes).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, meta["affine"]), folder / "labels.nii.gz")
    item = {"image": "in/series", "label": "labels.nii.gz"}
    parts = {part: [{**item, "patient": part}] for part in ("training", "validation", "test")}
    (folder / "datalist.json").write_text(json.dumps(parts), encoding="utf-8")


def write_photograph(path: Path, megapixels: float) -> None:
    """Write a JPEG of a dark spot on skin."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    width = round(1.5 * height)
    rows, columns = np.ogrid[-1 : 1 : 1j * height, -1.5 : 1.5 : 1j * width]
    dark = (rows**2 + (1.2 * columns) ** 2 < 0.2)[..., None]
    image = np.where(dark, np.uint8((90, 50, 40)), np.uint8((224, 172, 150)))
    path.parent.mkdir(parents=True)
    Image.fromarray(image).save(path, quality=90)


def write_weights(path: Path, classes: int) -> None:
    """Write the weights of the phantom model, with a classifier for other classes that a seed draws."""
    weights = dict(read_model(ROOT / "models" / "phantom.pt")[0])
    torch.manual_seed(0)
    for name, value in weights.items():
        if ".classifier." in name:
            weights[name] = torch.randn(classes, *value.shape[1:])
    torch.save(weights, path)  # a plain state dict, without the settings: either revision reads it


def python(root: Path, *arguments: str, threads: int) -> str:
    """Run Python in a revision and return what it printed.

    Raises:
        RuntimeError: it failed.
    """
    program = sys.executable if root == ROOT else root / ".venv" / "bin" / "python"
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([program, *arguments], cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"A measurement in {root} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def child(root: Path, program: str, *, threads: int, **given: Any) -> dict[str, Any]:
    """Run a measuring process in a revision and return what it found."""
    return json.loads(
        python(root, "-c", program, json.dumps(given | {"threads": threads}), threads=threads).splitlines()[-1]
    )


class Measurement:
    """Measure a revision on inputs of one size, below a folder.

    Args:
        root: of the revision.
        folder: where its inputs are, and its results go.
        weights: of the network.
        classes: number of them.
        threads: of PyTorch and ONNX Runtime.
    """

    def __init__(self, root: Path, folder: Path, weights: Path, *, classes: int, threads: int) -> None:
        self.root = root
        self.folder = folder
        self.output = folder / ("new" if root == ROOT else "old")
        self.weights = weights
        self.names = class_names(classes)
        self.threads = threads

    def _config(self, files: list[str], base: list[str], metric: str = "", **options: Any) -> dict:
        options = {"model_file": str(self.weights), "device": "cpu", "class_names": self.names, **options}
        paths = [str(self.root / "configs" / file) for file in files]
        given = {"files": paths, "options": options, "base": base, "metric": metric}
        return child(self.root, CONFIG, threads=self.threads, **given)

    def inferring(self) -> dict[str, Any]:
        places = {"dataset_dir": str(self.folder / "in"), "output_dir": str(self.output / "inferring")}
        return self._config(["inference.json"], ["network", "evaluator"], terminology={}, **places)

    def validating(self) -> dict[str, Any]:
        """Validate the series as a training does it after an epoch."""
        load = "$@network_def.load_state_dict(torch.load(@model_file))"
        places = {"dataset_dir": str(self.folder), "output_dir": str(self.output / "validating")}
        return self._config(
            ["train.json"],
            ["network", "validate#evaluator"],
            "validate#evaluator",
            run=[load, "$@validate#evaluator.run()"],
            pretrained=False,
            num_workers=0,
            cache_dir=str(self.output / "cache"),
            **places,
        )

    def runtime(self) -> dict[str, Any]:
        """Export the network, which is not measured, and segment the series with it."""
        overlay = self.folder / "classes.json"
        overlay.write_text(json.dumps({"class_names": self.names, "terminology": {}}), encoding="utf-8")
        model = self.output / "export" / f"{self.weights.stem}.onnx"
        if not model.is_file():
            given = ["--model-file", str(self.weights), "--output-dir", str(model.parent)]
            files = [str(self.root / "configs" / "inference.json"), str(overlay)]
            python(self.root, "-m", "scripts.export_onnx", *files, *given, threads=self.threads)
        places = {"model": str(model), "input": str(self.folder / "in"), "output": str(self.output / "runtime")}
        return child(self.root, RUNTIME, threads=self.threads, **places)

    def photograph(self) -> dict[str, Any]:
        """Segment a photograph with the included model of skin lesions."""
        places = {"dataset_dir": str(self.folder / "photographs"), "output_dir": str(self.output / "photograph")}
        model = {"model_file": str(self.root / "models" / "dermoscopy.pt"), "class_names": ["background", "lesion"]}
        files = ["inference.json", *PHOTOGRAPHS[self.root == ROOT], "dermoscopy_inference.json"]
        return self._config(files, ["network", "evaluator"], **places, **model)


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Return what every kind of input takes in each revision, and print it."""
    weights = folder / "model.pt"
    write_weights(weights, options.classes)
    counts = sorted({options.slices, options.old_slices})
    for count in counts:
        write_series_of(folder / str(count), count, options.classes)
    write_photograph(folder / "photograph" / "photographs" / "photograph.jpg", options.megapixels)
    runs = [(ROOT, "new", counts)] + ([(options.old, "old", [options.old_slices])] if options.old else [])
    rows = []
    for kind in options.only:
        for root, revision, slices in runs:
            for count in ["photograph"] if kind == "photograph" else slices:
                place = folder / str(count)
                of = Measurement(root, place, weights, classes=options.classes, threads=options.threads)
                size = {"megapixels": options.megapixels} if kind == "photograph" else {"slices": count}
                rows.append({"kind": kind, "revision": revision, **size, **getattr(of, kind)()})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def label_maps(folder: Path, kind: str) -> dict[str, np.ndarray]:
    """Return the label maps below a folder of results, by revision."""
    found = {}
    for revision in ("old", "new"):
        for path in sorted((folder / revision / kind).rglob("*")):
            if path.name.endswith((".nii", ".nii.gz")):
                found[revision] = np.asanyarray(nib.load(path).dataobj)
            elif path.suffix == ".png" and "overlay" not in path.name:
                found[revision] = np.asarray(Image.open(path))
    return found


def differing(one: np.ndarray, other: np.ndarray) -> dict[str, int]:
    """Return how many voxels of two label maps differ, and how many classes there are: of one, nothing is shown.

    Raises:
        PyrasegError: they have other shapes.
    """
    if one.shape != other.shape:
        raise PyrasegError(f"Label maps of {one.shape} and {other.shape} voxels cannot be compared.")
    return {"voxels": one.size, "differ": int((one != other).sum()), "classes": len(np.unique(one))}


def compare(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Return how the labels of every kind compare: the revisions' own, and the short series' with the whole one's."""
    found = []
    for kind in options.only:
        if kind == "validating":  # whose score is compared
            continue
        short = folder / ("photograph" if kind == "photograph" else str(options.old_slices))
        maps = label_maps(short, kind)
        if options.old:
            found.append({"kind": kind, "compared": "old and new"} | differing(maps["old"], maps["new"]))
        if kind != "photograph" and options.slices > options.old_slices:
            whole, inner = label_maps(folder / str(options.slices), kind)["new"], slice(0, options.old_slices - 1)
            of = next(iter(maps))
            pair = maps[of][..., inner], whole[..., inner]
            found.append(
                {"kind": kind, "compared": f"{of}, and the first slices of {options.slices}"} | differing(*pair)
            )
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="worktree of an older revision, with a .venv")
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--old-slices", type=int, default=30, help="of the short series, which either revision gets")
    parser.add_argument("--classes", type=int, default=105)
    parser.add_argument("--megapixels", type=float, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    options.old = options.old and options.old.resolve()
    with tempfile.TemporaryDirectory() as name:
        rows = measure(options, Path(name))
        compared = compare(options, Path(name))
    report = {name: getattr(options, name) for name in ("classes", "threads")} | {"side": SIDE}
    report |= {"processor": processor(), "rows": rows, "labels": compared}
    for row in compared:
        print("{kind}, {compared}: {differ} of {voxels} voxels differ, {classes} classes".format(**row))
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {options.output}")


if __name__ == "__main__":
    main()
