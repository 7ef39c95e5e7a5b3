"""Rounds in a row: lines for a terminal, and one self-contained HTML page, with guards and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from data.store import Store
from flows.reporting.page import template
from flows.reporting.words import duration
from models.gate.drift import beyond
from models.gate.settings import GateSettings
from models.gate.verdict import ONE_SIDED
from tasks.campaign_record import FOLDER, Played, Reexamined, Series

_HEAD: Final = ("round", "before", "after", "change (95% interval)", "promoted", "prompts", "clips", "time")
_NONE: Final = "-"
_HOW: Final = {
    "fresh": "its own clips only",
    "aggregated": "its own clips and those of all rounds before",
    "windowed": "its own clips and those of the rounds just before",
}


def build_page(store: Store, series: Series) -> Path:
    """Write the page beside the record; its path on this machine. Raises StoreError: it cannot be written."""
    page = template(
        "series.html.j2",
        series=series,
        guards=guards_of(series),
        measured=[one for one in series.rounds if one.primary.before is not None],
        warnings=warnings(series),
        change=change,
        promoted=promoted,
        budget=budget(series),
        ratio=ratio,
        how=_HOW[series.recipe["improve"]["data"]],
    )
    path = f"{FOLDER}/{series.improve}/report.html"
    store.write_file(path, page.encode("utf-8"))
    return store.local(path)


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
    crowned = sum(one.promoted for one in series.rounds)
    champion = series.champion if series.champion != series.start else f"still {series.champion}"
    if series.reason is not None:
        lines.append(f"Stopped: {series.reason}")
    lines.append(f"{crowned} of {len(series.rounds)} rounds promoted their candidate. Champion: {champion}")
    drift = series.drift()
    if crowned > 1 and drift:
        told = ", ".join(f"{name} {value:.2f}" for name, value in drift.items())
        lines.append(f"Guards over all promoted rounds, after / before: {told}")
    return [
        *lines,
        *budget(series),
        *(f"After round {one.after}: {one.verdict}" for one in series.reexamined),
        *warnings(series),
    ]


def budget(series: Series) -> list[str]:
    """What the series may err, and how much of it is spent; nothing where it states none."""
    if series.error is None or series.spent is None:
        return []
    rounds = "nights" if series.kind == "nightly" else "rounds"
    return [
        f"Error budget: {100 * series.spent:.3g}% of {100 * series.error:.3g}% chance of any false promotion "
        f"spent, {series.examined} of {series.horizon} {rounds}"
    ]


def promoted(one: Played) -> str:
    """Whether a round promoted its candidate, in a word or two."""
    refused = one.confirmation is not None and not one.confirmation.confirmed
    return "yes" if one.promoted else "not confirmed" if refused else "no"


def guards_of(series: Series) -> list[str]:
    """Names of the guards that any round had."""
    return list(dict.fromkeys(name for one in series.rounds for name in one.guards))


def warnings(series: Series) -> list[str]:
    """Guards that all promotions together took beyond the limit of drift, and what blocks the series."""
    # A round of an earlier release does not say its limits.
    limits = {
        name: ONE_SIDED if one.low is None else (one.low, one.high)
        for played in series.rounds
        for name, one in played.guards.items()
    }
    settings = GateSettings.model_validate(series.recipe["gate"])
    found = [
        f"Warning: over all promoted rounds {name} went to {value:.2f} of what it was, beyond the limit of "
        "drift: nobody is promoted who leaves it there"
        for name, value in series.drift().items()
        if beyond(value, limits[name], settings)
    ]
    if series.blocked is not None:
        found.append(f"Blocked: {series.blocked.reason} Nobody is promoted until a person decides")
    return found


def _row(one: Played, guards: Sequence[str]) -> tuple[str, ...]:
    levels = (one.primary.before, one.primary.after)
    return (
        str(one.number),
        *(_NONE if value is None else f"{value:.3f}" for value in levels),
        change(one),
        promoted(one),
        f"{one.choice.chosen} of {one.choice.of}" if one.choice else "all",
        str(one.clips),
        duration(one.seconds),
        *(ratio(one, name) for name in guards),
    )


def change(one: Played | Reexamined) -> str:
    """The gain with its interval; what is not known is "-"."""
    delta, low, high = one.primary.delta, one.primary.ci_low, one.primary.ci_high
    if delta is None:
        return _NONE
    return f"{delta:+.3f}" + ("" if low is None or high is None else f" ({low:+.3f} to {high:+.3f})")


def ratio(one: Played | Reexamined, guard: str) -> str:
    """after / before of a guard; "!" where it is broken."""
    found = one.guards.get(guard)
    if found is None or not found.before or found.after is None:
        return _NONE
    return f"{found.after / found.before:.2f}{'!' if found.ok is False else ''}"
