"""Beside the metric: every reward that was measured under both policies, and how often the candidate wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from data.records import Evaluation, Score
from data.store import Store
from flows.config.rewards import taught_by
from flows.reporting.compare import manifest_of, parents
from flows.reporting.facts import Duel, Measure
from flows.reporting.judges import scores_of
from models.gate.settings import GateSettings
from models.gate.verdict import compare, pair_up
from models.gate.wins import wins
from tasks.summary import RoundSummary

BEFORE: Final = "the policy before"


def read_measures(store: Store, summary: RoundSummary, *, all_rewards: bool = True) -> tuple[Measure, ...]:
    """The metric first, then rewards that decide nothing, then the guards, on the set that decides.

    Args:
        store: holds the rows.
        summary: of the round.
        all_rewards: with those that the store happens to have scores of, which takes longer to look up.

    Raises:
        StoreError: rows, or units that they were computed from, are missing or were changed.
    """
    rows = _rows(store, summary)
    if all_rewards:
        rows += _others(store, summary, rows)
    metric, gate = summary.primary.metric, GateSettings(confidence=confidence(summary))
    teachers = frozenset(_teachers(summary))
    before, after = _of(rows, summary.policy_before), _of(rows, summary.policy_after)
    names = {row.metric for row in rows}
    order = sorted(names, key=lambda name: (name != metric, name in summary.guards, name))
    return tuple(
        Measure(
            name,
            taught=name.partition("/")[0] in teachers,  # a judge's question is its judge's
            part="decides" if name == metric else "guard" if name in summary.guards else "beside",
            found=compare(pair_up(before, after, name), gate),
        )
        for name in order
    )


def read_duels(store: Store, summary: RoundSummary) -> tuple[Duel, ...]:
    """How often the candidate's clip is better by the metric: than the policy before's, and each baseline's.

    Raises as `read_measures`.
    """
    rows, metric = _rows(store, summary), summary.primary.metric
    after = _of(rows, summary.policy_after)
    if not after:
        return ()
    opponents = {BEFORE: summary.policy_before} | {name: one.policy for name, one in summary.beside.items()}
    return tuple(
        Duel(name, wins(pair_up(_of(rows, policy), after, metric), confidence(summary)))
        for name, policy in opponents.items()
    )


def confidence(summary: RoundSummary) -> float:
    """Of the round's intervals."""
    said = summary.recipe.get("gate", {})
    return float(said.get("confidence", GateSettings().confidence))


def _rows(store: Store, summary: RoundSummary) -> list[Evaluation]:
    """The evaluation of the set that decides."""
    compared = manifest_of(store, summary, "evaluate")
    if compared is None or not summary.policy_after:
        return []
    return [row for row in store.read(compared.key, "evaluations") if row.split not in summary.also]


def _of(rows: Sequence[Evaluation], policy: str | None) -> list[Evaluation]:
    return [row for row in rows if row.policy_id == policy]


def _others(store: Store, summary: RoundSummary, rows: Sequence[Evaluation]) -> list[Evaluation]:
    """Rows of the round's other rewards, where the store has scores of both policies' clips by them."""
    measured = {row.metric for row in rows}
    names = {where: set(called) - measured for where, called in summary.names.items()}
    clips = [one for one in parents(store, manifest_of(store, summary, "evaluate")) if one.part("clips")]
    scores: dict[tuple[str, str], Score] = {
        (name, score.clip_id): score
        for score in scores_of(store, clips)
        for name in names.get((score.reward, score.reward_version), ())
    }
    return [
        replace(row, metric=name, value=found.value, status=found.status, error=found.error)
        for row in rows
        if row.metric == summary.primary.metric
        for name in {name for name, _ in scores}
        if (found := scores.get((name, row.clip_id))) is not None
    ]


def _teachers(summary: RoundSummary) -> Iterator[str]:
    """Names of what taught: the feedback, what it mixes, what chose the best of N to learn from, and what is
    the same reward or the same model.
    """
    asked: Mapping[str, Any] = summary.recipe.get("rewards", {})
    teacher = taught_by(summary.feedback)
    taught = {teacher, *(asked.get(teacher, {}).get("components") or ())}
    policy = summary.recipe.get("policy")
    if isinstance(policy, dict):
        taught.add(policy.get("by") or teacher)
    yield from taught
    named = summary.rewards or {}
    versions = {(named[name].kind, named[name].version) for name in taught if name in named}
    models = {model for name in taught if (model := _model(asked.get(name, {})))}
    for name, one in named.items():
        if (one.kind, one.version) in versions or _model(asked.get(name, {})) in models:
            yield name


def _model(said: Mapping[str, Any]) -> tuple[str, str] | None:
    """Kind and weights of a reward that has some."""
    model = said.get("model")
    return (str(said.get("kind")), str(model)) if model else None
