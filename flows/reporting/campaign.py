"""Rounds in a row: lines for a terminal, and one self-contained HTML page, with guards and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from data.store import Store
from flows.reporting.page import template
from flows.reporting.words import duration
from tasks.campaign_record import FOLDER, Played, Series

_HEAD: Final = ("round", "before", "after", "change (95% interval)", "promoted", "prompts", "clips", "time")
_NONE: Final = "-"
_HOW: Final = {
    "fresh": "its own clips only",
    "aggregated": "its own clips and those of all rounds before",
    "windowed": "its own clips and those of the rounds just before",
}


def build_page(store: Store, series: Series) -> Path:
    """Write the page beside the record, and return its path. Raises StoreError if it cannot be written."""
    page = template(
        "series.html.j2",
        series=series,
        guards=guards_of(series),
        measured=[one for one in series.rounds if one.primary.before is not None],
        warnings=warnings(series),
        change=change,
        ratio=ratio,
        how=_HOW[series.recipe["improve"]["data"]],
    )
    return store.write_file(f"{FOLDER}/{series.improve}/report.html", page.encode("utf-8"))


def table(series: Series) -> list[str]:
    """The series, for a terminal or a log: a row a round, what they add up to, why they stopped."""
    guards = guards_of(series)
    rows = [(*_HEAD, *guards), *(_row(one, guards) for one in series.rounds)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    metric = series.rounds[0].primary.metric if series.rounds else "nothing"
    name = "Nights" if series.kind == "nightly" else "Improve"
    title = f"{name} {series.improve}: {metric}, {len(series.rounds)} rounds; guards as after / before"
    lines = ["", title]
    if series.rounds:
        lines += ["    " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    promoted = sum(one.promoted for one in series.rounds)
    champion = series.champion if series.champion != series.start else f"still {series.champion}"
    if series.reason is not None:
        lines.append(f"Stopped: {series.reason}")
    lines.append(f"{promoted} of {len(series.rounds)} rounds promoted their candidate. Champion: {champion}")
    drift = series.drift()
    if promoted > 1 and drift:
        told = ", ".join(f"{name} {value:.2f}" for name, value in drift.items())
        lines.append(f"Guards over all promoted rounds, after / before: {told}")
    return [*lines, *warnings(series)]


def guards_of(series: Series) -> list[str]:
    """Names of the guards that any round had."""
    return list(dict.fromkeys(name for one in series.rounds for name in one.guards))


def warnings(series: Series) -> list[str]:
    """Guards that no round broke, but all of them together did."""
    gate = series.recipe["gate"]
    return [
        f"Warning: over all rounds {name} went to {value:.2f} of what it was: more than the gate allows a "
        "single round"
        for name, value in series.drift().items()
        if (value > gate["max_ratio"] if name == "flicker" else value < gate["min_ratio"])
    ]


def _row(one: Played, guards: Sequence[str]) -> tuple[str, ...]:
    levels = (one.primary.before, one.primary.after)
    return (
        str(one.number),
        *(_NONE if value is None else f"{value:.3f}" for value in levels),
        change(one),
        "yes" if one.promoted else "no",
        f"{one.choice.chosen} of {one.choice.of}" if one.choice else "all",
        str(one.clips),
        duration(one.seconds),
        *(ratio(one, name) for name in guards),
    )


def change(one: Played) -> str:
    """The gain with its interval; what is not known is "-"."""
    delta, low, high = one.primary.delta, one.primary.ci_low, one.primary.ci_high
    if delta is None:
        return _NONE
    return f"{delta:+.3f}" + ("" if low is None or high is None else f" ({low:+.3f} to {high:+.3f})")


def ratio(one: Played, guard: str) -> str:
    """after / before of a guard; "!" where it is broken."""
    found = one.guards.get(guard)
    if found is None or not found.before or found.after is None:
        return _NONE
    return f"{found.after / found.before:.2f}{'!' if found.ok is False else ''}"
