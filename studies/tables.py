"""Figures as the tables of docs/study.md (`page.md.j2`) tell them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from data.records import Studied
from models.training.objectives import get_objective
from models.training.settings import settings_of
from studies.facts import Effect


def gain(effect: Effect | None, nothing: str = "no training data") -> str:
    """A difference in points with its interval; `nothing` where there is none."""
    if effect is None:
        return nothing
    lacking = f", {effect.absent} seeds without training data" if effect.absent else ""
    if effect.low is None or effect.high is None:
        return f"{100 * effect.value:+.1f}{lacking}"
    return f"{100 * effect.value:+.1f} ({100 * effect.low:+.1f} to {100 * effect.high:+.1f}){lacking}"


def groups(rows: Sequence[Studied], *names: str) -> list[tuple[tuple[Any, ...], list[Studied]]]:
    """Rows that are equal in these fields together, sorted by them."""
    found: dict[tuple[Any, ...], list[Studied]] = {}
    for row in rows:
        found.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    return sorted(found.items())


def champion(rows: Sequence[Studied]) -> str:
    """Mean success of the policies that the next round starts from, each the candidate or who was there."""
    levels = [row.after if row.promoted else row.before for row in rows]
    known = [level for level in levels if level is not None]
    return f"{sum(known) / len(known):.3f}" if len(known) == len(levels) else "none"


def symptoms(rows: Sequence[Studied]) -> list[str]:
    """Names of what the runs' numbers say, with how many of the seeds show it."""
    found = Counter(
        name
        for row in rows
        for name in dict.fromkeys(one["name"] for one in json.loads(row.diagnosis))
        if name
    )
    return [f"{name} ({count} of {len(rows)} seeds)" for name, count in found.items()]


def pairwise(rows: Sequence[Studied]) -> list[Studied]:
    """Rows of objectives that learn from pairs."""
    return [row for row in rows if get_objective(settings_of(row.objective)["objective"]).pairwise]


def span(rows: Sequence[Studied], name: str) -> str:
    """The least and the most of a field."""
    values = sorted(set(map(attrgetter(name), rows)))
    return " to ".join(map(str, dict.fromkeys([*values[:1], *values[-1:]])))


def motion(rows: Sequence[Studied]) -> str:
    """Motion after over before, mean over seeds."""
    found: list[dict[str, Any]] = [json.loads(row.guards).get("motion") or {} for row in rows]
    ratios = [
        one["after"] / one["before"] for one in found if one.get("before") and one.get("after") is not None
    ]
    return f"x{sum(ratios) / len(ratios):.2f}" if ratios else ""
