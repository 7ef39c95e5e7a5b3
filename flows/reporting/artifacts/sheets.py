"""Clips before and after as contact sheets in markdown, bounded in bytes: Prefect's database keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from data.errors import StoreError, VideoError
from data.store import Store
from flows.reporting.compare import compared_clips, evaluated
from flows.reporting.facts import ClipGroup, PairedClip
from flows.reporting.markdown import image, plain
from flows.reporting.paired_clips import group_clips
from flows.reporting.sheet import sheet
from flows.reporting.words import examined
from tasks.summary import RoundSummary

LIMIT: Final = 300_000
"""Bytes of the whole text, pictures included; eight sheets of the miniature take half of it."""
EACH: Final = 2
"""Clips shown of each kind, from different categories where there are several."""
COLUMNS: Final = 6
HEIGHT: Final = 80
"""Frames of a row, and the pixels each is high: those of the miniature enlarged a little, others reduced."""
_TEXT: Final = 600
"""Bytes kept free for the words of one clip."""
_QUALITIES: Final = (90, 75, 50, 30)


def sheets_markdown(store: Store, summary: RoundSummary, each: int = EACH, limit: int = LIMIT) -> str:
    """Clips of both policies, side by side: some of those that the round fixed, broke, and left as they were.

    Nobody picks the clips: see `flows.reporting.paired_clips`. Of two rows the upper is before, the lower
    after. A sheet is a PNG or a JPEG, whichever is smaller; one that would take more than its share of
    `limit` is compressed further, and what does not even fit so is left out and said so. A clip that cannot
    be read is said too.

    Args:
        store: holds the evaluation and its clips.
        summary: of a round, which need not have written it yet.
        each: clips of each kind at most, at least 1.
        limit: bytes of the returned text in UTF-8, at most.

    Returns:
        Markdown with data URIs; a sentence where no clip was measured under both policies.

    Raises:
        StoreError: rows of the evaluation are missing or were changed.
    """
    groups = group_clips(compared_clips(evaluated(store, summary), summary))
    if not groups:
        return f"None of the {examined(summary)} was measured under both policies.\n"
    return groups_markdown(store, groups, each, limit)


def groups_markdown(store: Store, groups: Sequence[ClipGroup], each: int = EACH, limit: int = LIMIT) -> str:
    """`sheets_markdown` of clips that are grouped already."""
    shown = sum(len(group.shown[:each]) for group in groups)
    lines = [
        f"{COLUMNS} frames of a clip, from its first to its last; upper row: before, lower row: after. "
        "Clips were drawn by hash, not picked.",
        "",
    ]
    heads = [_head(group, len(group.shown[:each])) for group in groups]
    left = limit - _size([*lines, *heads]) - 4 * len(heads)
    for group, head in zip(groups, heads, strict=True):
        lines += [head, ""]
        for pair in group.shown[:each]:
            told = _caption(pair)
            # An equal share of what is left, so that early clips do not eat the later ones' room.
            picture = _picture(store, pair, left // shown - _TEXT)
            if _size([told, picture]) + 4 > left:
                told, picture = "", ""
            added = [told, "", picture, ""] if told else []
            lines += added
            left, shown = left - _size(added), shown - 1
    return "\n".join(lines)


def _head(group: ClipGroup, shown: int) -> str:
    some = f"{shown} of {group.total} shown" if shown < group.total else f"{group.total}"
    return f"#### {group.name} ({some})\n\n{group.meaning}"


def _caption(pair: PairedClip) -> str:
    text = pair.prompt if len(pair.prompt) <= 160 else pair.prompt[:159] + "…"
    return f"**{plain(text)}** ({plain(pair.category)}): {_outcome(pair)}"


def _outcome(pair: PairedClip) -> str:
    values = pair.before.value, pair.after.value
    if set(values) <= {0.0, 1.0}:
        before, after = ("succeeds" if value else "fails" for value in values)
        return f"{before} before and after" if before == after else f"{before} before, {after} after"
    return f"{values[0]:.3g} before, {values[1]:.3g} after"


def _picture(store: Store, pair: PairedClip, room: int) -> str:
    """The sheet as markdown of at most `room` bytes, or words in its place."""
    from data.video import decode_mp4

    try:
        clips = [decode_mp4(store.read_media(seen.path))[0] for seen in (pair.before, pair.after)]
    except (VideoError, StoreError) as error:
        return f"*These clips cannot be shown: {plain(str(error))[:300]}*"
    png = sheet(clips, COLUMNS, HEIGHT)
    said = f"before and after: {pair.prompt[:100]}"
    # Drawn clips are smaller as PNG, generated ones, never quite still, five times larger.
    best, *worse = (_jpeg(png, quality) for quality in _QUALITIES)
    for file in (min(png, best, key=len), *worse):
        found = image(file, said)
        if len(found.encode()) <= room:
            return found
    return "*This sheet would be larger than there is room for; the report shows the clips.*"


def _jpeg(png: bytes, quality: int) -> bytes:
    import cv2
    import numpy as np

    # Colours at full resolution: flat shapes on a flat ground would get coloured seams.
    how = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None  # it was written just now
    done, file = cv2.imencode(".jpg", pixels, how)
    if not done:
        raise ValueError(f"OpenCV could not write a JPEG of {pixels.shape[1]}x{pixels.shape[0]} pixels")
    return bytes(file)


def _size(lines: Sequence[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)
