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
