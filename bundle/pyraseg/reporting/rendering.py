# SPDX-License-Identifier: Apache-2.0
"""A template as one HTML file in the style of the report, which opens from disk and asks no network for anything."""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bundle.pyraseg.evaluation import format_figure


def render_page(template: str, *, script: str = "", **content: Any) -> str:
    """Return a page in the style of the report; everything in it is escaped, and no script runs but its own.

    Args:
        template: of Jinja; it puts `style`, `policy` (of its Content-Security-Policy) and `script` in their places.
        script: the page's own program.
        content: what else the template names.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = format_figure
    environment.filters["digits"] = lambda column: 1 if str(column).endswith(("_mm", "_px", "_ml")) else 3
    environment.filters["size"] = _size
    style = (files("bundle.pyraseg.reporting") / "templates" / "report.css").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {_source(script)}",
        **content,
    )


def _size(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _source(text: str) -> str:
    """Return the hash by which a Content-Security-Policy knows an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
