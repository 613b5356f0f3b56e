# SPDX-License-Identifier: Apache-2.0
"""What random transforms share: where chance begins in a chain, and how strong an augmentation is."""

from collections.abc import Sequence
from typing import Any

from monai.transforms import Compose, RandomizableTrait

from bundle.pyraseg.core import PyrasegError


class ScaledByStrength:
    """Mark a random transform whose amplitudes are multiplied by ``strength`` when it is called.

    The constructor of such a transform takes the amplitudes at full strength. The random draws do not depend on the
    strength, so the same seed gives the same deformation or noise, only smaller; ``strength = 0`` changes nothing.
    """

    strength: float = 1.0


def set_strength(transform: Any, strength: float) -> int:
    """Set the strength of every ``ScaledByStrength`` in a transform, a sequence or a (nested) ``Compose``.

    Args:
        transform: a transform, a list or tuple of them, or anything that holds such a sequence as ``transforms``
            (``Compose``, ``OneOf``, ``RandomOrder``, ``SomeOf``).
        strength: 0 for no augmentation to 1 for the amplitudes given to the constructors.

    Returns:
        How many transforms were set: 0 tells the caller that the strength has no effect.

    Raises:
        PyrasegError: if the strength is outside [0, 1].
    """
    if not 0.0 <= strength <= 1.0:
        raise PyrasegError(f"The augmentation strength is {strength}. Give a number from 0 (none) to 1 (full).")
    if isinstance(transform, ScaledByStrength):
        transform.strength = float(strength)
        return 1
    children = transform if isinstance(transform, Sequence) else getattr(transform, "transforms", ())
    return sum(set_strength(child, strength) for child in children)


def split_at_random(chain: Compose) -> tuple[Compose, Compose]:
    """Return what a chain does before its first random transform, and that transform with all that follows.

    Both hold the transforms themselves, not copies. The second draws what the whole chain would draw from one seed.
    """
    transforms = chain.flatten().transforms
    first = next((i for i, each in enumerate(transforms) if isinstance(each, RandomizableTrait)), len(transforms))
    return Compose(transforms[:first]), Compose(transforms[first:])
