# SPDX-License-Identifier: Apache-2.0
"""Run what is left of a sweep, some runs at a time; one that fails stops no other."""

import json
import logging
import multiprocessing
import os
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import connection
from multiprocessing.context import SpawnProcess

from bundle.pyraseg.core import PyrasegError, held, processors
from bundle.pyraseg_tools.sweep.training import train
from bundle.pyraseg_tools.sweep.trials import Trial

logger = logging.getLogger(__name__)

#: What holds the folder of a run.
WORK = "sweep"
#: How long a run that is stopped may take to end, in seconds.
PATIENCE = 10
THREADS = "OMP_NUM_THREADS"


def run_trials(trials: Sequence[Trial], *, parallel: int) -> list[tuple[Trial, str]]:
    """Run what is not finished, and return what failed, with the reasons.

    Each run is a process, with its share of the threads. A run that another sweep is at is left to that one.

    Args:
        trials: of a plan.
        parallel: runs at a time.
    """
    waiting = [trial for trial in trials if trial.result() is None]
    logger.info("%d of %d runs are finished, %d to do", len(trials) - len(waiting), len(trials), len(waiting))
    failed: list[tuple[Trial, str]] = []
    running: dict[SpawnProcess, tuple[Trial, ExitStack]] = {}
    try:
        with _shared_threads(parallel):
            while waiting or running:
                while waiting and len(running) < parallel:
                    trial = waiting.pop(0)
                    if reason := _start(trial, running):
                        failed.append((trial, reason))
                if running:
                    connection.wait([process.sentinel for process in running])
                for process in [process for process in running if process.exitcode is not None]:
                    trial, holding = running.pop(process)
                    holding.close()
                    if reason := _reason(trial, process.exitcode):
                        failed.append((trial, reason))
                        logger.warning("%s: failed, %s", trial, reason)
                    else:
                        logger.info("%s: finished", trial)
    finally:
        for process, (_, holding) in running.items():  # stopped in the middle
            process.terminate()
            process.join(PATIENCE)
            process.kill()
            holding.close()
    return failed


def _start(trial: Trial, running: dict[SpawnProcess, tuple[Trial, ExitStack]]) -> str:
    """Start a run, or return why it cannot be started."""
    holding = ExitStack()
    try:
        holding.enter_context(held(trial.folder, WORK))
        if trial.result() is not None:  # another sweep has finished it in the meantime
            holding.close()
            return ""
        trial.begin()
        process = multiprocessing.get_context("spawn").Process(target=train, args=(trial,))
        process.start()
    except PyrasegError as error:
        holding.close()
        logger.warning("%s: not run, %s", trial, error)
        return str(error)
    running[process] = trial, holding
    logger.info("%s: started, see %s", trial, trial.log)
    return ""


def _reason(trial: Trial, code: int | None) -> str:
    """Return why a run that has ended is not finished, or ""."""
    if trial.record.is_file():
        return ""
    if trial.failure.is_file():
        return json.loads(trial.failure.read_text(encoding="utf-8"))["reason"]
    if code is not None and code < 0:
        return f"it was killed by signal {-code} (9: often for want of memory); see {trial.log}"
    return f"it ended with exit code {code}; see {trial.log}"


@contextmanager
def _shared_threads(parallel: int) -> Generator[None]:
    """Let processes that are started in this block have their share of the threads of this one."""
    before = os.environ.get(THREADS)
    if parallel > 1:
        total = int(before) if before and before.isdecimal() else processors()
        os.environ[THREADS] = str(max(1, total // parallel))
    try:
        yield
    finally:
        if before is not None:
            os.environ[THREADS] = before
        else:
            os.environ.pop(THREADS, None)
