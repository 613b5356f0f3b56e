# SPDX-License-Identifier: Apache-2.0
"""How a process of ours uses memory and threads, said once where it begins."""

import ctypes
import os
import platform

# of malloc.h of the GNU C library, see mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_KEPT = 2**31 - 1


def keep_memory() -> bool:
    """Let the C library keep the memory that is freed, up to 2 GiB, for what is needed next.

    The GNU C library else maps each large array anew, page by page, and gives it back when it is freed: PyTorch on a
    CPU may spend more time on that than on a network's arithmetic (findings/torch_allocator.sh). Results are the same.

    Returns:
        Whether it was said: not on other C libraries, and not where the user has chosen an allocator or its limits
        (LD_PRELOAD, GLIBC_TUNABLES or MALLOC_* in the environment).
    """
    chosen = [name for name in os.environ if name.startswith("MALLOC_") or name in ("LD_PRELOAD", "GLIBC_TUNABLES")]
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _KEPT))


def give_back_memory() -> None:
    """Give the kernel back what is free in the C library's memory, which `keep_memory` lets it keep.

    Between two phases of other sizes: what the first one leaves lies in pieces, beside which the second one would take
    memory of its own. It does nothing on other C libraries.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def wait_passively() -> None:
    """Let threads of OpenMP sleep while they wait for each other, unless the user has said how they wait.

    By default they spin, which starves them beside other busy processes: the threads that have work do not get a
    processor. It takes effect only before PyTorch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float:
    """Return how many processes wanted a processor, as a mean of the last minute; 0 on systems that do not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
