# SPDX-License-Identifier: Apache-2.0
"""Write the tables of tried forms into docs/dicom.md, with the readers that agree with ours on each."""

from pathlib import Path

from tests.helpers.corpus.forms import table, tables_in
from tests.helpers.corpus.others import agreeing

PAGE = Path(__file__).resolve().parents[1] / "docs" / "dicom.md"


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page.replace(tables_in(page), table(agreeing)), encoding="utf-8")


if __name__ == "__main__":
    main()
