# SPDX-License-Identifier: Apache-2.0
"""The settings of a sweep: every combination of the values that options of a config are to take."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.workflow import parse_options

#: Characters of a setting in the name of its folder; a hash stands behind them.
_NAMED = 60


@dataclass(frozen=True)
class Setting:
    """Hold one value for each option that is swept.

    Attributes:
        values: by the keys of the config, in the order of the command line.
    """

    values: Mapping[str, Any]

    def __str__(self) -> str:
        """Return it as a person reads it.

        >>> print(Setting({"learning_rate": 0.001, "pool_sizes": [1, 2]}), Setting({}), sep="; ")
        learning_rate=0.001 pool_sizes=[1, 2]; as configured
        """
        return " ".join(f"{key}={text_of(value)}" for key, value in self.values.items()) or "as configured"

    @property
    def folder(self) -> str:
        """Return the name of its folder: another for other values, the same whatever the order of the options."""
        content = json.dumps(self.values, sort_keys=True)
        name = re.sub(r"[^\w.=+-]+", "_", str(self))[:_NAMED]
        return f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def text_of(value: Any) -> str:
    """Return a value as it is typed."""
    return value if isinstance(value, str) else json.dumps(value)


def parse_choices(words: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of each option from `KEY=VALUE,VALUE...`; a comma in brackets or quotes separates nothing.

    >>> parse_choices(["learning_rate=0.001,2e-3", "pool_sizes=[1,2],[1,2,3]", "encoder=resnet18"])
    {'learning_rate': [0.001, 0.002], 'pool_sizes': [[1, 2], [1, 2, 3]], 'encoder': ['resnet18']}

    Raises:
        PyrasegError: a word is no such choice, an option comes twice, or one of its values does.
    """
    choices: dict[str, list[Any]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        parts = _parts(text)
        if not (key and equals and all(parts)):
            raise PyrasegError(f"{word!r} is no choice of values. Give --set KEY=VALUE,VALUE.")
        if key in choices:
            raise PyrasegError(f"The option {key!r} is set twice. Give all of its values behind one {key}=.")
        values = [parse_options([f"--{key}={part}"])[key] for part in parts]
        twice = [value for number, value in enumerate(values) if value in values[:number]]
        if twice:
            raise PyrasegError(f"The option {key!r} takes the value {twice[0]!r} twice. Give each value once.")
        choices[key] = values
    return choices


def grid(choices: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """Return every combination, the last option changing first; without options the one setting of the config.

    >>> [str(each) for each in grid({"a": [1, 2], "b": [3, 4]})]
    ['a=1 b=3', 'a=1 b=4', 'a=2 b=3', 'a=2 b=4']
    """
    return [Setting(dict(zip(choices, values, strict=True))) for values in product(*choices.values())]


def _parts(text: str) -> list[str]:
    """Return what the commas outside brackets and quotes separate."""
    parts, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        else:
            depth += (char in "[({") - (char in "])}")
        if char == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]
