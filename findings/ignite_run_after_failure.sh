#!/usr/bin/env bash
# The next run of an Ignite engine whose run has failed does nothing, and says nothing.
#
# Surprise: Engine.run() raises as it should. Called once more (a notebook's cell that is run again), it returns None
#   without one iteration, event or log line, and with no error; the call behind that one trains again.
# Why: the engine keeps the generator of the failed run. A generator that has raised is at its end, so the next call
#   takes its end for the end of the run.
# Hurt: whoever corrects the data and runs the cell again: the lines behind it save, promote or report weights of the
#   half-done run as if the training had come to its end.
# Source: pytorch-ignite 0.5.5, ignite/engine/engine.py, Engine._internal_run.
# Pyraseg: an engine that failed refuses to run again, in words.
set -euo pipefail

packages=(pytorch-ignite==0.5.5 torch==2.13.0 numpy==2.4.6)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$folder/venv"
    python=$folder/venv/bin/python
    "$python" -m pip install --quiet "${packages[@]}"
fi
cd "$folder"
"$python" - "${packages[@]}" <<'PYTHON'
import sys
from importlib.metadata import PackageNotFoundError, version

for name, pinned in (package.split("==") for package in sys.argv[1:]):
    try:
        installed = version(name)
    except PackageNotFoundError:
        installed = "is not installed"
    print(name, installed)
    if installed.partition("+")[0] != pinned:
        print(f"This finding is about {name} {pinned}.")
        sys.exit(2)
PYTHON
cat > finding.py <<'PYTHON'
import logging
import sys

from ignite.engine import Engine, Events

logging.disable()
trained = []


def step(engine, batch):
    if batch is None:
        raise ValueError("a broken case")
    trained.append(batch)


def run(data):
    """Return how many batches were trained, whether the run came to its end, and what was raised."""
    trained.clear()
    ended.clear()
    try:
        engine.run(data, max_epochs=5, epoch_length=3)
    except ValueError as error:
        return len(trained), bool(ended), str(error)
    return len(trained), bool(ended), None


engine, ended = Engine(step), []
engine.add_event_handler(Events.COMPLETED, lambda: ended.append(True))
first, second, third = run([0, None, 2]), run([0, 1, 2]), run([0, 1, 2])
print("Expected: the second run, on mended data, trains to its end, or an error says why not")
print("Seen, first run (batches, ended, error):", *first)
print("Seen, second run (batches, ended, error):", *second)
print("Seen, third run (batches, ended, error):", *third)
sys.exit(0 if first == (1, False, "a broken case") and second == (0, False, None) and third[1] else "The behavior has changed.")
PYTHON
"$python" finding.py
