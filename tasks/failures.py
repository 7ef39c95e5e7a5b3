"""Clips without a value: how many of a round's, by which reward, and for what reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

from data.errors import StageFailed
from data.records import Score
from data.store import Damaged
from tasks import evaluate, lookups, score
from tasks.context import RoundContext
from tasks.summary import FailureSummary

# Reasons that are told; the others are counted together.
_REASONS: Final = 3
_OTHERS: Final = "other reasons"
_LONGEST: Final = 160


def failures(context: RoundContext, stage: str | None = None) -> dict[str, FailureSummary]:
    """The clips of a round that a reward gave no value, by the reward's name; only rewards with such clips.

    What is not in the store yet is passed over, and so is a unit whose manifest is damaged.

    Args:
        context: of the round.
        stage: "score": of the training clips; "evaluate": of the comparison's; None: of both.

    Raises:
        Damaged: the reasons cannot be read.
    """
    names = {(one.kind, one.version): name for name, one in score.named(context).items()}
    clips: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {}
    keys = list(dict.fromkeys(_keys(context, stage)))
    for key, unit in zip(keys, lookups.known(context.store, keys), strict=True):
        name = names.get(unit.reward) if unit is not None and unit.reward is not None else None
        if unit is None or name is None:  # not there; or a part of a reward
            continue
        clips[name] += unit.info["clips"]
        if unit.info["failed"]:
            rows: list[Score] = context.store.read(key, "scores")
            found = reasons.setdefault(name, Counter())
            found.update(" ".join(row.error.split())[:_LONGEST] for row in rows if row.error)
    return {
        name: FailureSummary(clips=clips[name], failed=found.total(), reasons=_most(found))
        for name, found in sorted(reasons.items())
    }


def failure_lines(found: Mapping[str, FailureSummary]) -> Iterator[str]:
    """A line for each reward, with the command that asks again."""
    for name, one in found.items():
        why = "; ".join(f"{reason} ({count})" for reason, count in one.reasons.items())
        yield (
            f"{one.failed} of {one.clips} clips have no value by {name}: {why}. Where you disbelieve it: "
            f"`vidloop score --again {name} --failed`, with the same recipe and store, asks again"
        )


def _keys(context: RoundContext, stage: str | None) -> Iterator[str]:
    with suppress(StageFailed, Damaged):
        if stage != evaluate.STAGE:
            yield from (key for unit in score.units(context) for key in unit.keys)
    with suppress(StageFailed, Damaged):
        if stage != score.STAGE:
            for unit in evaluate.comparisons(context):
                yield from (key for side in unit.sides for key in side.scores.keys)


def _most(reasons: Counter[str]) -> dict[str, int]:
    most = dict(reasons.most_common(_REASONS))
    left = reasons.total() - sum(most.values())
    return most | ({_OTHERS: left} if left else {})
