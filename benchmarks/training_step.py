# SPDX-License-Identifier: Apache-2.0
"""Time training steps on a CPU: this revision, an older one, and networks of segmentation_models.pytorch.

Each has a process of its own, with the interpreter of its checkout, and they take turns, some steps each, so that
whatever else the machine does hits all alike. All train on the same batches: one epoch of the default CT task, of
phantoms, and one of the dermoscopy task, of drawn photographs, both augmented as the configs say. A step is forward
pass, loss, backward pass and optimizer, on float32 weights. Afterwards the losses of longer trainings are compared: the
older revision with two seeds, and this one with the first of them. Run from the repository root

python -m benchmarks.training_step --old FOLDER

with a checkout of the older revision in FOLDER (its `.venv` is used where it has one). `--old` left out, only this
revision and its peers are timed. `--part time` or `--part losses` measures one part and keeps what was measured of the
other. The networks of others come with ``pip install -e ".[benchmark]"``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.networks import processor
from bundle.pyraseg.core import PyrasegError, replacing
from bundle.pyraseg.networks import has_bfloat16
from bundle.pyraseg.workflow import plain_console, read_config
from bundle.pyraseg_tools.commands.network_table import replace_between_markers
from bundle.pyraseg_tools.datasets import phantom_study, write_photograph_study

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "training_step.json"
PAGE = ROOT / "docs" / "training.md"
#: Configs, channels of the input and classes of each task.
TASKS = {
    "CT": (["train.json"], (9, 5)),
    "dermoscopy": (["train.json", "photographs.json", "dermoscopy.json"], (3, 2)),
}
#: What each process trains: (name in the table, allocator, changed options or the class of a peer).
OLD = ("bfbc4b6", "default", {})
NEW = ("this revision", "kept", {"cpu_kernels": "auto"})
OTHERS = (
    ("this revision, `float32`", "kept", {"cpu_kernels": "float32"}),
    ("this revision, `pytorch`", "kept", {"cpu_kernels": "pytorch"}),
    ("smp U-Net", "default", "Unet"),
    ("smp U-Net", "kept", "Unet"),
    ("smp DeepLabV3+", "default", "DeepLabV3Plus"),
    ("smp DeepLabV3+", "kept", "DeepLabV3Plus"),
)
THREADS = (1, 2)
UNTIMED, TIMED = 1, 2  # steps of a process, before the first round and in each
LOSS_STEPS = 200
WINDOW = 20  # steps over which losses are averaged before they are compared
AMX_TARGET, TARGET = 2.2, 1.6


class Trainer:
    """A process of `benchmarks/step_worker.py`.

    Args:
        root: checkout whose code it runs.
        what: of `OLD`, `NEW` or `OTHERS`.
        task: of `TASKS`.
        batches: file of batches.
        threads: of the process.
        seed: of weights, dropout and the order of batches.
        environment: variables that are set.
    """

    def __init__(
        self,
        root: Path,
        what: tuple,
        *,
        task: str,
        batches: Path,
        threads: int,
        seed: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        _, allocator, own = what
        configs, channels = TASKS[task]
        given = {"configs": configs, "channels": channels, "batches": str(batches), "threads": threads, "seed": seed}
        given |= {"allocator": allocator, "peer": own if isinstance(own, str) else ""}
        given["options"] = {} if isinstance(own, str) else own
        own_python = root / ".venv" / "bin" / "python"
        python = str(own_python) if own_python.is_file() else sys.executable
        variables = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": str(threads)} | dict(environment or {})
        self.process = subprocess.Popen(
            [python, str(ROOT / "benchmarks" / "step_worker.py"), json.dumps(given)],
            cwd=root,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.versions: dict[str, str] = {}  # known from the first steps on: processes start side by side

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()

    def run(self, steps: int) -> dict[str, list[float]]:
        """Return seconds and losses of the next steps."""
        self.versions = self.versions or self._answer()["versions"]
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        for line in self.process.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise PyrasegError("A training process ended; its error stands above.")


def write_batches(task: str, path: Path) -> None:
    """Write the batches of a task's first epoch with all augmentation, images as float16."""
    folder = path.parent
    data = folder / f"data-{task}"
    (phantom_study if task == "CT" else write_photograph_study)(data)
    files = [ROOT / "configs" / name for name in TASKS[task][0]]
    options = {"dataset_dir": str(data), "cache_dir": str(folder / "cache"), "num_workers": 0}
    loader = read_config(files, options).get_parsed_content("train#dataloader")
    torch.save([{"image": each["image"].half(), "label": each["label"].to(torch.uint8)} for each in loader], path)


def time_steps(trainers: dict[str, tuple[Path, tuple]], *, rounds: int, **given: Any) -> list[dict[str, Any]]:
    """Return median and quartiles of the seconds of a step, and its processor time, a row each."""
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    used: dict[str, list[float]] = {name: [] for name in trainers}
    with ExitStack() as stack:
        running = {name: stack.enter_context(Trainer(root, what, **given)) for name, (root, what) in trainers.items()}
        for each in running.values():
            each.run(UNTIMED)
        for _ in tqdm(range(rounds), desc=f"{given['task']}, {given['threads']} threads", unit="round", disable=None):
            for name, each in running.items():
                found = each.run(TIMED)
                seconds[name] += found["seconds"]
                used[name].append(found["processor_s"])
    rows = []
    for name, (_, what) in trainers.items():
        low, median, high = statistics.quantiles(seconds[name], n=4)
        row = {"task": given["task"], "threads": given["threads"], "name": what[0], "allocator": what[1]}
        row |= {"median_s": round(median, 4), "quartiles_s": [round(low, 4), round(high, 4)]}
        rows.append(row | {"processor_s": round(statistics.median(used[name]), 4)})
    return rows


def compare_losses(old: Path, *, steps: int, **given: Any) -> dict[str, Any]:
    """Return losses of three trainings, as means of windows of steps, and their mean distances."""
    runs = {"old, seed 0": (old, OLD, 0), "old, seed 1": (old, OLD, 1), "new, seed 0": (ROOT, NEW, 0)}
    losses = {}
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(Trainer(root, what, seed=seed, **given))
            for name, (root, what, seed) in runs.items()
        }
        found: dict[str, list[float]] = {name: [] for name in runs}
        for _ in tqdm(range(steps // WINDOW), desc=f"losses of {given['task']}", unit="window", disable=None):
            for name, each in running.items():
                found[name].append(round(statistics.mean(each.run(WINDOW)["losses"]), 4))
        losses = found
    distances = {
        name: round(statistics.mean(abs(a - b) for a, b in zip(losses["old, seed 0"], losses[name], strict=True)), 4)
        for name in ("old, seed 1", "new, seed 0")
    }
    return {"steps": steps, "window": WINDOW, "losses": losses, "mean_distance_from_old_seed_0": distances}


def times_table(report: dict[str, Any]) -> str:
    """Return the times of a report as Markdown, with their ratio to those of this revision."""
    columns = [(task, threads) for task in TASKS for threads in THREADS]
    found = {(row["name"], row["allocator"], row["task"], row["threads"]): row["median_s"] for row in report["rows"]}
    lines = ["| | allocator | " + " | ".join(f"{task}, {threads} thr." for task, threads in columns) + " |"]
    lines.append("|---|---|" + "---|" * len(columns))
    for name, allocator, _ in (OLD, NEW, *OTHERS):
        cells = []
        for column in columns:
            own, ours = (found.get((*who, *column)) for who in ((name, allocator), NEW[:2]))
            cells.append("" if own is None or ours is None else f"{own:.2f} s, {own / ours:.2f}x")
        lines.append(f"| {name} | {'as users run it' if allocator == 'default' else 'kept'} | {' | '.join(cells)} |")
    found_versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines += ["", f"*{report['processor']}, {report['instructions']}; {found_versions}. Medians of {report['rounds']} "]
    lines[-1] += f"rounds of {TIMED} steps.*"
    return "\n".join(lines)


def losses_table(report: dict[str, Any]) -> str:
    """Return the losses of a report as Markdown."""
    lines = ["| task | training | " + " | ".join(f"to step {n}" for n in (20, 60, 100, 140, 200)) + " | distance |"]
    lines.append("|---|---|" + "---|" * 6)
    for task, found in report["losses"].items():
        for name, values in found["losses"].items():
            cells = [f"{values[n // WINDOW - 1]:.3f}" for n in (20, 60, 100, 140, 200) if n // WINDOW <= len(values)]
            distance = found["mean_distance_from_old_seed_0"].get(name, "")
            lines.append(f"| {task} | {name} | {' | '.join(cells)} | {distance} |")
    return "\n".join(lines)


def instructions() -> str:
    """Return what a processor has for bfloat16, in words."""
    found = torch.cpu.get_capabilities()
    names = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
    had = [word for name, word in names.items() if found.get(name)]
    lacking = [f"no {word}" for name, word in names.items() if not found.get(name)]
    return ", ".join(had + lacking)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="a checkout of the older revision")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=LOSS_STEPS, help="whose losses are compared")
    parser.add_argument("--threads", type=int, nargs="+", default=list(THREADS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--part", choices=("time", "losses"), help="default: both")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=PAGE, help="whose tables are replaced (default: %(default)s)")
    options = parser.parse_args(argv)
    plain_console()
    if options.part == "losses" and options.old is None:
        parser.error("--part losses compares with a revision: give --old")
    kept = json.loads(options.output.read_text()) if options.part and options.output.is_file() else {}
    report: dict[str, Any] = {"processor": processor(), "instructions": instructions(), "bfloat16": has_bfloat16()}
    names = ("torch", "monai", "timm", "segmentation-models-pytorch")
    report |= {"versions": {name: version(name) for name in names}, "rounds": options.rounds}
    report |= {"rows": kept.get("rows", []), "losses": kept.get("losses", {})}
    if options.part != "losses":
        report["rows"] = []
    old = options.old.resolve() if options.old else None
    with tempfile.TemporaryDirectory() as folder:
        for task in options.tasks:
            batches = Path(folder) / f"{task}.pt"
            write_batches(task, batches)
            who = [(ROOT, what) for what in (NEW, *OTHERS)]
            if old:
                who.insert(0, (old, OLD))
            trainers = {f"{what[0]}, {what[1]}": (root, what) for root, what in who}
            for threads in options.threads if options.part != "losses" else ():
                rows = time_steps(trainers, rounds=options.rounds, task=task, batches=batches, threads=threads)
                report["rows"] += rows
                ours = next(row["median_s"] for row in rows if row["name"] == NEW[0])
                for row in rows:
                    print("{task}, {threads} threads, {name}, {allocator}: {median_s:.3f} s".format(**row), end="")
                    print(f", {row['median_s'] / ours:.2f} of ours", flush=True)
            if old and options.part != "time":
                given = {"task": task, "batches": batches, "threads": max(options.threads)}
                report["losses"][task] = compare_losses(old, steps=options.steps, **given)
                print(task, json.dumps(report["losses"][task]), flush=True)
    with replacing(options.output) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = replace_between_markers(options.page.read_text(encoding="utf-8"), "training step", times_table(report))
    page = replace_between_markers(page, "training losses", losses_table(report))
    with replacing(options.page) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"Written to {options.output} and to the tables of {options.page}")
    check(report)


def check(report: dict[str, Any]) -> None:
    """Print each ratio to the older revision beside what was asked for, and each distance of losses beside the seed's.

    Raises:
        PyrasegError: something is less than what was asked for.
    """
    wanted = AMX_TARGET if "no AMX" not in report["instructions"] else TARGET
    short = []
    times = {(row["name"], row["task"], row["threads"]): row["median_s"] for row in report["rows"]}
    for (name, task, threads), median in times.items():
        if name == OLD[0]:
            ratio = median / times[(NEW[0], task, threads)]
            line = f"{task}, {threads} threads: {ratio:.2f} times as fast as {OLD[0]}, asked for {wanted}"
            print(line)
            short += [line] if ratio < wanted else []
    for task, found in report["losses"].items():
        distances = found["mean_distance_from_old_seed_0"]
        line = f"{task}: losses {distances['new, seed 0']} apart, those of another seed {distances['old, seed 1']}"
        print(line)
        short += [line] if distances["new, seed 0"] > distances["old, seed 1"] else []
    if short:
        raise PyrasegError("Less than was asked for: " + "; ".join(short))


if __name__ == "__main__":
    main()
