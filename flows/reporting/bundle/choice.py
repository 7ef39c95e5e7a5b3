"""Which prompts a bundle shows: the best, the worst, the most changed, and some by lot. Nobody picks."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from data.keys import digest
from flows.reporting.facts import PairedClip

COLUMNS: Final = (
    "chosen_as", "prompt_id", "category", "prompt", "seed", "before", "after", "before_clip", "after_clip",
    "before_file", "after_file",
)  # fmt: skip
_STRANGE: Final = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class Shown:
    """A prompt that is shown, with all its clips.

    Attributes:
        why: "best", "worst", "most changed", "by lot"; one or several.
        clips: under both policies, in the order of their seeds.
    """

    why: tuple[str, ...]
    clips: tuple[PairedClip, ...]


def choose(clips: Sequence[PairedClip], count: int, seed: int) -> list[Shown]:
    """Up to `count` prompts for each reason, each prompt once, in the order of its first reason.

    By the metric's mean over a prompt's clips: "best" and "worst" of those after the round, "most changed" by
    how far they lie from those before. Among equals, and for those drawn by lot, the smallest hash of seed
    and prompt comes first.

    Args:
        clips: of the deciding set, all measured.
        count: prompts for each reason.
        seed: of the lot.
    """
    by_prompt: dict[str, list[PairedClip]] = {}
    for one in clips:
        by_prompt.setdefault(one.prompt_id, []).append(one)
    prompts = sorted(by_prompt, key=lambda prompt: digest([seed, prompt]))
    after, change = _means(by_prompt)
    orders: Mapping[str, Callable[[str], float]] = {
        "best": lambda prompt: -after[prompt],
        "worst": lambda prompt: after[prompt],
        "most changed": lambda prompt: -abs(change[prompt]),
        "by lot": lambda prompt: 0.0,
    }
    why: dict[str, list[str]] = {}
    for reason, order in orders.items():
        for prompt in sorted(prompts, key=order)[:count]:
            why.setdefault(prompt, []).append(reason)
    return [
        Shown(tuple(reasons), tuple(sorted(by_prompt[prompt], key=lambda one: one.seed)))
        for prompt, reasons in why.items()
    ]


def _means(by_prompt: Mapping[str, Sequence[PairedClip]]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean after, and mean change, by prompt."""
    after, change = {}, {}
    for prompt, clips in by_prompt.items():
        last = sum(one.after.value or 0.0 for one in clips) / len(clips)
        after[prompt] = last
        change[prompt] = last - sum(one.before.value or 0.0 for one in clips) / len(clips)
    return after, change


def videos(shown: Sequence[Shown]) -> dict[str, str]:
    """Path in the store of each video that is shown, by its path in the bundle."""
    return {
        name: path
        for number, one in enumerate(shown, start=1)
        for clip in one.clips
        for name, path in zip(_files(number, clip), (clip.before.path, clip.after.path), strict=True)
    }


def index(shown: Sequence[Shown]) -> str:
    """What is shown, as CSV: a line for each pair of clips."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for number, one in enumerate(shown, start=1):
        for clip in one.clips:
            told = (clip.prompt_id, clip.category, clip.prompt, clip.seed)
            sides = (clip.before.value, clip.after.value, clip.before.clip_id, clip.after.clip_id)
            table.writerow((", ".join(one.why), *told, *sides, *_files(number, clip)))
    return text.getvalue()


def _files(number: int, clip: PairedClip) -> tuple[str, str]:
    folder = f"clips/{number:02d}-{_STRANGE.sub('-', clip.prompt_id)}"
    return f"{folder}/{clip.seed}-before.mp4", f"{folder}/{clip.seed}-after.mp4"
