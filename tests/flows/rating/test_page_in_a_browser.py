"""The page of `vidloop rate` in Debian's Chromium: two raters, by keyboard alone, to the end."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data import labels
from tests.browser import FLAGS, SHOTS, chromium
from tests.flows.rating.conftest import PAIRS
from tests.flows.rating.test_page_over_http import command, kept

pytestmark = pytest.mark.slow

WHERE = "document.getElementById('item').hidden ? 'end' : `${number} ${asked}`"
OPEN = "[...document.querySelectorAll('#answers button')].every(b => !b.disabled)"
ANSWERS = {"1": "left", "2": "right", "t": "tie", "b": "both_bad", "s": "skip"}


class Rater:
    """A rater at a window of his own, who presses keys; what counts in the end is noted."""

    def __init__(self, browser: Any, link: str, width: int, scheme: str) -> None:
        self.browser, self.link, self.look = browser, link, {"color_scheme": scheme}
        self.look["viewport"] = {"width": width, "height": 844 if width < 500 else 900}
        self.pressed: list[tuple[int, str, str]] = []
        self.faults: list[str] = []
        self.come()

    def come(self) -> None:
        self.context = self.browser.new_context(**self.look)
        self.page = self.context.new_page()
        self.page.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on(
            "request", lambda asked: self.faults.append(asked.url) if self.foreign(asked.url) else None
        )
        self.page.goto(self.link)
        self.until("number > 0 || Boolean(state.finished || state.closed)")  # the first answer is there

    def foreign(self, url: str) -> bool:
        return not url.startswith((self.link.rsplit("/r/", 1)[0], "data:"))

    def where(self) -> str:
        return str(self.page.evaluate(WHERE))

    def until(self, expression: str) -> None:
        """Playwright's own waiting needs an eval, which the page's policy forbids."""
        end = time.monotonic() + 60
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"never came true: {expression}"
            self.page.wait_for_timeout(50)

    def press(self, key: str) -> None:
        number, question = self.where().split()
        self.until(OPEN)
        self.page.keyboard.press(key)
        self.until(f"{WHERE} !== '{number} {question}'")
        if key == "u":
            self.pressed.pop()
        else:
            self.pressed.append((int(number), question, ANSWERS[key]))

    def to_the_end(self, keys: str) -> None:
        while self.where() != "end":
            self.press(keys[len(self.pressed) % len(keys)])

    def shot(self, name: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=folder / f"{name}.png")


def test_two_raters_by_keyboard_to_the_end(rated, serve, tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (group `dev`)")
    shots = Path(os.environ.get(SHOTS) or tmp_path / "shots")
    store = rated(5)
    page = serve(
        store, ["--clips", PAIRS, "--pairs", "5", "--rater", "ann", "--rater", "bob", "--repeats", "0.2"]
    )
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        ann = Rater(browser, page.links["ann"], 1280, "light")
        # Nobody votes before both clips were watched, but anybody may say that he cannot.
        ann.page.evaluate("pause(), seek(0), plays = 0, allow()")
        ann.page.keyboard.press("1")
        assert ann.where() == "1 prompt"
        assert ann.page.locator("#answers button:enabled").all_inner_texts() == ["Skip s"]
        ann.shot("1280-not-watched", shots)
        ann.page.keyboard.press("Space")
        ann.until(OPEN)
        # Both move together, and stop together.
        together = "Math.abs(videos[0].currentTime - videos[1].currentTime)"
        ann.page.keyboard.press("h")
        assert ann.page.evaluate("videos.map(v => v.playbackRate)") == [0.5, 0.5]
        ann.page.keyboard.press("ArrowRight")
        assert ann.page.evaluate(f"videos.every(v => v.paused) && {together} < 0.1")
        ann.shot("1280-watched", shots)
        ann.press("1")
        ann.press("u")
        assert ann.where() == "1 prompt"

        bob = Rater(browser, page.links["bob"], 390, "dark")
        for key in "2tb":
            bob.press(key)
        bob.shot("390-dark", shots)
        bob.context.close()
        ann.press("t")
        bob.come()
        assert bob.where() == "2 motion"
        bob.to_the_end("21")
        ann.to_the_end("12tbs")
        ann.shot("1280-end", shots)
        assert command("exclude", page.session, "bob", "--reason", "one key", "--store", store.root,
                       "--state", page.state).returncode == 0  # fmt: skip
        bob.page.reload()
        bob.page.wait_for_selector("text=This session is closed.")
        assert ann.faults + bob.faults == []
        assert bob.page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    page.end()
    sent = Counter((name, vote) for name, one in (("ann", ann), ("bob", bob)) for vote in one.pressed)
    assert len(ann.pressed) == len(bob.pressed) == 12
    assert kept(store, page) == sent
    assert {row.rater for row in labels.counted(store)} == {"ann"}
