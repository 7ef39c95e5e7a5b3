"""The champion against the policy that a series of rounds began with, on seeds that nobody has seen.

Each gate compares one round with the one before it, and many small steps may add up to something else than
their sum. Where the champion is surely worse than the start, or has broken a guard against it, nobody is
promoted any more until a person decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from data.keys import digest
from data.store import Store
from flows.config.recipe import Recipe
from flows.config.resolve import open_round
from flows.reporting import console
from flows.rounds import notify
from tasks import campaign_record as record
from tasks import evaluate
from tasks.campaign_record import Blocked, Reexamined, Series
from tasks.context import PolicyRef, RoundContext
from tasks.healing import healed
from tasks.jobs import evaluation_jobs
from tasks.round_ids import new_round_id
from tasks.stage_spec import Phase
from tasks.summary import Findings
from tasks.units import StageResult

Work = Callable[[str, RoundContext, Iterable[Phase]], StageResult]
"""Works through phases of a stage, with Prefect or without."""


def when_due(
    recipe: Recipe, store: Store, series: Series, champion: PolicyRef, work: Work, ended: bool = False
) -> Series:
    """The series with a re-examination of its champion, if it is time for one; else as it was.

    One that was interrupted is done the next time, from the store's cache.

    Args:
        recipe: of the series; `recipe.improve.reexamine_every` says when.
        store: keeps the series.
        series: its rounds so far.
        champion: the policy that is champion now.
        work: computes what is missing.
        ended: no round follows.

    Raises:
        StageFailed, UserError: see `flows.rounds.run_round.play_stage`.
    """
    every = recipe.improve.reexamine_every
    since = len(series.rounds) - (series.reexamined[-1].after if series.reexamined else 0)
    if every is None or since < (1 if ended else every) or champion.policy_id == series.start:
        return series
    console.info(f"The champion, {champion.policy_id}, against the start of the series, {series.start}")
    found = _examine(recipe, store, series, champion, work)
    blocked = None if found.holds else Blocked(champion.policy_id, found.verdict)
    series = replace(series, reexamined=(*series.reexamined, found), blocked=blocked)
    console.info(found.verdict)
    notify.tell(
        "re-examined",
        series=series.improve,
        recipe=recipe.name,
        verdict=found.verdict,
        holds=found.holds,
        primary=found.primary.model_dump(exclude={"reason"}),
    )
    return record.save(store, series)


def _examine(recipe: Recipe, store: Store, series: Series, champion: PolicyRef, work: Work) -> Reexamined:
    number = len(series.rounds)
    seed = int(digest(["reexamine", series.rounds[-1].seed, number])[:8], 16)
    context = open_round(recipe.starting(series.start).changed(seed=seed), store, new_round_id(store))
    plan = context.evaluate
    ((split, usual), *_) = plan.jobs
    prompts = list(dict.fromkeys(job.prompt for job in usual))
    jobs = evaluation_jobs(prompts, len(usual), seed, series.start, "reexamine")

    def phases() -> Iterator[Phase]:
        return evaluate.examination(
            context,
            champion,
            replace(plan, jobs=((split, jobs),), baselines=()),
            context.gate.changed(confirm=None, drift={}),
            label="champion against the start of the series",
        )

    key = healed(store, [phases], lambda: work(evaluate.STAGE, context, phases())).key
    manifest = store.manifest(key)
    assert manifest is not None  # it was computed just now
    found = Findings.model_validate(manifest.info)
    worse = _worse(found)
    opening = f"The champion does not hold against the start ({worse})" if worse else "The champion holds"
    return Reexamined(
        number,
        series.start,
        champion.policy_id,
        key,
        found.primary,
        found.guards,
        not worse,
        f"{opening}: {evaluate.words_of(found)}",
    )


def _worse(found: Findings) -> str:
    """What speaks against the champion, in words; empty if nothing surely does."""
    high = found.primary.ci_high
    lost = [f"{found.primary.metric} is surely lower"] if high is not None and high < 0 else []
    return "; ".join([*lost, *(f"{name} is broken" for name, one in found.guards.items() if one.ok is False)])
