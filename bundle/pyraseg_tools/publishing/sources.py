# SPDX-License-Identifier: Apache-2.0
"""Which files of a working tree may go into a package: those that git tracks."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from bundle.pyraseg.core import PyrasegError


def check_tracked(root: Path, paths: Iterable[Path]) -> None:
    """Check that git tracks files which are about to be packaged, so that no scratch file goes to others.

    Where `root` is no working tree of git (an unpacked archive, a package), or git is not installed, nothing can tell,
    and every file may go.

    Raises:
        PyrasegError: git does not track one of them, or cannot list what it tracks.
    """
    if not (root / ".git").exists() or shutil.which("git") is None:
        return
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise PyrasegError(f"git cannot list the files that it tracks in {root}: {listed.stderr.strip()}")
    tracked = set(listed.stdout.split("\0"))
    stray = sorted({path.relative_to(root).as_posix() for path in paths} - tracked)
    if stray:
        raise PyrasegError(
            f"git does not track {', '.join(stray[:5])}{' and others' if stray[5:] else ''}, which would be packaged. "
            f"Add what belongs to it (git add), and move the rest out of {root}."
        )
