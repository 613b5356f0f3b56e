# SPDX-License-Identifier: Apache-2.0
"""Time from typing a command to the mask of one photograph: each run is a process of its own, from start to end.

`monai.bundle run` and `pyraseg segment` with PyTorch; the torch-free runtime with the exported model, float and, where
it is given, int8. With ``--old`` an earlier revision, in a checkout with its own .venv, runs beside this one. All
alternate, so that a busy moment meets all of them.

``python -m benchmarks.first_mask --old ../bfbc4b6`` from the repository root; ``--help`` has the rest.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.dermoscopy.trials import versions
from benchmarks.networks import processor
from benchmarks.whole_series import environment, interpreter
from bundle.pyraseg_tools.datasets import draw_photograph

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "first_mask.json"
CONFIGS = ["configs/inference.json", "configs/dermoscopy_inference.json"]
#: Files of configs that earlier revisions had not.
LATER = ["configs/photographs_inference.json"]


def bundle_run(checkout: Path, model: Path, photo: Path, output: Path) -> list[str]:
    """Return the command line of the bundle's inference."""
    between = [name for name in LATER if (checkout / name).exists()]
    files = json.dumps([CONFIGS[0], *between, CONFIGS[1]])
    return [
        interpreter(checkout), "-m", "monai.bundle", "run", "inferring", "--config_file", files,
        "--dataset_dir", str(photo), "--output_dir", str(output), "--model_file", str(model), "--device", "cpu",
    ]  # fmt: skip


def seconds(command: list[str], checkout: Path) -> float:
    """Return how long a command takes, which must go well."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=checkout, env=environment(checkout), capture_output=True, text=True)
    taken = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return taken


def exported(model: Path, folder: Path) -> Path:
    """Write a dermoscopy model as ONNX, and return the file of the whole path."""
    words = ["-m", "bundle.pyraseg", "export", "dermoscopy", "--model-file", str(model), "--output-dir", str(folder)]
    seconds([interpreter(ROOT), *words], ROOT)
    return folder / f"{model.stem}.onnx"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="checkout of the revision to compare with, with its .venv")
    parser.add_argument("--photo", type=Path, help="JPEG or PNG (default: one that is drawn)")
    parser.add_argument("--model-file", type=Path, default=ROOT / "models" / "dermoscopy.pt")
    parser.add_argument("--int8", type=Path, help="int8 form that pyraseg quantize wrote")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    report: dict[str, Any] = {"repeats": given.repeats, "processor": processor(), "versions": versions()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        photo = given.photo.resolve() if given.photo else work / "photo.jpg"
        if not given.photo:
            Image.fromarray(draw_photograph(seed=0, person=0, photograph=0)[0]).save(photo)
        forms = {"runtime, float": exported(given.model_file.resolve(), work)}
        if given.int8:
            forms["runtime, int8"] = given.int8.resolve()
        python, model = interpreter(ROOT), given.model_file.resolve()
        commands: dict[str, tuple[list[str], Path]] = {}
        if given.old is not None:
            old = given.old.resolve()
            own = old / "models" / model.name  # that revision's own file, if it has one
            weights = own if own.is_file() else model
            commands["monai.bundle run, before"] = bundle_run(old, weights, photo, work / "1"), old
        commands["monai.bundle run"] = bundle_run(ROOT, model, photo, work / "2"), ROOT
        segment = [python, "-m", "bundle.pyraseg", "segment", str(photo)]
        commands["pyraseg segment"] = [*segment, str(work / "3"), "--model", model.stem], ROOT
        for number, (name, form) in enumerate(forms.items(), 4):
            runtime = [python, "-m", "bundle.pyraseg.runtime", str(form), str(photo), str(work / str(number))]
            commands[name] = runtime, ROOT
            commands[f"pyraseg segment, {name}"] = [*segment, str(work / f"{number}s"), "--model", str(form)], ROOT
        times: dict[str, list[float]] = {name: [] for name in commands}
        for repeat in range(-1, given.repeats):
            for name, (command, checkout) in commands.items():
                taken = seconds(command, checkout)
                if repeat >= 0:  # the first round reads the libraries from the disk
                    times[name].append(round(taken, 3))
    first = next(iter(times.values()))
    report["median_s"] = {name: round(statistics.median(values), 2) for name, values in times.items()}
    report["times_as_fast_as_the_first"] = {
        name: round(statistics.median(a / b for a, b in zip(first, values, strict=True)), 1)
        for name, values in times.items()
    }
    report["seconds"] = times
    for name, median in report["median_s"].items():
        print(f"{name}: {median} s, {report['times_as_fast_as_the_first'][name]} times as fast as the first")
    given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {given.output}")


if __name__ == "__main__":
    main()
