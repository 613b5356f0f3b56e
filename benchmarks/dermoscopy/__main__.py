# SPDX-License-Identifier: Apache-2.0
"""Train networks, plans or settings alike on the dermoscopy task, one after the other, and keep their figures.

Every training is the command of the README with a few keys of the config changed; what it ends with goes to
``benchmarks/results/dermoscopy``. A training that is found there is not repeated, so that a killed benchmark goes on
with the one that it was at. The test part is scored by ``--score-test`` alone, when everything is trained and decided.
Options of the config, ``--key value``, hold in all trainings. Run
``python -m benchmarks.dermoscopy networks --dataset-dir DIR`` from the repository root.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.dermoscopy.networks import NETWORKS
from benchmarks.dermoscopy.plans import PLANS
from benchmarks.dermoscopy.settings import SETTINGS
from benchmarks.dermoscopy.tables import compact
from benchmarks.trials import Bench, Trial
from bundle.pyraseg.commands import split_options
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.workflow import plain_console

ROOT = Path(__file__).resolve().parents[2]


def trials(comparison: str, seeds: list[int], only: list[str] | None) -> list[Trial]:
    """Return the trainings of a comparison: all names with the first seed, then all with the next.

    Raises:
        PyrasegError: a name in `only` is none of this comparison's.
    """
    found = {"networks": NETWORKS, "plans": PLANS, "settings": SETTINGS}[comparison]
    unknown = sorted(set(only or ()) - set(found))
    if unknown:
        raise PyrasegError(f"Among the {comparison} there is no {unknown}. There are {list(found)}.")
    return [Trial(comparison, name, found[name], seed) for seed in seeds for name in only or found]


def main(argv: list[str] | None = None) -> None:
    plain_console()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("comparison", choices=("networks", "plans", "settings"), nargs="?", default="networks")
    parser.add_argument("--dataset-dir", type=Path, required=True, help="folder with images/ and masks/")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the networks, plans or settings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--every", type=int, default=1, help="take every n-th training case, for shorter trials")
    parser.add_argument("--score-test", action="store_true", help="score the test part with every trained network")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "dermoscopy_benchmark", help="folder of weights")
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "cache", help="folder of prepared photographs")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "dermoscopy")
    given, options = split_options(parser, sys.argv[1:] if argv is None else argv)
    places = (given.dataset_dir, given.work, given.results, given.cache)
    bench = Bench("dermoscopy", *places, every=given.every, options=options, kept=compact)
    chosen = trials(given.comparison, given.seeds, given.only)
    for number, trial in enumerate(chosen, start=1):
        record = bench.train(trial)
        scores = record["validation"]
        print(
            f"{number}/{len(chosen)} {trial.name}, seed {trial.seed}: validation Dice {scores['dice']:.4f}, Jaccard "
            f"{scores['jaccard']:.4f} at epoch {record['best_epoch']}/{record['epochs']}; "
            f"{record['median_seconds_per_epoch']:.0f} s an epoch",
            flush=True,
        )
    if given.score_test:
        for trial in chosen:
            bench.score(trial, "test")
    print(f"Kept in {given.results / given.comparison}")


if __name__ == "__main__":
    main()
