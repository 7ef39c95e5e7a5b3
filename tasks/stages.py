"""The five stages in their order: how one is run, what of it is there, what a later one would miss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from data.errors import ConfigError, StageFailed, UserError
from rewards import require_ready
from tasks import curate, evaluate, finetune, generate, reference, score
from tasks.context import RewardRef, RoundContext
from tasks.units import Runner, StageResult, Unit

# A stage is a series of lists of units; a list may depend on the answers of the one before.
Phases = Callable[[RoundContext], Iterator[Sequence[Unit]]]

STAGES: Final[Mapping[str, Phases]] = {
    "generate": generate.phases,
    "score": score.phases,
    "curate": curate.phases,
    "finetune": finetune.phases,
    "evaluate": evaluate.phases,
}


@dataclass(frozen=True)
class Planned:
    """What a stage would do now.

    Attributes:
        units: every unit that can be named already, and whether the store holds it whole.
        more: later units depend on answers that are not there yet.
    """

    stage: str
    units: tuple[tuple[Unit, bool], ...]
    more: bool

    @property
    def whole(self) -> bool:
        """Whether nothing is left to be done."""
        return not self.more and all(whole for _, whole in self.units)


def run_stage(stage: str, context: RoundContext, runner: Runner) -> StageResult:
    """Have every answer of `stage` in the store.

    Returns:
        Shards, cached shards and seconds; the key is that of the last list of units, the stage's own answer.

    Raises:
        StageFailed: units failed after their retries, or an earlier stage is missing.
        ConfigError: something that was given is wrong, or the store cannot be written.
    """
    result = StageResult(stage, "")
    for units in STAGES[stage](context):
        scored = [unit for unit in units if isinstance(unit, score.ScoreShard)]
        score.release_unanswered(context.store, scored, context.max_failed_share)
        done = runner(context.store, stage, units)
        result = replace(result.plus(done), key=done.key)
    return result


def plan(context: RoundContext) -> list[Planned]:
    """What every stage would do now, without doing it."""
    planned: list[Planned] = []
    for stage in STAGES:
        if planned and not planned[-1].whole:
            planned.append(Planned(stage, (), True))
        else:
            planned.append(plan_stage(stage, context))
    return planned


def plan_stage(stage: str, context: RoundContext) -> Planned:
    """What one stage would do now; the stages before it are whole."""
    known: list[tuple[Unit, bool]] = []
    try:
        for units in STAGES[stage](context):
            known += [(unit, is_there(context, unit)) for unit in units]
            if not all(whole for _, whole in known):
                # Whether more lists follow is not known yet; evaluate has several, finetune's first may be
                # the errors of its reference, and a mixture may wait for the scores that give its bounds.
                waits = isinstance(units[0], score.ScoreShard) and score.mixes_later(context, units[0])
                more = stage == "evaluate" or units[0].task == reference.TASK or waits
                return Planned(stage, tuple(known), more)
    except StageFailed:
        return Planned(stage, tuple(known), True)
    return Planned(stage, tuple(known), False)


def require_whole(context: RoundContext, before: str) -> None:
    """Check that the stages before `before` are in the store, whole.

    Raises:
        ConfigError: names what is missing.
    """
    for stage in STAGES:
        if stage == before:
            return
        planned = plan_stage(stage, context)
        if not planned.whole:
            lacking = [unit.label for unit, whole in planned.units if not whole]
            what = (
                f"{len(lacking)} of {len(planned.units)} units, first: {lacking[0]}"
                if lacking
                else "all of it"
            )
            raise ConfigError(
                f"cannot start at {before}: the {stage} stage of this recipe is not whole in "
                f"{context.store.root} ({what}). Run `vidloop {stage}` with the same recipe, or the round "
                "without --from-stage"
            )


def require_rewards(context: RoundContext) -> None:
    """Check that the rewards of a round can be had on this machine, before its first clip is made.

    Raises:
        ConfigError: a reward lacks something, and scores that the round needs of it are not in the store.
    """
    for stage, rewards in (
        ("score", (*context.rewards, context.feedback)),
        ("evaluate", context.evaluate.measures),
    ):
        lacking = _lacking(rewards)
        if lacking is None:
            continue
        for planned in plan(context):
            if not planned.whole:
                raise lacking
            if planned.stage == stage:
                break


def _lacking(rewards: Sequence[RewardRef]) -> UserError | None:
    for reward in rewards:
        try:
            require_ready(reward.name, reward.settings)
        except UserError as error:
            return error
    return None


def is_there(context: RoundContext, unit: Unit) -> bool:
    """Whether the store holds every manifest of `unit`, whole. Nothing is changed."""
    return all(context.store.verify(key, "hash") is None for key in unit.keys)
