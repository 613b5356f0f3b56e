# SPDX-License-Identifier: Apache-2.0
"""Write CHANGELOG.md from the change log of configs/metadata.json.

python -m scripts.write_changelog
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "CHANGELOG.md"
HEAD = """# Change log

Written by `python -m scripts.write_changelog` from `configs/metadata.json`, which packages carry.
"""


def text() -> str:
    """Return the change log as Markdown, a version a heading and a sentence or clause a line."""
    entries = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))["changelog"]
    parts = [HEAD]
    for version, entry in entries.items():
        clauses = [clause for sentence in entry.split(". ") for clause in sentence.rstrip(".").split("; ")]
        parts.append(f"\n## {version}\n\n" + "".join(f"- {clause[0].upper()}{clause[1:]}.\n" for clause in clauses))
    return "".join(parts)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(f"Wrote {FILE.relative_to(ROOT)}")
