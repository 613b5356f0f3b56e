# SPDX-License-Identifier: Apache-2.0
"""Time epochs of a training beside busy processes and alone: this revision, and an older one.

A worker of `benchmarks.training_step` trains the default CT task on two threads, each revision as its programs start
it: the older one with the allocator and the waiting threads of PyTorch's defaults, this one with `keep_memory`,
`OMP_WAIT_POLICY=PASSIVE` and `cpu_kernels` "auto"; this one also with one thread. They take turns, alone and beside
processes that do nothing but count. An epoch is 40 steps of the default task; `--steps` are measured of it. Run

python -m benchmarks.busy_machine --old FOLDER

from the repository root, on a machine that is otherwise idle, with a checkout of the older revision in FOLDER.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.networks import processor
from benchmarks.training_step import NEW, OLD, ROOT, Trainer, instructions, write_batches
from bundle.pyraseg.core import processors, replacing
from bundle.pyraseg.workflow import plain_console
from bundle.pyraseg_tools.commands.network_table import replace_between_markers

RESULTS = ROOT / "benchmarks" / "results" / "busy_machine.json"
PAGE = ROOT / "docs" / "training.md"
EPOCH = 40  # steps: 640 samples in batches of 16
BUSY = 4


def count() -> None:
    """Keep a processor busy until the process is ended."""
    number = 0
    while True:
        number += 1


@contextmanager
def busy_processes(number: int):
    """Run processes that do nothing but count."""
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=count, daemon=True) for _ in range(number)]
    for each in running:
        each.start()
    try:
        yield
    finally:
        for each in running:
            each.terminate()
            each.join()


def measure(old: Path, *, steps: int, rounds: int, busy: int) -> list[dict[str, Any]]:
    """Return seconds of an epoch, alone and beside `busy` processes, a row for each way to train."""
    ways = {
        "bfbc4b6": (old, OLD, 2, {}),
        "this revision": (ROOT, NEW, 2, {"OMP_WAIT_POLICY": "PASSIVE"}),
        "this revision, one thread": (ROOT, NEW, 1, {"OMP_WAIT_POLICY": "PASSIVE"}),
    }
    seconds: dict[str, dict[str, list[float]]] = {name: {"alone": [], "busy": []} for name in ways}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        batches = Path(folder) / "CT.pt"
        write_batches("CT", batches)
        running = {
            name: stack.enter_context(
                Trainer(root, what, task="CT", batches=batches, threads=threads, environment=environment)
            )
            for name, (root, what, threads, environment) in ways.items()
        }
        for each in running.values():
            each.run(1)
        for _ in range(rounds):
            for state, number in (("alone", 0), ("busy", busy)):
                with busy_processes(number):
                    for name, each in running.items():
                        seconds[name][state] += each.run(steps)["seconds"]
    rows = []
    for name, found in seconds.items():
        epoch = {state: round(EPOCH * statistics.mean(values), 1) for state, values in found.items()}
        rows.append({"name": name, "threads": ways[name][2], "epoch_s": epoch})
        rows[-1]["ratio"] = round(epoch["busy"] / epoch["alone"], 2)
        print("{name}: {epoch_s} s an epoch, {ratio} times as long".format(**rows[-1]), flush=True)
    return rows


def table(report: dict[str, Any]) -> str:
    """Return the rows of a report as Markdown."""
    lines = [f"| seconds an epoch | threads | alone | beside {report['busy']} busy processes | ratio |"]
    lines.append("|---|---|---|---|---|")
    for row in report["rows"]:
        epoch = row["epoch_s"]
        lines.append(f"| {row['name']} | {row['threads']} | {epoch['alone']} | {epoch['busy']} | {row['ratio']} |")
    lines += ["", f"*{report['processor']}, {report['processors']} processors; torch {report['versions']['torch']}.*"]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="a checkout of the older revision")
    parser.add_argument("--steps", type=int, default=4, help="of each way in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--busy", type=int, default=BUSY, help="busy processes (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=PAGE, help="whose table is replaced (default: %(default)s)")
    options = parser.parse_args(argv)
    plain_console()
    report = {"processor": processor(), "instructions": instructions(), "processors": processors()}
    report |= {"versions": {name: version(name) for name in ("torch", "monai")}, "busy": options.busy}
    report |= {"steps": options.steps, "rounds": options.rounds}
    report["rows"] = measure(options.old.resolve(), steps=options.steps, rounds=options.rounds, busy=options.busy)
    with replacing(options.output) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = replace_between_markers(options.page.read_text(encoding="utf-8"), "busy machine", table(report))
    with replacing(options.page) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"Written to {options.output} and to the table of {options.page}")


if __name__ == "__main__":
    main()
