# SPDX-License-Identifier: Apache-2.0
"""One run of a sweep, in a process of its own: train, score the best epoch on the validation part, say so."""

import os
import sys
import threading
import time
import traceback
from multiprocessing import connection, parent_process
from typing import Any

from bundle.pyraseg.commands import config_files, run_config
from bundle.pyraseg.core import describe, mendable, read_csv, root_of, write_json
from bundle.pyraseg.workflow import verbatim
from bundle.pyraseg_tools.sweep.trials import OF_WORKFLOW, Trial

#: Options of a training that its evaluation has no use for.
OF_TRAINING = {"patience", "previews", *OF_WORKFLOW}


def train(trial: Trial) -> None:
    """Do what is left of a run; what it prints goes to its log. The process ends with 1 where it fails.

    `result.json` is written last. A training that was interrupted goes on from its last whole checkpoint.
    """
    _end_with_parent()
    with trial.log.open("a", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    try:
        if not trial.model.is_file():
            _train(trial)
        _score(trial)
        write_json(trial.record, _result(trial))
    except Exception as error:
        reason = describe(error)
        if mendable(error) is None:
            traceback.print_tb(root_of(error).__traceback__)  # without the message, which may quote a header
        print(f"pyraseg: {reason}", file=sys.stderr)
        write_json(trial.failure, {"reason": reason})
        sys.exit(1)


def evaluation_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a training that are those of its evaluation as well."""
    return {key: value for key, value in options.items() if key not in OF_TRAINING}


def _end_with_parent() -> None:
    """End this process when the one that started it does, even a killed one: nobody would look after the run."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _train(trial: Trial) -> None:
    files, root = config_files(trial.tasks)
    places = {"output_dir": verbatim(trial.training.resolve()), "model_file": verbatim(trial.model.resolve())}
    run_config("training", files, root, {**trial.options, **places, "resume": True})


def _score(trial: Trial) -> None:
    files, root = config_files(trial.tasks, program="evaluate")
    settings = {
        **evaluation_options(dict(trial.options)),
        "validate#dataset#data": "$@cases['validation']",
        "report": False,
        "uncertainty_rotations": [],
        "output_dir": verbatim(trial.validation.resolve()),
        "model_file": verbatim(trial.model.resolve()),
    }
    run_config("evaluating", files, root, settings)


def _result(trial: Trial) -> dict[str, Any]:
    epochs = read_csv(trial.training / "log.csv", ("epoch", "dice", "seconds"))
    validated = [row for row in epochs if row["dice"]]
    return {
        "setting": dict(trial.setting.values),
        "seed": trial.seed,
        "split": trial.made_of["split"],
        "epochs": len(epochs),
        "best_epoch": int(max(validated, key=lambda row: float(row["dice"]))["epoch"]),
        "seconds": round(sum(float(row["seconds"]) for row in epochs), 1),
        "ended": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
