"""A store of before/after pairs with videos that play, and the page's server in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from data.records import prompt_id
from data.store import Store
from data.video import encode_mp4

PAIRS = "SELECT a.clip_id, b.clip_id FROM clips a JOIN clips b USING (prompt_id) " \
    "WHERE a.policy_id = 'before' AND b.policy_id = 'after' ORDER BY 1"  # fmt: skip
FPS = 30.0  # nine frames are 0.3 s: nobody may vote sooner


@dataclass
class Page:
    """`vidloop rate` in a process of its own, and its links by rater."""

    store: Store
    state: Path
    process: subprocess.Popen[str]
    session: str
    address: str
    links: dict[str, str] = field(default_factory=dict)
    clients: list[httpx.Client] = field(default_factory=list)

    def client(self, rater: str) -> httpx.Client:
        """A browser at a rater's link."""
        self.clients.append(httpx.Client(base_url=self.links[rater], timeout=60))
        return self.clients[-1]

    def end(self, how: int = signal.SIGTERM) -> str:
        """End the server; what it said last."""
        self.process.send_signal(how)
        return self.process.communicate(timeout=120)[0]


def start(store: Store, state: Path, *words: str, links: dict[str, str] | None = None) -> Page:
    """Start the server and read where it is; `links`: of a session that is there already."""
    command = [
        sys.executable,
        "-m",
        "flows",
        "rate",
        "--store",
        str(store.root),
        "--state",
        str(state),
        *words,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ.copy())
    assert process.stdout is not None
    said, end = "", time.monotonic() + 180
    while "Ctrl-C" not in said:
        line = process.stdout.readline()
        assert line, said
        assert time.monotonic() < end, said
        said += line
    address = re.search(r"http://[^/;\s]+", said)
    session = re.search(r"Session (\w+)", said)
    assert address is not None, said
    assert session is not None, said
    found = dict(re.findall(r"^(\S+): (http://\S+/r/\S+/)$", said, re.MULTILINE))
    if links is not None:
        found = {name: re.sub(r"http://[^/]+", address[0], link) for name, link in links.items()}
    return Page(store, state, process, session[1], address[0], found)


@pytest.fixture
def rated(store: Store, make_clip: Callable[..., Any], frames: Any) -> Callable[..., Store]:
    """A store with so many pairs of clips of nine frames; each video is another."""

    def make(pairs: int, fps: float = FPS) -> Store:
        clips, media = [], []
        for n in range(pairs):
            for policy in ("before", "after"):
                picture = frames.copy()
                picture[:, :4, : 4 + n % 24] = (n * 7 % 256, 90 if policy == "after" else 200, n // 256)
                video = store.write_media(encode_mp4(picture, fps), "mp4")
                media.append(video)
                text = f"a red ball falls {n}"
                clips.append(
                    make_clip(
                        f"{policy}{n:04}", prompt=text, prompt_id=prompt_id(text), policy_id=policy, fps=fps,
                        video_path=video.path, video_sha256=video.sha256, split="heldout",
                    )
                )  # fmt: skip
        store.commit("generate", {"stage": "generate", "version": 1}, {"clips": clips}, media)
        return store

    return make


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Start the page of a store; it is ended with the test."""
    pages: list[Page] = []

    def begin(store: Store, words: Sequence[str], links: dict[str, str] | None = None) -> Page:
        pages.append(start(store, tmp_path / "ratings", "--port", "0", *words, links=links))
        return pages[-1]

    yield begin
    for page in pages:
        for client in page.clients:
            client.close()
        page.process.kill()
        page.process.communicate()
