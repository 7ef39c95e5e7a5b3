"""Tables of a round by category: what the rewards gave, and what the training gained."""

from __future__ import annotations

from collections import defaultdict

from data.store import Store
from flows.reporting.campaign_table import change, ratio
from flows.reporting.facts import Facts
from flows.reporting.judges import QUESTION, scores_of
from flows.reporting.read import parents
from tasks.campaign_record import Series

Row = dict[str, str | int | float | None]
_DIGITS = 4


def rewards_by_category(store: Store, facts: Facts) -> list[Row]:
    """A row a category of the training clips, and one for all: their number, and each reward's mean.

    Returns:
        "category", "clips", then a column a reward, null where none of the clips has a value; "failed" counts
        judgements without a value; "accepted" and "pairs" are what curation made of the category.
    """
    key = facts.summary.key_of("curate")
    clips = [one for one in parents(store, store.manifest(key) if key else None) if one.part("clips")]
    category = {clip.clip_id: clip.category for one in clips for clip in store.read(one.key, "clips")}
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    failed: dict[str, int] = defaultdict(int)
    called = {(one.kind, one.version): one.reward for one in facts.rewards}
    for score in scores_of(store, clips):
        if score.reward.startswith(QUESTION) or score.clip_id not in category:
            continue
        reward = called.get((score.reward, score.reward_version), score.reward)
        for name in (category[score.clip_id], "all"):
            if score.value is None:
                failed[name] += 1
            else:
                values[name, reward].append(score.value)
    rewards = sorted({reward for _, reward in values})
    kept = {one.category: one for one in facts.curation.categories}
    rows: list[Row] = []
    for name in [*sorted(set(category.values())), "all"] if category else []:
        row: Row = {"category": name, "clips": sum(name in (one, "all") for one in category.values())}
        row |= {reward: _mean(values[name, reward]) for reward in rewards}
        row["failed"] = failed[name]
        if name in kept:
            row |= {"accepted": kept[name].accepted, "pairs": kept[name].pairs}
        rows.append(row)
    return rows


def gains_by_category(facts: Facts) -> list[Row]:
    """A row for all held-out clips, one a category, one for each other split; see `facts.Comparison`."""
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
    guards = list(dict.fromkeys(name for one in series.rounds for name in one.guards))
    return [
        {
            "round": one.number,
            "id": one.round,
            "before": _rounded(one.primary.before),
            "after": _rounded(one.primary.after),
            "gain": change(one),
            "promoted": "yes" if one.promoted else "no",
            **{name: ratio(one, name) for name in guards},
            "clips": one.clips,
            "minutes": round(one.seconds / 60, 1),
        }
        for one in series.rounds
    ]
