"""Rounds in a row, from champion to champion, the same with and without Prefect.

champion --plan--> recipe of a round --play--> verdict --record--> champion, or not
    ^------------------------------------------------------------------|
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from data import champion
from data.curation import prompt_choice
from data.keys import digest
from data.policies import ancestry, policies
from data.resources import find
from data.store import Store
from flows.config.load import resolve
from flows.config.recipe import Recipe
from flows.config.resolve import open_reward, threshold_of
from flows.reporting import console
from flows.rounds.plain import plain_stage
from flows.rounds.reexamine import Work, when_due
from flows.rounds.run_round import begin
from models.gate import budget
from models.policy import base_id, former_id, policy_id
from tasks import campaign_record as record
from tasks.campaign_record import Choice, Planned, Played, Series, StoppedBy
from tasks.context import PolicyRef, RoundContext
from tasks.jobs import training_prompts
from tasks.policies import CANDIDATE, CHAMPION, find_policy
from tasks.round_ids import new_round_id
from tasks.summary import RoundSummary

Play = Callable[[RoundContext], RoundSummary]
REMEDY: Final = (
    "Go back with `vidloop champion rollback` or `set`; or accept the champion: begin a new series from it"
)


def improve(recipe: Recipe, store: Store, play: Play, work: Work = plain_stage) -> Series:
    """Play rounds until the recipe says stop. One that was interrupted goes on where it was.

    Args:
        recipe: `recipe.improve` says how many, on which data, until when; of `recipe.policy` only whether
            clips are the best of N: the first round starts from the champion, or from the base where there
            is none.
        store: keeps the record, and everything else.
        play: plays one round that has begun, with Prefect or without, and returns its summary.
        work: computes what a re-examination of the champion lacks, with Prefect or without.

    Raises:
        ConfigError: the recipe or the store is wrong, or another `improve` works in this store.
        StageFailed: a round did not finish. What was done is kept; the same call goes on from there.
    """
    say = console.info
    with store.lock("improve", wait=False):
        series = record.unfinished(store, resolve(recipe))
        if series is not None:
            say(f"Improve {series.improve} goes on after {len(series.rounds)} finished rounds")
            series = without_stale_plan(recipe, store, series)
        else:
            start = present(recipe, store).policy_id
            series = Series(new_round_id(store), resolve(recipe), start, start)
            say(f"Improve {series.improve}: at most {recipe.improve.rounds} rounds, from policy {start}")
        while True:
            if series.next is None:
                series = when_due(recipe, store, series, present(recipe, store), work)
            planned = series.next or plan(recipe, store, series)
            stopped = why_stop(recipe, series, planned)
            if stopped is not None:
                break
            series, context = begin_round(recipe, store, series, planned)
            say("")
            say(f"Round {planned.number} of at most {recipe.improve.rounds}{chosen(planned)}")
            series = end_round(recipe, store, series, context, play(context))
        series = when_due(recipe, store, series, present(recipe, store), work, ended=True)
        series = replace(series, stopped_by=stopped[0], reason=stopped[1], next=None)
        return record.save(store, series)


def begin_round(
    recipe: Recipe, store: Store, series: Series, planned: Planned
) -> tuple[Series, RoundContext]:
    """Begin the planned round, and write that down first. Raises as `flows.rounds.run_round.begin`."""
    context = begin(recipe_of(recipe, planned), store)
    planned = replace(planned, attempts=(*planned.attempts, context.run_id))
    return record.save(store, replace(series, next=planned)), context


def end_round(
    recipe: Recipe, store: Store, series: Series, context: RoundContext, summary: RoundSummary
) -> Series:
    """Add the round that was begun to those played, by its summary, and write that down."""
    assert series.next is not None
    rounds = (*series.rounds, _played(store, series.next, context, summary))
    now = present(recipe, store).policy_id
    return record.save(store, replace(series, rounds=rounds, champion=now, next=None, waiting=None))


def plan(recipe: Recipe, store: Store, series: Series, seed: int | None = None) -> Planned:
    """The round after those of `series`.

    Each round has a seed of its own: one that promoted nobody must not be played again as it was, and its
    next candidate is examined on clips that no gate has seen. The first has the recipe's, and so shares its
    work with `vidloop round`; unless a `seed` is given.
    """
    how, number = recipe.improve, len(series.rounds) + 1
    over = how.rounds if series.kind == "improve" else how.horizon
    confirm = budget.level(how.error, over, recipe.gate.confidence) or recipe.gate.confirm
    if seed is None:
        seed = recipe.seed if number == 1 else int(digest(["improve", recipe.seed, number])[:8], 16)
    policy = present(recipe, store)
    drift = replace(series, champion=policy.policy_id).drift()
    scale = how.later_lr if policy.policy_id != policy_id(policy.base_id) else 1.0
    earlier = tuple(one.round for one in series.rounds)
    match how.data:
        case "fresh":
            earlier = ()
        case "windowed":
            earlier = earlier[max(0, len(earlier) - (how.window - 1)) :]
    prompts = [prompt.prompt_id for prompt in training_prompts(recipe.generate)]
    if how.prompts_per_round is None or how.prompts_per_round >= len(prompts):
        return Planned(number, seed, policy.policy_id, None, None, earlier, (), confirm, drift, scale)
    reward = open_reward(recipe, recipe.teacher, store)
    line = lineage(store, policy)
    facts = prompt_choice.known(store, reward.kind, reward.version, threshold_of(recipe), line)
    chosen = prompt_choice.choose(prompts, facts, how.prompts_per_round, how.explore_fraction, seed)
    choice = Choice(len(chosen.prompts), len(prompts), chosen.teachable, chosen.unknown, chosen.for_teaching)
    only = chosen.prompts
    return Planned(number, seed, policy.policy_id, only, choice, earlier, (), confirm, drift, scale)


def recipe_of(recipe: Recipe, planned: Planned) -> Recipe:
    """The recipe of one round: `recipe`, with what the plan decided written out."""
    chosen = recipe.generate.prompt_ids if planned.only is None else tuple(planned.only)
    return recipe.starting(planned.policy).changed(
        seed=planned.seed,
        generate=recipe.generate.changed(prompt_ids=chosen),
        finetune=recipe.finetune.changed(lr=recipe.finetune.lr * planned.lr_scale),
        curate=recipe.curate.changed(include_rounds=(*recipe.curate.include_rounds, *planned.learns_from)),
        gate=recipe.gate.changed(confirm=planned.confirm, drift=planned.drift),
    )


def why_stop(recipe: Recipe, series: Series, planned: Planned) -> tuple[StoppedBy, str] | None:
    """What forbids the planned round, and the same in words; None if nothing does."""
    how = recipe.improve
    if series.blocked is not None:
        return "blocked", f"{series.blocked.reason} {REMEDY}"
    if len(series.rounds) >= how.rounds:
        return "rounds", f"all {how.rounds} rounds are played"
    if series.failures >= how.patience:
        return "patience", f"{series.failures} rounds in a row promoted nobody"
    clips = planned_clips(recipe, planned)
    if how.max_clips is not None and series.clips + clips > how.max_clips:
        return "clips", (
            f"{series.clips} clips are made, and {clips} more would pass improve.max_clips ({how.max_clips})"
        )
    if how.max_minutes is not None and series.minutes >= how.max_minutes:
        return "minutes", f"{series.minutes:.1f} minutes are spent of improve.max_minutes ({how.max_minutes})"
    return None


def planned_clips(recipe: Recipe, planned: Planned) -> int:
    """Training clips of the round, and evaluation clips of both policies; cached ones count too.

    So do all that the best of N is chosen from, those of a policy once however many baselines take them, and
    those on which a yes of the gate is confirmed.
    """
    prompts = len(training_prompts(recipe.generate)) if planned.only is None else len(planned.only)
    also = len(set(recipe.evaluate.also)) * recipe.evaluate.also_clips
    most: dict[str, int] = {}
    for one in recipe.evaluate.baselines:
        sampled = one.source or CHAMPION  # where these rounds start
        shared = sampled in (CHAMPION, CANDIDATE)  # their first clips are those of the comparison
        most[sampled] = max(most.get(sampled, 0), one.best_of - shared)
    kept = prompts * recipe.generate.clips_per_prompt
    training = kept * (recipe.best_of.best_of if recipe.best_of is not None else 1)
    again = recipe.evaluate.confirm_clips or recipe.evaluate.clips if planned.confirm is not None else 0
    return training + 2 * (recipe.evaluate.clips + also + again) + sum(most.values()) * recipe.evaluate.clips


def present(recipe: Recipe, store: Store) -> PolicyRef:
    """The champion, or the recipe's base model. Raises ConfigError if the champion is of another base."""
    path = str(find(recipe.model.path))
    return find_policy(store, CHAMPION, base_id(path, recipe.model.revision), partial(former_id, path))


def lineage(store: Store, policy: PolicyRef) -> list[str]:
    """Ids of `policy`, its parents, and so on to the base."""
    line = ancestry(policies(store), policy.policy_id)
    base = policy_id(policy.base_id)
    return line if base in line else [*line, base]


def without_stale_plan(recipe: Recipe, store: Store, series: Series) -> Series:
    """`series` without the plan of an interrupted round, if somebody else has moved the champion since."""
    if series.next is None:
        return series
    # Killed between the promotion and the record, the round itself has moved it: that is no stranger.
    now = champion.read(store)
    ours = now is not None and now.round_id in series.next.attempts
    same = present(recipe, store).policy_id == series.next.policy
    return series if same or ours else replace(series, next=None)


def _played(store: Store, planned: Planned, context: RoundContext, summary: RoundSummary) -> Played:
    from flows.reporting.compare import intervals

    evaluated = 2 * sum(len(jobs) for _, jobs in context.evaluate.jobs)
    evaluated += 2 * len(context.evaluate.confirmation) if summary.confirmation is not None else 0
    most: dict[str, int] = {}
    for one in (summary.baselines or {}).values():
        if one.cost is not None and one.sampled is not None:
            shared = one.cost.kept if one.sampled in (summary.policy_before, summary.policy_after) else 0
            most[one.sampled] = max(most.get(one.sampled, 0), one.cost.clips - shared)
    trained = len(context.jobs) * (context.best_of.n if context.best_of is not None else 1)
    return Played(
        number=planned.number,
        round=summary.round,
        seed=planned.seed,
        intervals=intervals(store, summary),
        learns_from=planned.learns_from,
        choice=planned.choice,
        clips=trained + (evaluated + sum(most.values()) if summary.policy_after else 0),
        seconds=sum(stage.seconds for stage in summary.stages.values()),
        policy_before=summary.policy_before,
        policy_after=summary.policy_after,
        promoted=summary.promoted,
        verdict=summary.verdict,
        primary=summary.primary,
        guards=summary.guards,
        confirmation=summary.confirmation,
    )


def chosen(planned: Planned) -> str:
    """How the round's prompts were chosen, to go on a sentence; empty where they were not."""
    if planned.choice is None:
        return ""
    one = planned.choice
    return (
        f": {one.chosen} of {one.of} prompts, {one.for_teaching} that pass sometimes "
        f"(of {one.teachable} known), {one.chosen - one.for_teaching} by lot"
    )


def finish(store: Store, series: Series) -> dict[str, Any]:
    """Say what came of the series, write its page, and return its record."""
    from flows.reporting.campaign import build_page, table

    say = console.info
    for line in table(series):
        say(line)
    say(f"Record: {store.where(record.record_of(series.improve))}")
    try:
        say(f"Page:   {build_page(store, series)}")
    except Exception as error:  # the rounds are done and kept: a page that fails is said, and no failure
        say(f"The page could not be written: {error}")
    return record.facts_of(series)
