# SPDX-License-Identifier: Apache-2.0
"""Look at processes through /proc: which are workers of Ray, and how much memory they have."""

import re
from pathlib import Path


def workers_of(driver: int) -> list[int]:
    """Return the processes of Ray's workers below a driver, by /proc."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int(re.search(r"^PPid:\s*(\d+)", (place / "status").read_text(), re.M)[1])
            names[int(place.name)] = (place / "cmdline").read_text()
        except (OSError, TypeError):
            continue

    def is_below(process: int) -> bool:
        while process in parents and process != driver:
            process = parents[process]
        return process == driver

    return [one for one, name in names.items() if name.startswith("ray::RayWorker") and is_below(one)]


def resident(process: int) -> float:
    """Return the memory of a process, MB; 0 where it is no more."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024 if "VmRSS:" in text else 0.0


def thirds(values: list[float]) -> list[float]:
    """Return the largest value in the first, second and last third of a run."""
    third = max(1, len(values) // 3)
    return [round(max(values[start : start + third] or [0.0]), 1) for start in (0, third, 2 * third)]
