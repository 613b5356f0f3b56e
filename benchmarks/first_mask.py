# SPDX-License-Identifier: Apache-2.0
"""Time from typing a command to the mask of one photograph: each run is a process of its own, from start to end.

`pyraseg segment` as typed by default and with a model in PyTorch, the torch-free runtime with the included int8 form
and, where it is given, a float one, and `monai.bundle run`. With ``--old`` an earlier revision, in a checkout with its
own .venv, runs `monai.bundle run` beside this one, and is what the others are compared with. All alternate, so that a
busy moment meets all of them.

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

from benchmarks.networks import processor
from benchmarks.trials import versions
from benchmarks.whole_series import environment, interpreter
from bundle.pyraseg_tools.commands.network_table import replace_between_markers
from bundle.pyraseg_tools.datasets import draw_photograph

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "inference.md"
RESULTS = ROOT / "benchmarks" / "results" / "first_mask.json"
INT8 = ROOT / "models" / "dermoscopy_fast.int8.onnx"
CONFIGS = ["configs/inference.json", "configs/dermoscopy_inference.json"]
#: Files of configs that earlier revisions had not.
LATER = ["configs/photographs_inference.json"]


def bundle_run(checkout: Path, photo: Path, output: Path) -> list[str]:
    """Return the command line of the bundle's inference, with the model of that revision."""
    between = [name for name in LATER if (checkout / name).exists()]
    files = json.dumps([CONFIGS[0], *between, CONFIGS[1]])
    return [
        interpreter(checkout), "-m", "monai.bundle", "run", "inferring", "--config_file", files,
        "--dataset_dir", str(photo), "--output_dir", str(output), "--device", "cpu",
    ]  # fmt: skip


def seconds(command: list[str], checkout: Path) -> float:
    """Return how long a command takes, which must go well."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=checkout, env=environment(checkout), capture_output=True, text=True)
    taken = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return taken


def commands(old: Path | None, photo: Path, work: Path, float_form: Path | None) -> dict[str, tuple[list[str], Path]]:
    """Return what is timed, by name: the command line, and the checkout that it runs in."""
    python = interpreter(ROOT)
    segment = [python, "-m", "bundle.pyraseg", "segment", str(photo)]
    found = {} if old is None else {"monai.bundle run, before": (bundle_run(old, photo, work / "before"), old)}
    found["monai.bundle run"] = bundle_run(ROOT, photo, work / "bundle"), ROOT
    found["pyraseg segment, PyTorch"] = [*segment, str(work / "torch"), "--model", "dermoscopy"], ROOT
    found["pyraseg segment"] = [*segment, str(work / "segment")], ROOT
    forms = {"runtime, int8": INT8} | ({} if float_form is None else {"runtime, float": float_form.resolve()})
    for name, form in forms.items():
        output = work / name.replace(", ", "_")
        found[name] = [python, "-m", "bundle.pyraseg.runtime", str(form), str(photo), str(output)], ROOT
    return found


def table(report: dict[str, Any]) -> str:
    """Return the medians of a report as Markdown."""
    lines = ["| | seconds | times as fast as the first |", "|---|---|---|"]
    for name, median in report["median_s"].items():
        lines.append(f"| {name} | {median:.2f} | {report['times_as_fast_as_the_first'][name]:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="checkout of the revision to compare with, with its .venv")
    parser.add_argument("--photo", type=Path, help="JPEG or PNG (default: one that is drawn)")
    parser.add_argument("--float", type=Path, help="float form of a photographs' model that pyraseg export wrote")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    report: dict[str, Any] = {"repeats": given.repeats, "processor": processor(), "versions": versions()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        photo = given.photo.resolve() if given.photo else work / "photo.jpg"
        if not given.photo:
            Image.fromarray(draw_photograph(seed=0, person=0, photograph=0)[0]).save(photo)
        timed = commands(given.old and given.old.resolve(), photo, work, given.float)
        times: dict[str, list[float]] = {name: [] for name in timed}
        for repeat in range(-1, given.repeats):
            for name, (command, checkout) in timed.items():
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
    print(table(report))
    given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if given.output == RESULTS:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(replace_between_markers(page, "first mask", table(report)), encoding="utf-8")
    print(f"Written to {given.output}")


if __name__ == "__main__":
    main()
