"""What a report says of rewards and judges: what they gave, and how far they are to be believed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from data.records import Score
from data.store import Manifest, Store
from flows.config.rewards import taught_by
from flows.reporting import words
from flows.reporting.facts import Judge, RewardSpread
from rewards.judge.answers import is_unconcerned, value_of
from tasks import calibrate
from tasks.summary import RoundSummary

JUDGE: Final = "judge"
QUESTION: Final = "judge/"


def scores_of(store: Store, clips: Sequence[Manifest]) -> tuple[Score, ...]:
    """Every judgement of the clips of these shards, by all rewards and questions, also those that failed."""
    shards = {manifest.key for manifest in clips}
    return tuple(
        row
        for manifest in store.manifests("score")
        if not shards.isdisjoint(manifest.parents)
        for row in store.read(manifest.key, "scores")
    )


def read_rewards(scores: Iterable[Score], summary: RoundSummary) -> tuple[RewardSpread, ...]:
    """What each reward gave to the clips that were curated, also rewards that taught nothing.

    A reward of the round bears the recipe's name; one that another round asked, its kind. Questions of a
    judge are not here: it has a section of its own.
    """
    taught = taught_by(summary.feedback)
    spreads = [
        RewardSpread(called, version, values, errors, called == taught, kind)
        for (kind, version), (values, errors) in _by_reward(scores).items()
        if not kind.startswith(QUESTION)
        for called in summary.names.get((kind, version), (kind,))
    ]
    return tuple(sorted(spreads, key=lambda one: (not one.feedback, one.reward, one.version)))


def read_judges(store: Store, scores: Iterable[Score], summary: RoundSummary) -> tuple[Judge, ...]:
    """Every judge that the round's recipe names, in the order of their names.

    Args:
        store: holds what was found in calibrations.
        scores: of the training clips.
        summary: of the round.
    """
    answers = sorted(_by_part(scores).items())
    asked = summary.recipe.get("rewards", {})
    return tuple(
        Judge(
            name,
            asked.get(name, {}),
            _belief(store, one.version),
            tuple(spread for part, spread in answers if one.parts.get(part[0]) == part[1]),
        )
        for name, one in (summary.rewards or {}).items()
        if one.kind == JUDGE
    )


def _by_reward(scores: Iterable[Score]) -> dict[tuple[str, str], tuple[list[float], list[str]]]:
    """Values and errors by reward and version."""
    found: dict[tuple[str, str], tuple[list[float], list[str]]] = {}
    for row in scores:
        given, errors = found.setdefault((row.reward, row.reward_version), ([], []))
        given += _value(row)
        errors += [row.error or ""] if row.value is None else []
    return found


def _value(row: Score) -> list[float]:
    return [] if row.value is None else [row.value]


def _by_part(scores: Iterable[Score]) -> dict[tuple[str, str], RewardSpread]:
    """Answers to each question of a judge, and each law's values, by name and version."""
    rows: dict[tuple[str, str], list[tuple[Score, dict[str, Any]]]] = {}
    for row in scores:
        if row.reward.startswith(QUESTION):
            some = rows.setdefault((row.reward, row.reward_version), [])
            some.append((row, json.loads(row.detail)))
    return {
        (reward, version): RewardSpread(
            reward.removeprefix(QUESTION),
            version,
            [value for row, detail in some for value in _answers(row, detail)],
            [row.error or "" for row, detail in some if row.value is None and not is_unconcerned(detail)],
            unasked=sum(is_unconcerned(detail) for _, detail in some),
            scale=_scale([detail for _, detail in some]),
        )
        for (reward, version), some in rows.items()
    }


def _answers(row: Score, detail: Mapping[str, Any]) -> list[float]:
    """What was answered about a clip: a value a segment; of a law the one that its questions make."""
    return [value_of(answer) for answer in detail.get("answers", ())] or (
        _value(row) if "questions" in detail else []
    )


def _scale(details: Sequence[Mapping[str, Any]]) -> str:
    """What a part's values are, in words, by what its rows hold."""
    if any("concern" in detail for detail in details):
        return "mean over the law's questions"
    graded = any("grade" in answer for detail in details for answer in detail.get("answers", ()))
    return "grade, as a share of the scale" if graded else "P(yes)"


def _belief(store: Store, version: str) -> str:
    """How often this version of the judge was right, by its calibration, in words."""
    known = calibrate.read(store, JUDGE, version)
    if known is None:
        return (
            f"Version {version[:12]} was not calibrated: nobody knows how often it is right. "
            "vidloop calibrate with the same recipe and store tells."
        )
    found, _ = known
    figures = found.overall
    still = " It passes frozen clips nearly as it passes moving ones." if found.still else ""
    if why := calibrate.vague(found):
        still += f" That is too little to know it by: {why}."
    return (
        f"Version {version[:12]} agrees with {found.labels} on {words.percent(figures.accuracy)} of "
        f"{figures.n} clips (precision {words.percent(figures.precision)}, recall "
        f"{words.percent(figures.recall)}, AUC {words.number(figures.auc)}) "
        f"from a value of {words.number(found.threshold)} on.{still}"
    )
