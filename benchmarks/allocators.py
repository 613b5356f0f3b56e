# SPDX-License-Identifier: Apache-2.0
"""Time the same calls with the C library's allocator as users of PyTorch have it, and as programs of Pyraseg set it.

`keep_memory` cannot be taken back (mallopt(3): a limit that is set is never adjusted again), so each way has a process
of its own. Both live side by side and take turns, a round each, so that whatever else the machine does hits them alike.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from tqdm import tqdm

from bundle.pyraseg.core import keep_memory

#: The allocator as PyTorch is used by others, and after `keep_memory`.
ALLOCATORS = {"default": "the allocator as it is", "kept": "the allocator as Pyraseg sets it"}
UNTIMED = 2  # rounds that allocate
Calls = dict[str, Callable[[], object]]


def interleaved_in_both(
    make: Callable[..., Calls], *given: Any, repeats: int, what: str
) -> dict[str, dict[str, list[float]]]:
    """Return the milliseconds of every call in every round, by allocator and name.

    In a round the calls follow each other in one process, and then in the other; the order turns.

    Args:
        make: returns the calls, in each process; a function of a module, which also sets threads and the like.
        given: its arguments, which are pickled.
        repeats: timed rounds.
        what: is timed, for the progress bar.

    Raises:
        RuntimeError: a process ended (its own error is printed), as it does where there is nothing to set.
    """
    milliseconds: dict[str, dict[str, list[float]]] = {allocator: {} for allocator in ALLOCATORS}
    with ExitStack() as stack:
        pipes = {allocator: _start(stack, allocator, make, given) for allocator in ALLOCATORS}
        for repeat in tqdm(range(-UNTIMED, repeats), desc=what, unit="round", disable=None):
            for allocator, pipe in pipes.items():
                try:
                    pipe.send(repeat)
                    found = pipe.recv()
                except (EOFError, ConnectionError) as error:
                    raise RuntimeError(f"The process with {ALLOCATORS[allocator]} ended.") from error
                for name, value in found.items() if repeat >= 0 else ():
                    milliseconds[allocator].setdefault(name, []).append(value)
    return milliseconds


def _start(stack: ExitStack, allocator: str, make: Callable[..., Calls], given: tuple) -> Connection:
    """Start a process that makes the calls and times them whenever it is told to; it ends with the stack."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, allocator, make, given), daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends with the process
    stack.callback(process.join)
    stack.callback(ours.close)
    return ours


def _serve(pipe: Connection, allocator: str, make: Callable[..., Calls], given: tuple) -> None:
    if allocator == "kept" and not keep_memory():
        raise RuntimeError(
            "There is no GNU C library, or the environment chooses an allocator: unset MALLOC_* and such."
        )
    turns = list(make(*given).items())
    try:
        while True:
            pipe.recv()
            turns.append(turns.pop(0))  # nobody always follows another
            found = {}
            for name, call in turns:
                start = time.perf_counter()
                call()
                found[name] = 1e3 * (time.perf_counter() - start)
            pipe.send(found)
    except EOFError:  # the other end is closed: all is timed
        return
