# SPDX-License-Identifier: Apache-2.0
"""A real Chromium without a window, and what it must never do while a report is open."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

expect.set_options(timeout=30_000)  # ms: a busy machine may take its time


def chromium() -> str:
    """Return the path of Chromium: PYRASEG_CHROMIUM, or Debian's. Skip the test where there is none."""
    path = os.environ.get("PYRASEG_CHROMIUM") or shutil.which("chromium", path="/usr/bin")
    if path is None:
        pytest.skip("there is no /usr/bin/chromium; PYRASEG_CHROMIUM may name another one")
    return path


@contextmanager
def browsing(*arguments: str) -> Iterator[Browser]:
    """Run Chromium, with further arguments.

    It has no sandbox: within a container it could not make one, and it opens our own files and servers alone.
    """
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *arguments])
        yield browser
        browser.close()


class Watched:
    """A page of a file, with everything that it logged and every address that it asked for."""

    def __init__(self, browser: Browser, file: Path, *, size: dict[str, int] = DESKTOP, **options: object) -> None:
        self.page: Page = browser.new_page(viewport=size, **options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.address = file.resolve().as_uri()
        self.page.goto(self.address)

    def close(self) -> None:
        """Close the page and fail if it complained, or asked for anything but itself and what is within it."""
        self.page.close()
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith("data:")] == [self.address]
