"""The report in a real browser: videos play, nothing is requested, it fits a phone and obeys the keyboard.

Needs Debian's or Ubuntu's `chromium` package (or any Chromium with H.264 on the path).
"""

import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data.store import Store
from flows.reporting import build_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


class Tab:
    """A browser tab, driven by the DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: object) -> Any:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def ask(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not self.ask(expression):
            assert time.monotonic() < end, f"never came true: {expression}"
            time.sleep(0.1)


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def tab(request: pytest.FixtureRequest, reported: Store, tmp_path: Path) -> Iterator[Tab]:
    from websockets.sync.client import connect

    report = build_report(reported)
    process = subprocess.Popen(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path}", "about:blank"], stderr=subprocess.DEVNULL
    )
    try:
        chosen = tmp_path / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not (chosen.exists() and len(chosen.read_text().split()) == 2):
            assert time.monotonic() < end, "Chromium did not start"
            time.sleep(0.1)
        port, path = chosen.read_text().split()
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, open_timeout=60) as socket:
            target = Tab(socket).call("Target.createTarget", url="about:blank")["targetId"]
        with connect(
            f"ws://127.0.0.1:{port}/devtools/page/{target}", max_size=None, open_timeout=60
        ) as socket:
            tab = Tab(socket)
            for domain in ("Network", "Log", "Runtime", "Page"):
                tab.call(f"{domain}.enable")
            tab.call(
                "Emulation.setDeviceMetricsOverride",
                width=request.param, height=844, deviceScaleFactor=1, mobile=request.param < 500,
            )  # fmt: skip
            tab.call("Page.navigate", url=report.as_uri())
            tab.until("document.readyState === 'complete' && !!document.querySelector('video')")
            yield tab
    finally:
        process.terminate()
        process.wait(60)


def test_the_report_lives_in_a_browser(tab: Tab) -> None:
    # Both clips of the first pair play by themselves once they are on the screen, in step.
    tab.ask("document.querySelector('.mover').scrollIntoView({behavior: 'instant'})")
    tab.until(
        "[...document.querySelectorAll('.mover video')].slice(0, 2).every(v => v.readyState >= 3 && !v.paused)"
    )
    tab.until("document.querySelector('.mover video').currentTime > 0.3")
    tab.until("[...document.querySelectorAll('.mover video')].slice(0, 2).every(v => v.videoWidth === 256)")

    # Nothing that is off the screen plays.
    assert tab.ask("[...document.querySelectorAll('.mover video')].at(-1).paused")

    # The keyboard pauses and plays, and the slider moves both clips.
    tab.ask("document.querySelector('.mover button').focus()")
    for _ in range(2):
        before = tab.ask("document.querySelector('.mover video').paused")
        for kind in ("keyDown", "keyUp"):
            tab.call(
                "Input.dispatchKeyEvent", type=kind, key=" ", code="Space", text=" ", windowsVirtualKeyCode=32
            )
        tab.until(f"document.querySelector('.mover video').paused !== {json.dumps(before)}")
    tab.ask(
        "const s = document.querySelector('.mover input'); s.value = 0.5; s.dispatchEvent(new Event('input'))"
    )
    tab.until(
        "[...document.querySelectorAll('.mover video')].slice(0, 2)"
        ".every(v => v.paused && Math.abs(v.currentTime / v.duration - 0.5) < 0.02)"
    )

    # The page is no wider than the screen, requests nothing, and violates none of its own rules.
    assert tab.ask("document.documentElement.scrollWidth <= innerWidth")
    requested = [
        e["params"]["request"]["url"] for e in tab.events if e["method"] == "Network.requestWillBeSent"
    ]
    assert {url.split(":")[0] for url in requested} <= {"file", "data"}
    said = [e["params"]["entry"]["text"] for e in tab.events if e["method"] == "Log.entryAdded"]
    assert said == []
    assert not [e for e in tab.events if e["method"] == "Runtime.exceptionThrown"]
