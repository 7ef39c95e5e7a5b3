"""What a report says of the judge: who judged, by which questions, and how far it is to be believed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from data.records import Score
from data.store import Manifest, Store
from flows.reporting import words
from flows.reporting.facts import Judge, RewardSpread
from tasks import calibrate
from tasks.summary import RewardSummary, RoundSummary

JUDGE: Final = "judge"
QUESTION: Final = "judge/"


def scores_of(store: Store, clips: Sequence[Manifest]) -> list[Score]:
    """Every judgement of the clips of these shards, by all rewards and questions, also those that failed."""
    shards = {manifest.key for manifest in clips}
    return [
        row
        for manifest in store.manifests("score")
        if not shards.isdisjoint(manifest.parents)
        for row in store.read(manifest.key, "scores")
    ]


def read_judges(store: Store, clips: Sequence[Manifest], summary: RoundSummary) -> tuple[Judge, ...]:
    """Every judge that the round's recipe names, in the order of their names.

    Args:
        store: where the scores are, and what was found in calibrations.
        clips: the round's shards of training clips.
        summary: of the round.
    """
    rows = scores_of(store, clips)
    asked = summary.recipe.get("rewards", {})
    return tuple(
        _judge(store, name, asked.get(name, {}), one, rows)
        for name, one in (summary.rewards or {}).items()
        if one.kind == JUDGE
    )


def _judge(
    store: Store, name: str, asked: Mapping[str, Any], named: RewardSummary, rows: Sequence[Score]
) -> Judge:
    parts = set(named.parts.items())
    yes: dict[tuple[str, str], list[float]] = defaultdict(list)
    errors: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        part = (row.reward, row.reward_version)
        if part in parts:
            errors[part] += [row.error] if row.error is not None else []
            yes[part] += [answer["p_yes"] for answer in json.loads(row.detail).get("answers", ())]
    return Judge(
        name=name,
        model=str(asked.get("model", "")),
        backend=str(asked.get("backend", "")),
        rubric=str(asked.get("rubric", "")),
        belief=_belief(store, named.version),
        questions=tuple(
            RewardSpread(
                reward=part[0].removeprefix(QUESTION),
                version=part[1],
                values=tuple(yes[part]),
                failed=len(errors[part]),
                first_error=errors[part][0] if errors[part] else None,
                feedback=False,
            )
            for part in sorted({*yes, *errors})
        ),
    )


def _belief(store: Store, version: str) -> str:
    """How often this version of the judge was right, by its calibration, in words."""
    known = calibrate.read(store, JUDGE, version)
    if known is None:
        return (
            f"Version {version[:12]} was not calibrated: nobody knows how often it is right. "
            "vidloop calibrate with the same recipe and store tells."
        )
    found, _ = known
    figures = found["overall"]
    still = " It passes frozen clips nearly as it passes moving ones." if found["still"] else ""
    return (
        f"Version {version[:12]} agrees with {found['labels']} on {words.percent(figures['accuracy'])} of "
        f"{figures['n']} clips (precision {words.percent(figures['precision'])}, recall "
        f"{words.percent(figures['recall'])}, AUC {words.number(figures['auc'])}) "
        f"from a value of {words.number(found['threshold'])} on.{still}"
    )
