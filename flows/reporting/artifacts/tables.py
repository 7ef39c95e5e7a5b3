"""Tables of a round by category: what the rewards gave, and what the training gained."""

from __future__ import annotations

from collections import Counter, defaultdict

from flows.reporting.campaign import change, guards_of, promoted, ratio
from flows.reporting.facts import Facts
from tasks.campaign_record import Series

Row = dict[str, str | int | float | None]
_DIGITS = 4


def rewards_by_category(facts: Facts) -> list[Row]:
    """A row a category of the training clips, and one for all: their number, and each reward's mean.

    Returns:
        "category", "clips", then a column a reward, null where none of the clips has a value; "failed" counts
        judgements without a value; "accepted" and "pairs" are what curation made of the category.
    """
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    called = {(one.kind, one.version): one.reward for one in facts.rewards}
    failed, clips = Counter[str](), Counter(facts.training.values())
    for score in facts.scores:
        reward = called.get((score.reward, score.reward_version))
        if reward is None or score.clip_id not in facts.training:
            continue
        for name in (facts.training[score.clip_id], "all"):
            if score.value is None:
                failed[name] += 1
            else:
                values[name, reward].append(score.value)
    rewards = sorted({reward for _, reward in values})
    kept = facts.curation.get("categories", {})
    return [
        {
            "category": name,
            "clips": count,
            **{reward: _mean(values[name, reward]) for reward in rewards},
            "failed": failed[name],
            **{what: kept[name][what] for what in ("accepted", "pairs") if name in kept},
        }
        for name, count in [*sorted(clips.items()), ("all", clips.total())]
        if count
    ]


def gains_by_category(facts: Facts) -> list[Row]:
    """A row for the set that decides, one a category, one for each other set; see `facts.Comparison`."""
    return [
        {
            "category": one.label,
            "before": _rounded(one.before.value),
            "after": _rounded(one.after.value),
            "gain": _rounded(one.delta),
            "low": _rounded(one.low),
            "high": _rounded(one.high),
            "prompts": one.after.prompts,
            "clips": one.after.clips,
            "failed": one.before.failed + one.after.failed,
        }
        for one in facts.comparisons
    ]


def _mean(values: list[float]) -> float | None:
    return _rounded(sum(values) / len(values)) if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def rounds_in_a_row(series: Series) -> list[Row]:
    """A row a round: what it gained, each guard as after / before, and what it cost."""
    guards = guards_of(series)
    return [
        {
            "round": one.number,
            "id": one.round,
            "before": _rounded(one.primary.before),
            "after": _rounded(one.primary.after),
            "gain": change(one),
            "promoted": promoted(one),
            **{name: ratio(one, name) for name in guards},
            "clips": one.clips,
            "minutes": round(one.seconds / 60, 1),
        }
        for one in series.rounds
    ]
