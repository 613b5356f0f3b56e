# SPDX-License-Identifier: Apache-2.0
"""The one mechanism that makes augmentation weak in an early stage of training and full in the last."""

from collections.abc import Sequence
from typing import Any

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
