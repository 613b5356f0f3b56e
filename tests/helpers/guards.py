# SPDX-License-Identifier: Apache-2.0
"""Guards of made-up trainings."""

import numpy as np

from bundle.pyraseg.runtime import Guard, group_sizes


def made_up_guard(channels: int, *, threshold: float = 1.0) -> Guard:
    """Return a guard whose axes and scales look like nothing in particular, for images of some channels."""
    random = np.random.default_rng(channels)
    count = sum(group_sizes(channels))
    axes = np.linalg.qr(random.normal(size=(count, 6)))[0].T.astype(np.float16).astype(np.float32)
    numbers = random.normal(size=count), random.uniform(0.5, 2, count), axes, random.uniform(0.5, 2, 6)
    return Guard(*(array.astype(np.float32) for array in numbers), residual=2.0, threshold=threshold)
