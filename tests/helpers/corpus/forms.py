# SPDX-License-Identifier: Apache-2.0
"""All forms of the corpus, and the table of them in the documentation."""

from collections.abc import Callable, Sequence

from tests.helpers.corpus import ct, encodings, enhanced, media, mr, nuclear, projections, tiles
from tests.helpers.corpus.form import Form

#: By the heading of their table.
KINDS: dict[str, list[Form]] = {
    "CT": ct.FORMS,
    "MR": mr.FORMS,
    "Enhanced objects": enhanced.FORMS,
    "Tiles": tiles.FORMS,
    "Nuclear medicine": nuclear.FORMS,
    "Radiographs, ultrasound, films, photographs": projections.FORMS,
    "Encodings": encodings.FORMS,
    "Media, archives, anonymizers": media.FORMS,
}
FORMS = [form for forms in KINDS.values() for form in forms]


def row(form: Form, agreeing: Sequence[str] | None = None) -> str:
    """Return the row of the table or, without the readers that agree, how it begins."""
    begins = f"| {form.name} | {form.makers} | {form.happens} |"
    return begins if agreeing is None else f"{begins} {', '.join(agreeing) or 'values by construction'} |"


def table(agreeing: Callable[[Form], Sequence[str]]) -> str:
    """Return the tables of all forms.

    Args:
        agreeing: finds the readers that agree on a form.
    """
    parts = []
    for kind, forms in KINDS.items():
        rows = [row(form, agreeing(form)) for form in forms]
        parts.append("\n".join([f"| {kind} | written by | what happens | agreeing |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts)


def tables_in(page: str) -> str:
    """Return the tables that stand in the page of the documentation."""
    return page.split("<!-- forms -->\n\n")[1].split("\n\n<!-- end of forms -->")[0]
