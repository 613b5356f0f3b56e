# SPDX-License-Identifier: Apache-2.0
"""A process that holds a folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOLDS = """
import os, subprocess, sys, time
from bundle.pyraseg.core.holding import hold
hold(sys.argv[1], sys.argv[2])
child = os.fork() if "fork" in sys.argv else 1
if child == 0:
    time.sleep(60)
print(child, flush=True)
sys.stdin.read()
"""


#: What a process of its own is told of a folder.
ASKS = """
import sys
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.core.holding import hold
try:
    hold(sys.argv[1], sys.argv[2])
except PyrasegError:
    print("taken")
else:
    print("free")
"""


def is_taken(folder: Path, work: str = "training") -> bool:
    """Return whether another process is refused the folder."""
    command = [sys.executable, "-c", ASKS, str(folder), work]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert answer in ("taken", "free")
    return answer == "taken"


@contextmanager
def another(folder: Path, *words: str, work: str = "training") -> Iterator[tuple[subprocess.Popen, int]]:
    """Run a process that holds the folder, and yield it with the id of its child."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, folder, work, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            yield process, child
        finally:
            process.kill()
            if child > 1:
                os.kill(child, 9)
