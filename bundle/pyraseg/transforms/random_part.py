# SPDX-License-Identifier: Apache-2.0
"""Part a chain of transforms where chance begins."""

from monai.transforms import Compose, RandomizableTrait


def split_at_random(chain: Compose) -> tuple[Compose, Compose]:
    """Return what a chain does before its first random transform, and that transform with all that follows.

    Both hold the transforms themselves, not copies. The second draws what the whole chain would draw from one seed.
    """
    transforms = chain.flatten().transforms
    first = next((i for i, each in enumerate(transforms) if isinstance(each, RandomizableTrait)), len(transforms))
    return Compose(transforms[:first]), Compose(transforms[first:])
