# SPDX-License-Identifier: Apache-2.0
"""Folders that one process at a time writes to; the operating system frees them when the process ends."""

import atexit
import errno
import logging
import os
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import IO, Any

from bundle.pyraseg.core.errors import DiskError, PyrasegError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

#: What the operating system says of a file that another process has locked; all else is a disk without locks.
TAKEN = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}

#: Locked files of this process, by their paths, and the folders that were made for them, the deepest first.
_held: dict[Path, tuple[IO[str], list[Path]]] = {}


def hold(folder: str | Path, work: str) -> None:
    """Keep other processes from the same work in a folder, until `release` or the end of this process.

    The lock is one of the operating system on the file `.WORK.lock` in the folder. It ends with the process, even a
    killed one, and is not handed on to the workers of a data loader. It reaches as far as the disk does: to other
    machines on NFS. A process that holds a folder may hold it again, and the first `release` frees it: see `held` for
    one user alone. Where the disk has no locks, a warning says so.

    Args:
        folder: it is made.
        work: such as "training", for the message.

    Raises:
        PyrasegError: another process holds it.
        DiskError: nothing can be written there.
    """
    path = _lock_file(folder, work)
    if path in _held:
        return
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path, work)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M}")
        file.flush()
    except PyrasegError:
        raise
    except OSError as error:
        raise DiskError(f"Nothing can be written to {path.parent}: {error.strerror}. Give another folder.") from error
    _held[path] = file, made


def _locked(path: Path, work: str) -> IO[str]:
    """Return an open file that is locked, or on a disk without locks one that is not."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            _lock(file)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass  # whoever held it has removed it in the meantime
        except OSError as error:
            if error.errno not in TAKEN:
                logger.warning(
                    "%s has no locks (%s): start no other %s there at the same time", path.parent, error.strerror, work
                )
                return file
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise PyrasegError(
                f"Another {work} writes to {path.parent}{f' ({holder})' if holder else ''}. Wait until it ends, or "
                "give another folder. Nothing was changed there."
            ) from error
        file.close()


def release(folder: str | Path, work: str) -> None:
    """Let others have a folder that this process holds; those that were made for it and stayed empty go."""
    _release(_lock_file(folder, work))


@contextmanager
def held(folder: str | Path, work: str) -> Generator[None]:
    """Hold a folder for a block, and keep others of this process from the same work as well; see `hold`.

    Raises:
        PyrasegError: another process holds it, or this one does.
        DiskError: nothing can be written there.
    """
    if (path := _lock_file(folder, work)) in _held:
        raise PyrasegError(
            f"Another {work} of this process writes to {path.parent}. Wait until it ends, or give another folder. "
            "Nothing was changed there."
        )
    hold(folder, work)
    try:
        yield
    finally:
        release(folder, work)


@contextmanager
def freeing() -> Generator[None]:
    """Free at the end of a block the folders that were held in it, as the end of the process does."""
    before = set(_held)
    try:
        yield
    finally:
        for path in _held.keys() - before:
            _release(path)


def at_failure(engine: Any, action: Callable[[], None]) -> None:
    """Let an engine do something where a run of it ends by an error or is interrupted; the error goes on.

    A kernel of a notebook lives on then, and would hold a folder for nothing. This is no handler of ignite's event
    EXCEPTION_RAISED: of these, none is called behind the first that raises, and an error ends where none does.

    Such an engine runs no more: the next run of it would do nothing and say nothing (ignite 0.5.5), and what is
    promoted or reported behind it would be of the failed one.

    Args:
        engine: of ignite.
        action: that may come twice, and after no start.
    """
    run, failed = engine.run, False

    @wraps(run)
    def run_or_act(*args: Any, **options: Any) -> Any:
        nonlocal failed
        if failed:
            raise PyrasegError("This run failed before, and cannot begin again. Initialize the workflow once more.")
        try:
            return run(*args, **options)
        except BaseException:
            failed = True
            action()
            raise

    engine.run = run_or_act


def _lock_file(folder: str | Path, work: str) -> Path:
    return Path(folder).resolve() / f".{work}.lock"


def _release(path: Path) -> None:
    if path not in _held:
        return
    file, made = _held.pop(path)
    try:
        if sys.platform == "win32":  # which removes no open file
            file.close()
        path.unlink()
        for folder in made:
            if any(folder.iterdir()):
                break
            folder.rmdir()
    except OSError as error:  # a folder is gone, or read-only by now
        logger.debug("%s stays: %s", path, error.strerror)
    finally:
        file.close()


@atexit.register
def _release_all() -> None:
    for path in list(_held):
        _release(path)


def _lock(file: IO[str]) -> None:
    """Lock a file for this process alone, or raise OSError at once."""
    if sys.platform == "win32":
        file.seek(2**20)  # Windows locks bytes against reading, too: those behind the text
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    else:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: children would keep that one
