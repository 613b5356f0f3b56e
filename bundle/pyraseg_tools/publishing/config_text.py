# SPDX-License-Identifier: Apache-2.0
"""Configs as text, written as those of the repository are: one component on one line."""

import json
from typing import Any


def config_text(config: dict[str, Any]) -> str:
    """Return a config as JSON; a reader finds each component, or plain value, on a line of its own."""
    return _text(config, 0) + "\n"


def _text(value: Any, depth: int) -> str:
    if depth and not _is_spread(value):
        return json.dumps(value, ensure_ascii=False)
    inner, outer = "    " * (depth + 1), "    " * depth
    if isinstance(value, dict):
        lines = [f"{json.dumps(key, ensure_ascii=False)}: {_text(item, depth + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + line for line in lines) + f"\n{outer}}}"
    return "[\n" + ",\n".join(inner + _text(item, depth + 1) for item in value) + f"\n{outer}]"


def _is_spread(value: Any) -> bool:
    """Return whether a value takes several lines: it lists objects, or is a section that holds objects."""
    if isinstance(value, list):
        objects = [item for item in value if isinstance(item, dict)]
        return bool(objects) and (len(objects) == len(value) or any("_target_" in item for item in objects))
    if not isinstance(value, dict):
        return False
    if "_target_" in value:
        return any(_is_spread(item) and isinstance(item, list) for item in value.values())
    return any((isinstance(item, dict) and item) or _is_spread(item) for item in value.values())
