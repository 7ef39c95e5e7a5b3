"""Which clips a report shows, and how they are packed into it.

Nobody picks: clips are grouped by how their metric changed, and of each group the ones with the smallest hash
are shown, one a category first. So the same round always shows the same clips, failures among them.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from data.errors import StoreError, VideoError
from data.keys import digest
from data.store import Store
from flows.reporting import words
from flows.reporting.facts import ClipGroup, PairedClip, Seen

if TYPE_CHECKING:
    from data.video import Frames

SHOWN = 6
"""Clips shown of each group: one for each category of the physics world, and one to fill the row."""
FEW = 3
RIGHT = "Still right"
"""Clips that were and stay right teach a reader least: `FEW` of them are shown."""
MEDIA_BYTES = 12_000_000
"""All embedded media together, as base64: the report stays under 15 MB."""
SIDE = 256
"""Small clips are enlarged to about this many pixels a side, large ones are reduced to it."""
STRIP_FRAMES = 6
MEDIA_NOTE = "H.264 High, yuv420p, re-encoded and resized"
HOW_CHOSEN = (
    "Of each kind, those with the smallest hash of their two clip ids are shown, one from each category "
    "first: nobody picked them."
)


@dataclass(frozen=True)
class Side:
    """One of the two clips of a card: base64 of an mp4 and of a PNG strip, or why there is none."""

    name: str
    outcome: str
    tone: str
    note: str
    video: str = ""
    strip: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def group_clips(clips: Sequence[PairedClip]) -> tuple[ClipGroup, ...]:
    """Clips by how their metric changed: fixed, broken, ... where all are 0 or 1, else higher, lower."""
    values = {value for one in clips for value in (one.before.value, one.after.value)}
    if values <= {0.0, 1.0}:
        wanted = [
            ("Fixed", "Failed before, succeed after.", 0.0, 1.0),
            ("Broken", "Succeeded before, fail after: what the round cost.", 1.0, 0.0),
            ("Still failing", "Fail before and after: what is left to learn.", 0.0, 0.0),
            (RIGHT, "Succeed before and after.", 1.0, 1.0),
        ]
        parts = [
            (name, meaning, [m for m in clips if (m.before.value, m.after.value) == (before, after)])
            for name, meaning, before, after in wanted
        ]
    else:
        parts = [
            ("Higher", "The metric rose.", [m for m in clips if _change(m) > 0]),
            ("Lower", "The metric fell: what the round cost.", [m for m in clips if _change(m) < 0]),
        ]
    return tuple(
        ClipGroup(name, meaning, len(held), choose(held, FEW if name == RIGHT else SHOWN))
        for name, meaning, held in parts
        if held
    )


def choose(clips: Sequence[PairedClip], count: int = SHOWN) -> tuple[PairedClip, ...]:
    """At most `count` clips by smallest hash, taking each category's first before any category's second."""
    by_category: dict[str, list[PairedClip]] = {}
    for one in sorted(clips, key=lambda m: digest([m.before.clip_id, m.after.clip_id])):
        by_category.setdefault(one.category, []).append(one)
    rounds = max((len(held) for held in by_category.values()), default=0)
    in_turn = [held[i] for i in range(rounds) for _, held in sorted(by_category.items()) if i < len(held)]
    return tuple(in_turn[:count])


def _change(pair: PairedClip) -> float:
    before, after = pair.before.value, pair.after.value
    return 0.0 if before is None or after is None else after - before


def pack(
    store: Store, groups: Sequence[ClipGroup], budget: int = MEDIA_BYTES
) -> dict[PairedClip, list[Side]]:
    """Read, re-encode and embed the chosen clips, first of each group first, until `budget` bytes are used.

    A clip that cannot be read is shown as such: a report of a damaged store must still open.

    Returns:
        Both sides of each pair for which there was room.
    """
    packed = {}
    left = budget
    for turn in zip_longest(*(group.shown for group in groups)):
        for pair in filter(None, turn):
            if left > 0:
                sides = [_side(store, "Before", pair.before), _side(store, "After", pair.after)]
                left -= sum(len(side.video) + len(side.strip) for side in sides)
                if left >= 0:
                    packed[pair] = sides
    return packed


def _side(store: Store, name: str, seen: Seen) -> Side:
    from data.video import decode_mp4, web_copy
    from flows.reporting.sheet import sheet

    named = {1.0: ("succeeds", "good"), 0.0: ("fails", "bad")}
    told = named[seen.value] if seen.value in named else (words.number(seen.value), "muted")
    try:
        frames, fps = decode_mp4(store.read_media(seen.path))
    except (VideoError, StoreError) as error:
        return Side(name, *told, seen.note, problem=str(error))
    fitted = _fit(frames)
    factor = max(1, SIDE // max(fitted.shape[1:3]))
    return Side(
        name,
        *told,
        seen.note,
        video=base64.b64encode(web_copy(fitted, fps, factor)).decode("ascii"),
        strip=base64.b64encode(sheet([frames], STRIP_FRAMES, height=64)).decode("ascii"),
        width=fitted.shape[2] * factor,
        height=fitted.shape[1] * factor,
    )


def _fit(frames: Frames) -> Frames:
    """Frames reduced to at most `SIDE` pixels on their longer side; small ones as they are."""
    import cv2
    import numpy as np

    height, width = frames.shape[1:3]
    scale = SIDE / max(height, width)
    if scale >= 1:
        return frames
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]).astype(
        np.uint8
    )
