"""The stages in their order: how one is run, what of it is there, what a later one would miss.

This table is the only list of stages. Flows, commands, run forms, progress and reports are made from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from data.errors import ConfigError, StageFailed, UserError
from rewards import reward_kind
from tasks import curate, encode, evaluate, finetune, generate, score
from tasks.context import RoundContext
from tasks.stage_spec import Phase, StageSpec
from tasks.units import Runner, StageResult, Unit, are_there
from tasks.whole import check_weights

STAGES: Final[Mapping[str, StageSpec]] = {
    spec.name: spec for spec in (generate.SPEC, score.SPEC, curate.SPEC, finetune.SPEC, evaluate.SPEC)
}
FIRST: Final = next(iter(STAGES))


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
        Shards, cached shards and seconds; the key is that of the stage's own answer.

    Raises:
        StageFailed: units failed after their retries, or an earlier stage is missing.
        UserError: something that was given is wrong, or the store cannot be written.
    """
    return run_phases(STAGES[stage], context, STAGES[stage].phases(context), runner)


def run_phases(
    spec: StageSpec, context: RoundContext, phases: Iterable[Phase], runner: Runner
) -> StageResult:
    """Have the answers of `phases`, of a stage or of part of one, in the store; see `run_stage`."""
    result = StageResult(spec.name, "")
    for phase in phases:
        spec.prepare(context, phase.units)
        done = runner(context.store, spec.name, phase.units)
        result = replace(result.plus(done), key=done.key if phase.answers else result.key)
    return result


def plan(context: RoundContext) -> list[Planned]:
    """What every stage would do now, without doing it."""
    planned: list[Planned] = []
    for stage in STAGES:
        open_before = planned and not planned[-1].whole
        planned.append(Planned(stage, (), True) if open_before else plan_stage(stage, context))
    return planned


def plan_stage(stage: str, context: RoundContext) -> Planned:
    """What one stage would do now; the stages before it are whole."""
    known: list[tuple[Unit, bool]] = []
    try:
        for phase in STAGES[stage].phases(context):
            known += zip(phase.units, are_there(context.store, phase.units), strict=True)
            if not all(whole for _, whole in known):
                return Planned(stage, tuple(known), phase.more)
    except StageFailed:
        return Planned(stage, tuple(known), True)
    return Planned(stage, tuple(known), False)


def require_whole(context: RoundContext, before: str) -> None:
    """Check that the stages before `before` are in the store, whole.

    Raises ConfigError: names what is missing.
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
                f"{context.store.url} ({what}). Run `vidloop {stage}` with the same recipe, or the round "
                "without --from-stage"
            )


def require_ready(context: RoundContext) -> None:
    """Check that this machine has what the stages need, before the first of them computes anything.

    Raises UserError: a stage lacks something, and it or a stage before it is not whole in the store; or clips
    from outside do not have the form that the model is trained at.
    """
    encode.check_form(context)
    for stage, spec in STAGES.items():
        try:
            for reward in spec.rewards(context):
                reward_kind(reward.kind).ready(reward.settings)
        except UserError:
            for planned in plan(context):
                if not planned.whole:
                    raise
                if planned.stage == stage:
                    break


def require_weights(context: RoundContext, first: str = FIRST) -> None:
    """Check the weights of the model, and of rewards, that are on this machine; see `tasks.whole`.

    Args:
        context: of the round.
        first: rewards that only stages before this one ask are left out.

    Raises:
        ModelError: weights are missing, not whole, or another network's.
    """
    later = list(STAGES.values())[list(STAGES).index(first) :]
    check_weights(context.generation.model, [reward for spec in later for reward in spec.rewards(context)])
