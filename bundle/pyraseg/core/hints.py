# SPDX-License-Identifier: Apache-2.0
"""What a user may have meant by a mistyped name."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest_hint(name: object, known: Iterable[object], *, count: int = 1) -> str:
    """Return a sentence that names the most similar of the known names, for the end of a message, or "".

    >>> nearest_hint("epoch", ["epochs", "spacing"])
    " The nearest name is 'epochs'."
    """
    nearest = get_close_matches(str(name), sorted(map(str, known)), n=count, cutoff=0.3)
    named = ", ".join(map(repr, nearest))
    return f" The nearest name{' is' if len(nearest) == 1 else 's are'} {named}." if nearest else ""
