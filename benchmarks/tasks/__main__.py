# SPDX-License-Identifier: Apache-2.0
"""Train the tasks of real images, each beside the networks of others; score them; write the tables of docs/tasks.md.

python -m benchmarks.tasks train lungs vessels --data DATA --seeds 0 1 2
python -m benchmarks.tasks score lungs vessels --data DATA --score-test
python -m benchmarks.tasks table

DATA holds one folder a task, such as DATA/lungs with images/ and masks/. Every network of a task is trained by
its config: the same cases, split, augmentation, loss, optimizer, epochs, batches, encoder and rates. "smp U-Net as its
users train it" is trained as the examples of segmentation_models.pytorch do it. What a training ends with goes to
benchmarks/results/tasks/TASK/NETWORK-seedN; a training that is found there is not repeated, and one that was stopped
goes on. --share 0.25 makes every training a quarter as long and keeps it apart, in benchmarks/results/tasks_share_0.25.
The test part is scored by --score-test alone, once everything is trained and decided. Options of the config,
--key value, hold in all trainings.
"""

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.networks import processor
from benchmarks.tasks import tables
from benchmarks.tasks.cards import write_cards
from benchmarks.tasks.runs import shares
from benchmarks.tasks.study import RESULTS, ROOT, TASKS, bench, results_of, trials
from bundle.pyraseg.commands import split_options
from bundle.pyraseg.workflow import plain_console


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.tasks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    found.add_argument("program", choices=("train", "score", "table"))
    found.add_argument("tasks", nargs="*", metavar="TASK", help=f"some of {', '.join(TASKS)}; default: all")
    found.add_argument("--data", type=Path, help="folder with one folder a task; needed to train and to score")
    found.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings; the split has always 0")
    found.add_argument("--only", nargs="+", metavar="NETWORK", help="some of the networks, such as 'smp U-Net'")
    found.add_argument("--share", type=float, default=1.0, help="of the length of every training; default: %(default)s")
    found.add_argument("--score-test", action="store_true", help="score the test part with every trained network")
    found.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    found.add_argument("--work", type=Path, default=ROOT / "runs" / "tasks", help="folder of weights")
    found.add_argument("--cache", type=Path, default=ROOT / "runs" / "cache", help="folder of prepared images")
    found.add_argument("--results", type=Path, default=RESULTS, help="folder of the figures")
    found.add_argument("--page", type=Path, default=tables.PAGE, help="page of the tables; default: %(default)s")
    return found


def main(argv: list[str] | None = None) -> None:
    plain_console()
    command = parser()
    given, options = split_options(command, sys.argv[1:] if argv is None else argv)
    unknown = sorted(set(given.tasks) - set(TASKS))
    if unknown:
        command.error(f"there is no task {', '.join(unknown)}; there are {', '.join(TASKS)}")
    if given.program == "table":
        tables.write(given.results, given.page)
        write_cards(TASKS, shares(given.results)[1.0], given.page.parent)
        print(f"Wrote the tables of {given.page} and of the model cards beside it")
        return
    if given.data is None:
        command.error(f"{given.program} needs --data, the folder with one folder a task")
    torch.set_num_threads(given.threads)
    print(f"{given.threads} thread(s) of {processor()}", flush=True)
    places = {"work": given.work.resolve(), "cache": given.cache.resolve(), "results": given.results.resolve()}
    for task in given.tasks or TASKS:
        of_task = bench(task, given.data, share=given.share, options=options, **places)
        chosen = trials(task, given.seeds, given.only)
        for number, trial in enumerate(chosen, start=1):
            if given.program == "train":
                record = of_task.train(trial)
                print(
                    f"{task} {number}/{len(chosen)}: {trial.name}, seed {trial.seed}: validation Dice "
                    f"{record['validation']['dice']:.4f} at epoch {record['best_epoch']}/{record['epochs']}, "
                    f"{record['processor_minutes']:.1f} minutes",
                    flush=True,
                )
            elif not (of_task.results_dir / trial.folder / "run.json").is_file():
                print(f"{task}, {trial.name}, seed {trial.seed}: not trained yet, left out", flush=True)
            else:
                for part in ("validation", "test") if given.score_test else ("validation",):
                    print(f"{task}, {trial.name}, seed {trial.seed}: {of_task.score(trial, part)}", flush=True)
    print(f"Kept in {results_of(given.share, given.results)}")


if __name__ == "__main__":
    main()
