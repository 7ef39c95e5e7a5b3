"""Rounds in a row as lines of text: a row a round, what they add up to, why they stopped."""

from __future__ import annotations

from collections.abc import Sequence

from flows.reporting.words import duration
from tasks.campaign_record import Played, Series

_HEAD = ("round", "before", "after", "change (95% interval)", "promoted", "prompts", "clips", "time")
_NONE = "-"


def table(series: Series) -> list[str]:
    """The series, for a terminal or a log."""
    guards = list(dict.fromkeys(name for one in series.rounds for name in one.guards))
    rows = [(*_HEAD, *guards), *(_row(one, guards) for one in series.rounds)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
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


def warnings(series: Series) -> list[str]:
    """Guards that no round broke, but all of them together did."""
    gate = series.recipe["gate"]
    found = []
    for name, value in series.drift().items():
        worse = value > gate["max_ratio"] if name == "flicker" else value < gate["min_ratio"]
        if worse:
            found.append(
                f"Warning: over all rounds {name} went to {value:.2f} of what it was: more than the gate "
                "allows a single round"
            )
    return found


def _row(one: Played, guards: Sequence[str]) -> tuple[str, ...]:
    choice = one.choice
    return (
        str(one.number),
        _value(one.primary.before),
        _value(one.primary.after),
        change(one),
        "yes" if one.promoted else "no",
        f"{choice.chosen} of {choice.of}" if choice else "all",
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


def _value(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"
