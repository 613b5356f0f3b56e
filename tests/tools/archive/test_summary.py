# SPDX-License-Identifier: Apache-2.0
"""The page of an archive: its figures by plain arithmetic, and how it looks in a real browser."""

import sqlite3
from html.parser import HTMLParser
from pathlib import Path
from statistics import median

import pytest

from bundle.pyraseg_tools.archive import AGAIN, DONE, FAILED, Journal, Outcome, left_out, reason_kind, write_summary
from tests.helpers.browser import DESKTOP, PHONE, Watched, browsing
from tests.tools.archive.test_table import row, written

UID = "1.2.826.0.1.3680043.8.498.1946700190384657632497566785848191{:06d}"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a folder with two journals of parts and a table: 200 series, two of them failed, one to be tried again."""
    for part in (1, 2):
        journal = Journal(tmp_path / f"journal-{part}-of-2.sqlite", model="a1b2c3d4e5f6" * 5)
        for number in range(part, 201, 2):
            seconds = {"fetching": 0.2, "segmenting": 2.0 + number / 100, "delivering": 0.1}
            volumes = {"liver": 1400.0 + number, "left kidney": 0.0 if number % 10 == 0 else 150.0}
            unlike = 1.0 + number / 1000 if number > 190 else 0.5
            about = {"images": 100, "volumes": volumes, "seconds": seconds, "unlike": unlike}
            journal.end(f"{number:032x}", Outcome(DONE, UID.format(number), **about))
        for number, reason in ((500 + part, f"/data/p{part}/1.dcm: its {part} pixels <b>are torn & lost"),):
            journal.end(f"{number:032x}", Outcome(FAILED, UID.format(number), reason=reason))
        journal.close()
    journal = Journal(tmp_path / "journal-1-of-2.sqlite", model="a1b2c3d4e5f6" * 5)
    journal.end("ff", Outcome(AGAIN, UID.format(999), reason="s3://images/a does not answer as it should"))
    journal.close()
    skipped = [row(number, skip=f"its {number} slices lie in {number} places") for number in range(3)]
    files = [row(9, series="", digest="", images=7, files=("a <i>note</i>.txt",), skip="not DICOM")]
    written(tmp_path / "table.parquet", [*skipped, *files])
    return tmp_path


class Cells(HTMLParser):
    """Take the texts of the cells of a page, row by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in ("tr", "div"):
            self.rows.append([])
        if tag in ("th", "td", "dt", "dd"):
            self.inside = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("th", "td", "dt", "dd")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data.strip()


def page(work: Path) -> tuple[str, dict[str, list[str]]]:
    write_summary(work, work / "table.parquet", work / "summary.html")
    text = (work / "summary.html").read_text()
    return text, {cells[0]: cells[1:] for cells in Cells(text).rows if cells}


def test_its_figures(work):
    text, rows = page(work)
    assert rows["series done"] == ["200"] and rows["failed"] == ["2"] and rows["to be tried again"] == ["1"]
    assert rows["images"] == ["20000"]
    assert rows["liver"][:2] == ["200", "0"] and rows["left kidney"][:2] == ["200", "20"]
    assert rows["liver"][4] == f"{median(range(1401, 1601)):.0f}" and rows["left kidney"][2] == "0"
    assert rows["segmenting"][2] == "3"
    kind = "...: its # pixels <b>are torn & lost"
    assert rows[kind][:2] == ["2", "0"] and rows["... does not answer as it should"][:2] == ["0", "1"]
    assert rows[UID.format(200)] in (["100", "4.3"], ["1.2"])
    assert "10 of 200. The farthest:" in text and rows["its # slices lie in # places"][0] == "3 series"
    assert rows["not DICOM"] == ["7 files", "a <i>note</i>.txt"]
    assert "<b>are" not in text and "<i>note" not in text and "Secret" not in text


def test_the_pace_leaves_out_the_time_between_runs(work):
    """Two runs of 100 series, one each 4 s, a day between them."""
    paths = sorted(work.glob("journal-*.sqlite"))
    for path, begins in zip(paths, (1.7e9, 1.7e9 + 86400), strict=True):
        with sqlite3.connect(path) as connection:
            ids = [one for (one,) in connection.execute("SELECT id FROM series WHERE state = 'done'")]
            moments = [(begins + 4 * place, one) for place, one in enumerate(ids)]
            connection.executemany("UPDATE series SET ended = ? WHERE id = ?", moments)
    assert page(work)[1]["series an hour"] == ["900"]


def test_a_folder_without_a_journal_has_a_page(tmp_path):
    written(tmp_path / "table.parquet", [])
    text, _ = page(tmp_path)
    assert "No series has ended yet." in text and "Nothing." in text


def test_what_is_left_out_is_counted_by_kind(work):
    kinds = left_out(work / "table.parquet")
    assert [kind[:3] for kind in kinds] == [("not DICOM", 7, "files"), ("its # slices lie in # places", 3, "series")]
    assert reason_kind("Cannot write /b/x y/1.dcm: 1.2.3 is 4") == reason_kind("Cannot write /a/x y/2.dcm: 1.5 is 6")


def test_a_browser_shows_it_on_a_phone_and_a_desk(work):
    page(work)
    with browsing() as browser:
        for size in (PHONE, DESKTOP):
            watched = Watched(browser, work / "summary.html", size=size)
            assert watched.page.get_by_role("heading", name="Volumes").is_visible()
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert watched.page.evaluate(wide) <= 0
            watched.close()
