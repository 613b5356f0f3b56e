# SPDX-License-Identifier: Apache-2.0
"""What a guard costs: an image with an exported model that looks at it, and without."""

import statistics
import time
from pathlib import Path

from bundle.pyraseg.runtime import Model, find_inputs, segment

REPEATS = 40


def cost_of(model: Path, image: Path) -> dict[str, object]:
    """Return the processor time of an image without a look at it, and what a look adds: medians of paired runs.

    Reading, network and labels count, and nothing is written.

    Args:
        model: that `pyraseg export` or `quantize` wrote, with a guard.
        image: a photograph, or a folder with one series.
    """
    exported = Model(model, threads=1)
    assert exported.guard is not None, f"{model} has no guard"
    (item,) = find_inputs(image)
    seconds: dict[str, list[float]] = {"ignore": [], "warn": []}
    for repeat in range(-2, REPEATS):
        for unlike, found in seconds.items():
            start = time.process_time()
            for _ in segment(exported, item["image"], unlike=unlike).slices:
                pass
            if repeat >= 0:  # the first rounds allocate
                found.append(time.process_time() - start)
    without = statistics.median(seconds["ignore"])
    more = statistics.median(b - a for a, b in zip(seconds["ignore"], seconds["warn"], strict=True))
    return {
        "model": model.name,
        "milliseconds without": round(1000 * without, 1),
        "milliseconds more": round(1000 * more, 2),
        "share": f"{100 * more / without:.1f} %",
    }
