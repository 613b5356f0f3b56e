# SPDX-License-Identifier: Apache-2.0
"""Time the segmentation of a CT series of 100 slices of 512 x 512 from files to files, against its network alone.

The series is a phantom patient, the model the included one. From files to files: finding and reading DICOM,
preprocessing, network, labels on the series' grid and what is written: of the bundle NIfTI, picture and table, as
`inferring` does by default, of the torch-free runtime NIfTI; without the start of Python and the loading of the
model. The network alone: the inferer on the preprocessed series, all windows and batches included; of the runtime,
the exported network on slices of the same size. With ``--old`` an earlier revision, in a checkout with its own .venv,
runs beside this one. All alternate in one run, each in a process of its own, so that none has what another one set.

``python -m benchmarks.whole_series --old ../bfbc4b6`` from the repository root; ``--help`` has the rest.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.networks import processor
from benchmarks.trials import versions
from bundle.pyraseg_tools.commands.network_table import replace_between_markers
from bundle.pyraseg_tools.datasets.phantom import phantom_case, write_series

ROOT = Path(__file__).resolve().parents[1]
WORKER = ROOT / "benchmarks" / "whole_series_worker.py"
PAGE = ROOT / "docs" / "inference.md"
RESULTS = ROOT / "benchmarks" / "results" / "whole_series.json"
SLICES, SIDE = 100, 512
PATIENT = 0  # of seed 2024: its slices are upright and as wide as `SIDE`
DEFAULT_SPACING = 2.5
PROGRAMS = ("bundle", "runtime")
#: The exporters of both revisions, with a spacing that is not the model's.
EXPORTS = {
    "new": ["-m", "bundle.pyraseg", "export", "--may_differ", "['spacing']", "--spacing", "{spacing}"],
    "old": ["-m", "scripts.export_onnx", "configs/inference.json", "--set", "spacing={spacing}", "--"],
}


def write_thin_slices(folder: Path) -> float:
    """Write the series, every slice of the phantom repeated until there are 100; return its pixel spacing in mm."""
    case = phantom_case(2024, PATIENT, size=SIDE)
    assert case.hu.shape[1:] == (SIDE, SIDE)
    step = case.slice_step * len(case.hu) / SLICES
    write_series(
        folder,
        replace(
            case,
            hu=case.hu[np.arange(SLICES) * len(case.hu) // SLICES],
            positions=np.round(case.positions[0] + np.arange(SLICES)[:, None] * step, 4),
            slice_step=step,
            outside=None,
        ),
        seed=2024,
        number=1,
    )
    return case.pixel_spacing[0]


def interpreter(checkout: Path) -> str:
    """Return the Python of a checkout: that of its own environment, else the one that runs this."""
    own = checkout / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout)}


class Worker:
    """A process that times what it is told to, in a checkout; see `whole_series_worker.py`."""

    def __init__(self, checkout: Path, program: str, settings: dict[str, Any], log: Path) -> None:
        self.log = log
        command = [interpreter(checkout), "-P", str(WORKER), program, json.dumps(settings)]
        self.process = subprocess.Popen(
            command, cwd=checkout, env=environment(checkout), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("a"),
        )  # fmt: skip

    def seconds(self, what: str) -> float:
        """Return how long something took."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self.process.args)} ended:\n{self.log.read_text()[-3000:]}")  # pyrefly: ignore
        return float(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def export(name: str, checkout: Path, model: Path, spacing: float, folder: Path) -> Path:
    """Write the model as ONNX by the exporter of a revision, and return the file of the whole path."""
    words = [word.format(spacing=spacing) for word in EXPORTS[name] if word != "--"]
    command = [interpreter(checkout), *words, "--model-file", str(model), "--output-dir", str(folder)]
    done = subprocess.run(command, cwd=checkout, env=environment(checkout), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return folder / f"{model.stem}.onnx"


def measure(
    checkouts: dict[str, Path],
    model: Path,
    series: Path,
    spacing: float,
    *,
    programs: list[str],
    repeats: int,
    threads: int,
    work: Path,
) -> list[dict[str, Any]]:
    """Return for the bundle and the runtime the seconds of each repeat, their medians and ratios, at a spacing."""
    workers: dict[tuple[str, str], Worker] = {}
    outputs: dict[tuple[str, str], Path] = {}
    for name, checkout in checkouts.items():
        folder = work / f"{name} {spacing}"
        folder.mkdir()
        onnx = export(name, checkout, model, spacing, folder)
        for program in PROGRAMS if name == "new" else programs:
            outputs[name, program] = folder / program
            settings = {
                "root": str(checkout), "series": str(series), "output": str(folder / program), "model": str(model),
                "onnx": str(onnx), "spacing": spacing, "threads": threads,
                "size": str(work / f"{spacing}.json"),
            }  # fmt: skip
            workers[name, program] = Worker(checkout, program, settings, work / "log.txt")
    rows = []
    if "bundle" not in programs:
        workers["new", "bundle"].seconds("network")  # for the size of its slices
    for program in programs:
        times: dict[str, list[float]] = {}
        for repeat in range(-1, repeats):
            for name in checkouts:
                for what in ("files_to_files", "network"):
                    seconds = workers[name, program].seconds(what)
                    if repeat >= 0:  # the first round loads and allocates
                        times.setdefault(f"{name}_{what}", []).append(round(seconds, 3))
        row = {
            "program": program,
            "spacing_mm": spacing,
            "network_grid": json.loads((work / f"{spacing}.json").read_text()),
        }
        row |= {"median_s": {name: round(statistics.median(values), 3) for name, values in times.items()}}
        row["seconds"] = times
        row["files_to_files_per_network"] = ratio(times["new_files_to_files"], times["new_network"])
        if "old" in checkouts:
            row["times_as_fast"] = ratio(times["old_files_to_files"], times["new_files_to_files"])
            row["network_times_as_fast"] = ratio(times["old_network"], times["new_network"])
            row["voxels_that_differ"] = differing(outputs["old", program], outputs["new", program])
        rows.append(row)
        print(told(row), flush=True)
    for worker in workers.values():
        worker.close()
    return rows


def ratio(one: list[float], other: list[float]) -> float:
    """Return the median of the ratios of times that were measured side by side."""
    return round(statistics.median(a / b for a, b in zip(one, other, strict=True)), 2)


def differing(one: Path, other: Path) -> list[int]:
    """Return in how many voxels the label maps in two folders differ, and how many voxels are labeled in the first."""
    first, second = (np.asarray(nib.load(next(folder.glob("*.nii.gz"))).dataobj) for folder in (one, other))
    return [int((first != second).sum()), int((first > 0).sum())]


def told(row: dict[str, Any]) -> str:
    """Return the line of a row."""
    text = "{program}, {spacing_mm} mm, {network_grid}: {median_s}, {files_to_files_per_network} times the network"
    if "times_as_fast" in row:
        text += ", {times_as_fast} times as fast as before; voxels that differ, of how many: {voxels_that_differ}"
    return text.format(**row)


def table(report: dict[str, Any]) -> str:
    """Return the rows of a report as Markdown."""
    compared = f" | {report['old']} | times as fast" if "old" in report else ""
    lines = [
        f"| | pixel spacing | input of the network | the network alone | files to files | ratio{compared} |",
        "|---|---|---|---|---|---|" + "---|---|" * ("old" in report),
    ]
    for row in report["rows"]:
        _, width, height, depth = row["network_grid"]
        median = row["median_s"]
        cells = [
            row["program"],
            f"{row['spacing_mm']:g} mm",
            f"{depth} slices of {width} x {height}",
            *(f"{median[f'new_{name}']:.2f} s" for name in ("network", "files_to_files")),
            f"{row['files_to_files_per_network']:.2f}",
        ]
        if "old" in report:
            cells += [f"{median['old_files_to_files']:.2f} s", f"{row['times_as_fast']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="checkout of the revision to compare with, with its .venv")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--spacing", type=float, nargs="+", help="mm (default: that of the model, and the series' own)")
    parser.add_argument("--only", choices=PROGRAMS, help="measure one program, and keep what was measured of the other")
    parser.add_argument("--model-file", type=Path, default=ROOT / "models" / "phantom.pt")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    checkouts = {"new": ROOT} if given.old is None else {"old": given.old.resolve(), "new": ROOT}
    report: dict[str, Any] = {"slices": SLICES, "side": SIDE, "threads": given.threads, "repeats": given.repeats}
    report |= {"model": given.model_file.name, "processor": processor(), "versions": versions()}
    if given.old is not None:
        revision = ["git", "-C", str(given.old), "rev-parse", "--short", "HEAD"]
        report["old"] = subprocess.run(revision, capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        own = write_thin_slices(work / "in" / "series")
        timed = partial(measure, checkouts, given.model_file.resolve(), work / "in")
        spacings = given.spacing or [DEFAULT_SPACING, own]
        options = {"repeats": given.repeats, "threads": given.threads, "work": work}
        options["programs"] = [given.only] if given.only else list(PROGRAMS)
        report["rows"] = [row for spacing in spacings for row in timed(spacing, **options)]
    if given.only and given.output.is_file():
        kept = json.loads(given.output.read_text(encoding="utf-8"))["rows"]
        rows = [*report["rows"], *(row for row in kept if row["program"] != given.only)]
        report["rows"] = sorted(rows, key=lambda row: (-row["spacing_mm"], row["program"]))
    given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if given.output == RESULTS:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(replace_between_markers(page, "whole series", table(report)), encoding="utf-8")
    print(f"Written to {given.output}")


if __name__ == "__main__":
    main()
