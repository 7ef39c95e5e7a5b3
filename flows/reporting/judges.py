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


def read_judge(store: Store, clips: Sequence[Manifest], recipe: Mapping[str, Any]) -> Judge | None:
    """The judge of these clips, or None if none judged them.

    Args:
        store: where the scores are, and what was found in calibrations.
        clips: the round's shards of training clips.
        recipe: the round's recipe.
    """
    yes: dict[tuple[str, str], list[float]] = defaultdict(list)
    errors: dict[tuple[str, str], list[str]] = defaultdict(list)
    scores = scores_of(store, clips)
    for row in scores:
        if row.reward.startswith(QUESTION):
            name = (row.reward.removeprefix(QUESTION), row.reward_version)
            if row.error is not None:
                errors[name].append(row.error)
            yes[name] += [answer["p_yes"] for answer in json.loads(row.detail).get("answers", ())]
    versions = {row.reward_version for row in scores if row.reward == JUDGE}
    if not versions:
        return None
    asked = recipe.get(JUDGE, {})
    return Judge(
        model=str(asked.get("model", "")),
        backend=str(asked.get("backend", "")),
        rubric=str(asked.get("rubric", "")),
        beliefs=tuple(_belief(store, version) for version in sorted(versions)),
        questions=tuple(
            RewardSpread(
                reward=name[0],
                version=name[1],
                values=tuple(yes[name]),
                failed=len(errors[name]),
                first_error=errors[name][0] if errors[name] else None,
                feedback=False,
            )
            for name in sorted({*yes, *errors})
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
