"""Before and after in markdown: pictures of the right clips, within the bytes that were promised."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from data.store import Store
from data.video import VideoSettings, encode_mp4
from flows.reporting.artifacts.sheets import COLUMNS, HEIGHT, groups_markdown, sheets_markdown
from flows.reporting.facts import ClipGroup, PairedClip, Seen
from flows.reporting.read import find_summary
from flows.reporting.sheet import GAP
from tasks.summary import RoundSummary


def summary_of(store: Store) -> RoundSummary:
    return find_summary(store, None)


def tokens(text: str) -> list[Token]:
    """Every inline token of the text; raw HTML is not among them."""
    blocks = MarkdownIt("commonmark", {"html": True}).parse(text)
    found = [child for block in blocks for child in block.children or []]
    assert not [token for token in (*blocks, *found) if token.type in ("html_block", "html_inline")]
    return found


def pictures(text: str) -> list[Any]:
    sources = [str(token.attrs["src"]) for token in tokens(text) if token.type == "image"]
    assert all(source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for source in sources)
    files = [base64.b64decode(source.partition(",")[2], validate=True) for source in sources]
    return [cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR) for file in files]


def test_every_kind_of_clip_is_shown_with_both_policies(reported: Store) -> None:
    text = sheets_markdown(reported, summary_of(reported), each=1)
    shown = pictures(text)
    assert len(shown) == 4  # fixed, broken, still failing, still right
    width = COLUMNS * HEIGHT + (COLUMNS - 1) * GAP
    assert {picture.shape for picture in shown} == {(2 * HEIGHT + GAP, width, 3)}
    # Of a fixed clip the upper row floats (first and last frame are alike), and in the lower the ball falls.
    for row, moves in ((0, False), (HEIGHT + GAP, True)):
        first = shown[0][row : row + HEIGHT, :HEIGHT].astype(int)
        last = shown[0][row : row + HEIGHT, -HEIGHT:].astype(int)
        assert (np.abs(first - last).max() > 60) == moves
    assert text.index("Fixed (1 of 2") < text.index("Broken (1 of 1")
    assert "fails before, succeeds after" in text


def test_a_hostile_prompt_stays_text(reported: Store, hostile: str) -> None:
    text = sheets_markdown(reported, summary_of(reported), each=12)
    said = "".join(token.content for token in tokens(text) if token.type in ("text", "text_special"))
    assert hostile in said
    assert len(pictures(text)) == text.count("\n**") > 8


@pytest.fixture(scope="module")
def noise() -> bytes:
    """A clip of 480x832 that no codec shrinks."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 480, 832, 3), dtype=np.uint8)
    return encode_mp4(pixels, 16, VideoSettings(crf=30))


@pytest.mark.parametrize(("limit", "shown"), [(300_000, 4), (60_000, 4), (10_000, 0)])
def test_the_bytes_are_bounded_whatever_the_clips_are(
    store: Store, noise: bytes, limit: int, shown: int
) -> None:
    path = store.write_media(noise, "mp4").path
    two = tuple(
        PairedClip(f"prompt {n} 動き", "a", n, Seen(f"b{n}", path, 0.0), Seen(f"a{n}", path, 1.0))
        for n in range(2)
    )
    groups = [ClipGroup(name, "", 2, two) for name in ("Fixed", "Broken")]
    text = groups_markdown(store, groups, limit=limit)
    assert len(text.encode()) <= limit
    assert len(pictures(text)) == shown
    assert text.count("larger than there is room for") == 4 - shown


def test_a_clip_that_cannot_be_read_is_said(
    store: Store, make_round: Callable[..., None], tmp_path: Path
) -> None:
    make_round(store)
    for file in (store.root / "media").rglob("*.mp4"):
        file.chmod(0o644)
        file.write_bytes(b"no video")
    text = sheets_markdown(store, summary_of(store), each=1)
    assert text.count("These clips cannot be shown") == 4
    assert pictures(text) == []


def test_without_a_candidate_a_sentence_stands_there(reported: Store) -> None:
    text = sheets_markdown(reported, summary_of(reported).changed(policy_after=None))
    assert text == "None of the held-out clips was measured under both policies.\n"
