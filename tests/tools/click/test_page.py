# SPDX-License-Identifier: Apache-2.0
"""The page as people use it, in Chromium: click, undo, save, and what was saved is what was shown."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from bundle.pyraseg.core.files import read_csv
from bundle.pyraseg.datalists.pairing import find_pairs
from bundle.pyraseg.labels.seg_reader import is_automatic
from bundle.pyraseg_tools.click.labeling import COLUMNS, key_of
from bundle.pyraseg_tools.click.server import Server
from tests.helpers.browser import DESKTOP, browsing
from tests.helpers.dicom_files import write_series
from tests.tools.click.conftest import photo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as found:
        yield found


class Visit:
    """The page of a server in a browser."""

    def __init__(self, browser: Browser, server: Server) -> None:
        self.server, self.complaints = server, []
        self.page: Page = browser.new_page(viewport=DESKTOP)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("request", lambda request: self._see(request.url))
        self.page.goto(server.address)
        self.settled()

    def _see(self, url: str) -> None:
        if not url.startswith((f"http://127.0.0.1:{self.server.server_port}/", "data:", "blob:")):
            self.complaints.append(f"asked for {url}")

    def settled(self) -> None:
        """Wait until the page has nothing to do."""
        expect(self.page.locator("#images li").first).to_be_visible()
        self.page.evaluate("async () => { let last; do { last = queue; await last; } while (last !== queue); }")

    def at(self, column: float, row: float) -> tuple[float, float]:
        """Return where a pixel of the image is on the screen."""
        where = """([c, r]) => { const s = $('stage').getBoundingClientRect();
            return [s.left + view.x + (c + 0.5) * view.scale, s.top + view.y + (r + 0.5) * view.scale]; }"""
        return tuple(self.page.evaluate(where, [column, row]))

    def click(self, column: float, row: float, *, button: str = "left", alt: bool = False) -> None:
        if alt:
            self.page.keyboard.down("Alt")
        self.page.mouse.click(*self.at(column, row), button=button)
        if alt:
            self.page.keyboard.up("Alt")
        self.settled()

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end), steps=3)
        self.page.mouse.up()
        self.settled()

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.settled()

    def painted(self) -> np.ndarray:
        """Return where the page has painted the mask, (rows, columns) bool, as its canvas has it."""
        read = """() => { const c = $('mask'), o = new OffscreenCanvas(c.width, c.height).getContext('2d',
            { willReadFrequently: true }); o.drawImage(c, 0, 0);
            const d = o.getImageData(0, 0, c.width, c.height).data;
            return [c.height, c.width, Array.from(d.filter((_, i) => i % 4 === 3))]; }"""
        rows, columns, alpha = self.page.evaluate(read)
        return np.array(alpha).reshape(rows, columns) > 0

    def status(self) -> str:
        return self.page.locator("#status").inner_text()

    def close(self) -> None:
        self.page.close()
        assert self.complaints == []


@pytest.fixture
def visit(browser):
    opened = []

    def start(server: Server) -> Visit:
        opened.append(Visit(browser, server))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def label(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_click_undo_and_save(serve, visit, photographs, tmp_path):
    images = tmp_path / "set" / "images"
    photo(images / "one.png", sure=1)
    page = visit(serve(photographs, images))
    before = page.painted()
    assert before[50, 110] and not before[10, 10] and before.sum() == pytest.approx(40 * 50, rel=0.1)
    page.click(20, 15)
    assert "Inside: lesion" in page.status()
    added = page.painted() & ~before
    rows, columns = np.nonzero(added)
    assert (round(columns.mean()), round(rows.mean())) == (20, 15)
    page.click(125, 60, button="right")
    assert not page.painted()[60, 125] and page.page.locator("#clicks").inner_text() == "2"
    page.click(95, 35, alt=True)
    assert not page.painted()[35, 95]
    page.press("z")
    assert page.painted()[35, 95]
    page.press("Control+z")
    np.testing.assert_array_equal(page.painted(), before | added)
    page.drag((40, 80), (70, 95))
    assert page.painted()[88, 55] and page.page.locator("#clicks").inner_text() == "1, 1 box"
    assert page.page.evaluate("document.body.dataset.saved") == "false"
    page.press("s")
    assert "Saved as one.png. All images are labeled." in page.status()
    saved = label(tmp_path / "set" / "labels" / "one.png")
    assert saved.dtype == np.uint8 and set(np.unique(saved)) == {0, 1}
    np.testing.assert_array_equal(saved > 0, page.painted())
    page.press("m")
    expect(page.page.locator("#mask")).to_be_hidden()
    page.press("m")
    layout, pairs = find_pairs(tmp_path / "set")
    assert layout == "images/ and labels/" and [Path(pair["label"]).name for pair in pairs] == ["one.png"]
    (row,) = read_csv(tmp_path / "runs" / "clicks.csv", COLUMNS)
    counts = {name: row[name] for name in ("image", "clicks", "boxes", "taken_back", "columns", "rows")}
    assert counts == {"image": key_of("one"), "clicks": "1", "boxes": "1", "taken_back": "2", "columns": "160",
                      "rows": "100"}  # fmt: skip
    assert 0 < float(row["seconds"]) < 100 and "one" not in Path(tmp_path / "runs" / "clicks.csv").read_text()


def test_corrections_are_not_lost_by_accident(serve, visit, photographs, tmp_path):
    for number in (1, 2):
        photo(tmp_path / "images" / f"{number}.png", sure=number / 2)
    page = visit(serve(photographs, tmp_path / "images"))
    name = page.page.locator("#name")
    expect(name).to_have_text("1")
    page.click(20, 15)
    page.press("n")
    expect(name).to_have_text("1")
    assert "not saved" in page.status()
    page.press("n")
    expect(name).to_have_text("2")
    page.press("p")
    expect(name).to_have_text("1")
    assert not page.painted()[15, 20]


def test_a_series_is_labeled_and_saved_as_seg(serve, visit, slices, tmp_path):
    values = np.full((5, 60, 90), 0, np.int16)
    values[:, 10:40, 50:80] = 150
    write_series(tmp_path / "study" / "images" / "case", values, spacing=(1.7, 1.7), slice_step=3,
                 orientation=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0), PatientName="Secret^Name")  # fmt: skip
    page = visit(serve(slices, tmp_path / "study" / "images"))
    expect(page.page.locator("#number")).to_have_text("1 of 5")
    page.press("ArrowUp")
    page.press("ArrowUp")
    expect(page.page.locator("#number")).to_have_text("3 of 5")
    before = page.painted()
    assert before[25, 65] and not before[50, 20]
    page.press("2")
    page.page.locator("#spread").uncheck()
    page.click(20, 50)
    assert page.painted()[50, 20]
    page.press("1")
    page.page.locator("#spread").check()
    page.click(70, 30, button="right")
    assert "slices" in page.page.locator("#answer").inner_text()
    shown = []
    for number in range(5):
        page.page.locator("#slice").fill(str(number + 1))
        page.settled()
        shown.append(page.painted())
    page.press("s")
    path = tmp_path / "study" / "labels" / "case.dcm"
    assert "Saved as case.dcm" in page.status()
    seg = hd.seg.segread(path)
    header = pydicom.dcmread(path)
    assert not is_automatic(header) and str(header.PatientName) == "Secret^Name"
    assert {str(item.SegmentAlgorithmType) for item in seg.SegmentSequence} == {"SEMIAUTOMATIC"}
    assert {str(item.SegmentAlgorithmName) for item in seg.SegmentSequence} == {"Pyraseg"}
    files = sorted((tmp_path / "study" / "images" / "case").iterdir())
    uids = [str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files]
    stored = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    assert set(np.unique(stored)) == {0, 1, 2}
    found = {plane.tobytes() for plane in stored > 0}
    assert found == {plane.tobytes() for plane in np.array(shown)}
    np.testing.assert_array_equal(stored[2] > 0, shown[2])
    assert "Secret" not in (tmp_path / "runs" / "clicks.csv").read_text()
    (pair,) = find_pairs(tmp_path / "study")[1]
    assert Path(pair["label"]) == path


def test_ten_images_come_by_uncertainty_and_are_labeled_by_a_script(serve, visit, photographs, tmp_path):
    order = [3, 7, 1, 9, 5, 2, 8, 6, 10, 4]
    for place, number in enumerate(order):
        photo(tmp_path / "set" / "images" / f"photo_{number:02}.png", sure=0.1 + 0.09 * place)
    page = visit(serve(photographs, tmp_path / "set" / "images"))
    listed = page.page.locator("#images span:nth-child(2)").all_inner_texts()
    assert listed == [f"photo_{number:02}" for number in order]
    told = [float(text) for text in page.page.locator("#images span:last-child").all_inner_texts()]
    assert told == sorted(told, reverse=True) and told[0] > 2 * told[-1]
    for place, name in enumerate(listed):
        expect(page.page.locator("#name")).to_have_text(name)
        page.click(30, 20)
        page.click(115, 50)
        shown = page.painted()
        page.press("s")
        np.testing.assert_array_equal(label(tmp_path / "set" / "labels" / f"{name}.png") > 0, shown)
        expect(page.page.locator("#progress")).to_have_text(f"{place + 1} of 10 labeled")
        page.press("n")
    assert "All images are labeled" in page.status()
    assert len(read_csv(tmp_path / "runs" / "clicks.csv", COLUMNS)) == 10
    assert len(find_pairs(tmp_path / "set")[1]) == 10
    # Whoever begins again goes on where it ended.
    (tmp_path / "set" / "labels" / f"{listed[4]}.png").unlink()
    again = visit(serve(photographs, tmp_path / "set" / "images"))
    expect(again.page.locator("#name")).to_have_text(listed[4])
    expect(again.page.locator("#progress")).to_have_text("9 of 10 labeled")


def test_without_the_token_the_page_says_what_to_do(serve, browser, photographs, tmp_path):
    photo(tmp_path / "images" / "one.png", sure=1)
    server = serve(photographs, tmp_path / "images")
    page = browser.new_page()
    page.goto(server.address.partition("#")[0])
    expect(page.locator("#status")).to_contain_text("with its token behind #")
    page.goto("about:blank")
    page.goto(server.address[:-3])
    expect(page.locator("#status")).to_contain_text("Open the address that pyraseg click has printed")
    page.close()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/api/state", timeout=5)
