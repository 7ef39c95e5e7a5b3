"""Debian's Chromium, driven by Playwright: a page that takes a picture of every step and talks to nobody else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

SHOTS = "VIDLOOP_TEST_SHOTS"
"""Environment variable that names the folder of the pictures; else they lie with the test's other files."""
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
PATIENCE_MS = 900_000.0


def chromium() -> str:
    """The browser of this machine; the test is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    return found


class Tab:
    """A page and the pictures of it."""

    def __init__(self, page: Page, origin: str, folder: Path) -> None:
        self.page, self.origin, self.folder = page, origin, folder
        self.outside: set[str] = set()
        self._shots = 0
        folder.mkdir(parents=True, exist_ok=True)
        page.set_default_timeout(PATIENCE_MS)
        page.set_default_navigation_timeout(PATIENCE_MS)
        page.route("**/*", lambda route: route.continue_() if self._own(route.request.url) else route.abort())

    def _own(self, url: str) -> bool:
        if url.startswith((self.origin, "data:", "blob:")):
            return True
        self.outside.add(urlsplit(url).hostname or url)
        return False

    def open(self, path: str) -> None:
        """Go to a path of the server. What the page then shows is for the caller to wait for."""
        self.page.goto(f"{self.origin}{path}", wait_until="commit")

    def shot(self, name: str, whole: bool = False) -> Path:
        """Take a picture; `whole`: of everything that could be scrolled to."""
        self._shots += 1
        path = self.folder / f"{self._shots:02d}-{name}.png"
        size = self.page.viewport_size
        assert size is not None
        if whole:
            # The UI scrolls inside its page: only a window that is high enough shows all of it.
            high = "Math.max(...[...document.querySelectorAll('*')].map(e => e.scrollHeight))"
            self.page.set_viewport_size({**size, "height": min(int(self.page.evaluate(high)) + 40, 8000)})
        self.page.wait_for_timeout(1000)  # for what fades in; nothing depends on it
        self.page.screenshot(path=path, timeout=PATIENCE_MS)
        self.page.set_viewport_size(size)
        return path


@contextmanager
def browsing(origin: str, folder: Path) -> Iterator[Tab]:
    """A fresh browser at `origin`; requests to anywhere else are noted and not sent."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (group `dev`)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS, timeout=PATIENCE_MS)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            yield Tab(page, origin, Path(os.environ.get(SHOTS) or folder))
        finally:
            browser.close()
