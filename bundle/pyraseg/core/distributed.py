# SPDX-License-Identifier: Apache-2.0
"""The processes that share one training: which one this is, whose turn it is, and what the others found."""

import itertools
import logging
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import ignite.distributed as idist
import torch
import torch.distributed as dist

from bundle.pyraseg.core.errors import PyrasegError

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: How long a process waits for its turn. The first may take hours to preprocess a large data set; should it die, the
#: launcher ends those that wait.
TURN = timedelta(days=7)

_store: dist.Store | None = None
_turns = itertools.count()


def process_rank() -> int:
    """Return the number of this process, from 0 on; 0 is the one that writes. Without `start` it is alone."""
    return 0 if _store is None else dist.get_rank()


def process_count() -> int:
    """Return how many processes share the training."""
    return 1 if _store is None else dist.get_world_size()


def own_device() -> str:
    """Return the GPU of this process, which is that of its number on its machine, or "cpu" where there is none.

    Raises:
        PyrasegError: this machine has GPUs, but fewer than processes.
    """
    if not torch.cuda.is_available():
        return "cpu"
    local, found = _local_rank(), torch.cuda.device_count()
    if local >= found:
        raise PyrasegError(
            f"This machine has {found} GPUs for more processes than that. Start torchrun with --nproc_per_node={found}."
        )
    return f"cuda:{local}"


def start_processes(device: torch.device | str) -> None:
    """Join the processes that torchrun has started: over NCCL where the device is a GPU, over gloo on CPUs.

    The first one alone logs; the others are silent up to errors.

    Raises:
        PyrasegError: torchrun did not start this process.
    """
    global _store
    if _store is not None:
        return
    _local_rank()
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(_local_rank() if device.index is None else device)
    store, number, processes = next(dist.rendezvous("env://"))
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.PrefixStore("group", store), rank=number, world_size=processes)
    idist.sync()  # Ignite's metrics find out about the group at their first use, which must not be one process's alone
    # A connection of its own: NCCL's threads use the other one while a process waits here.
    _store = store.clone()  # pyrefly: ignore # PyTorch's stub of Store lacks it
    if number > 0:
        logging.getLogger("bundle").setLevel(logging.ERROR)
    logger.info("%d processes, connected by %s", processes, backend)


def stop_processes() -> None:
    """Leave the group that `start` has joined."""
    global _store
    if _store is not None:
        dist.destroy_process_group()
        _store = None


@contextmanager
def in_turn() -> Generator[None]:
    """Let the processes run a block one after the other, the first one first.

    What the first writes the others find, and on a machine with disks of its own, its first process writes it again.
    """
    if _store is None:
        yield
        return
    turn, number = next(_turns), process_rank()
    if number > 0:
        _store.wait([f"turn {turn} of {number - 1}"], TURN)
    yield
    _store.set(f"turn {turn} of {number}", "over")


def gather(value: T) -> list[T]:
    """Return what every process passes, in the order of their numbers. All must call it."""
    if _store is None:
        return [value]
    values: list[T] = [value] * process_count()
    dist.all_gather_object(values, value)
    return values


def from_first(make: Callable[[], T]) -> T:
    """Return what `make` returns in the first process. All must call this; the others do not call `make`."""
    if _store is None:
        return make()
    values: list[Any] = [make() if process_rank() == 0 else None]
    dist.broadcast_object_list(values)
    return values[0]


def first_to_fail() -> bool:
    """Return whether no other process has asked this before: of the processes that an error ends, one tells of it."""
    return _store is None or _store.add("failed", 1) == 1


def _local_rank() -> int:
    """Return the number of this process on its machine."""
    if not all(name in os.environ for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        raise PyrasegError(
            "Several processes are asked for (multi_gpu_train.json), but torchrun did not start this one. Run "
            "`torchrun --standalone --nproc_per_node=N -m monai.bundle run ...`, or leave that file out."
        )
    return int(os.environ["LOCAL_RANK"])
