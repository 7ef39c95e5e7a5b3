"""The summary of a round: what `summary.json` says. A contract with scripts: keys come, none goes.

`docs/reference/summary.schema.json` is its JSON schema, which `python -m tasks.summary FILE` writes. A value
that was not measured is null and carries a reason; it never becomes a number.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from rewards import RewardRef
from tasks.units import StageResult


def absent(description: str) -> Any:
    """A field that is not written where it is None, its default."""
    return Field(default=None, description=description, exclude_if=lambda value: value is None)


class Record(BaseModel):
    """Base of what is written as JSON and read back; unknown keys, of a later release, are passed over."""

    model_config = ConfigDict(frozen=True)

    def changed(self, **fields: Any) -> Self:
        """The same with some fields replaced."""
        return self.model_copy(update=fields)


class Change(Record):
    """A metric before and after: means over clips, and the paired difference."""

    metric: str = Field(description="Name of the reward that measured.")
    before: float | None = Field(description="Mean of the policy that the round began with.")
    after: float | None = Field(description="Mean of the candidate.")
    delta: float | None = Field(description="after - before, on the same prompts and seeds.")
    ci_low: float | None = Field(description="Lower end of delta's interval over prompts.")
    ci_high: float | None = Field(description="Upper end of delta's interval.")
    n: int = Field(description="Clips of each policy that were measured under both.")
    reason: str | None = absent("Why nothing was measured; absent where it was.")
    no_interval: str | None = absent("Why delta has no interval; absent where it has one.")


class Comparison(Change):
    """The same of a category, or of a set that does not decide."""

    prompts: int | None = absent("Prompts that the clips belong to.")
    excluded: int | None = absent("Clips whose measurement failed on either side.")


class GuardFinding(Record):
    """A measure that must not get worse while the metric rises."""

    before: float | None = Field(description="Mean of the policy that the round began with.")
    after: float | None = Field(description="Mean of the candidate.")
    ok: bool | None = Field(description="False: broken. Null: could not be measured.")
    low: float | None = absent("The lowest after / before that its limits allow.")
    high: float | None = absent("The highest; none: it may rise.")
    reason: str | None = absent("Why it is broken, or was not measured.")
    unseen: list[str] | None = absent("Categories of too few prompts for a verdict of their own.")


class Cost(Record):
    """What clips took, whether they were made in this round or found in the store."""

    kept: int = Field(description="Clips that were kept, and measured.")
    clips: int = Field(description="Clips that were sampled for them.")
    network_evaluations: int | None = Field(
        description="Passes of the video model: a clip's steps, twice where guidance is above 1."
    )
    judgements: int = Field(
        description="Scores by the reward that chooses; of a judge its answers, one a clip and question."
    )
    reason: str | None = absent("Why the passes are not known.")


class BaselineFinding(Record):
    """A best-of-N policy, measured on the same prompts; it decides nothing."""

    policy: str | None = Field(description="Its id; null: not measured.")
    sampled: str | None = Field(description="Id of the policy whose clips were chosen from.")
    best_of: int = Field(description="Clips to choose from.")
    by: str = Field(description="Name of the reward that chose.")
    primary: Comparison = Field(description="From the policy that the round began with to this one.")
    candidate: Comparison = Field(description="From this one to the candidate.")
    guards: dict[str, GuardFinding] = Field(description="After this one, against the policy before.")
    unjudged: int = Field(description="Kept clips for which no candidate was judged.")
    cost: Cost | None = Field(description="What it took; null: not measured.")


class StageSummary(Record):
    """A stage, as it ran this time."""

    key: str | None = Field(description="Of its last unit, or of the last list of them; null: not reached.")
    seconds: float = Field(description="It took.")
    shards: int = Field(description="Units of work.")
    cached_shards: int = Field(description="Units that were whole in the store.")
    failed: int = Field(description="Units that failed.")
    networks: dict[str, str] | None = absent(
        "How each network computed (class, device, precision, attention, compiled, step cache, offloaded), "
        "by what it is for; absent where none did, as in a stage that the store held whole."
    )

    @classmethod
    def of(cls, result: StageResult | None) -> StageSummary:
        """What came of a stage; None: it was not reached."""
        result = result or StageResult("", "")
        networks = result.networks or None
        told = {"key": result.key or None, "seconds": round(result.seconds, 3), "networks": networks}
        return cls.model_validate(asdict(result) | told)


class FailureSummary(Record):
    """Clips that a reward gave no value."""

    clips: int = Field(description="Clips that it was asked about.")
    failed: int = Field(description="Those without a value.")
    reasons: dict[str, int] = Field(description="The most frequent reasons, and of how many clips.")


class Approval(Record):
    """A person's word, where one was asked for."""

    asked: str | None = absent("When, in ISO 8601, while there is no answer.")
    answer: str | None = Field(description="yes, no, or none in time; null: not yet.")
    who: str | None = Field(description="As they call themselves.")
    reason: str | None = Field(description="In their words.")
    answered: str | None = Field(description="When, in ISO 8601.")


class Confirmation(Record):
    """A second examination of a candidate that the gate lets through: its clips and fresh ones together."""

    level: float = Field(description="One-sided level of the gain's lower end.")
    confirmed: bool = Field(description="Whether the gain and the guards held again.")
    key: str = Field(description="Of the comparison, whose rows are in `evaluations`.")
    primary: Change = Field(description="The metric that decides, on all of them; interval of the level.")
    guards: dict[str, GuardFinding] = Field(description="By name.")


class Findings(Record):
    """What the gate found: a part of the summary, and what the evaluation's manifest holds."""

    primary: Change = Field(description="The metric that decides, over all clips of evaluate.prompts.")
    categories: dict[str, Comparison] = Field(default={}, description="The same by category.")
    also: dict[str, Comparison] = Field(default={}, description="The same of sets that do not decide.")
    guards: dict[str, GuardFinding] = Field(description="By name.")
    baselines: dict[str, BaselineFinding] | None = absent("Best-of-N policies, where asked for.")
    verdict: str = Field(description="In a sentence.")
    promoted: bool = Field(description="Whether this round made its candidate champion.")
    confirmation: Confirmation | None = absent("Absent where the gate's word is the last, or was no.")


class RewardSummary(Record):
    """A reward that the recipe names: where its scores are."""

    kind: str = Field(description="Which reward it is: column reward of its scores.")
    version: str = Field(description="Column reward_version of its scores.")
    parts: dict[str, str] = Field(default={}, description="Versions of what it combines, by column reward.")

    @classmethod
    def of(cls, reward: RewardRef) -> RewardSummary:
        """A reward of the round, under the version that its scores have."""
        parts = {part.kind: part.version for part in reward.parts}
        return cls(kind=reward.kind, version=reward.version, parts=parts)


class RoundSummary(Record):
    """What `rounds/<round id>/summary.json` says of a round."""

    round: str = Field(description="Id: a time and a short digest; ids sort as rounds began.")
    recipe: dict[str, Any] = Field(description="Every setting, defaults written out.")
    recipe_name: str = Field(description="The recipe's name.")
    feedback: str = Field(description="Name of the reward that taught; oracle: physics.")
    rewards: dict[str, RewardSummary] | None = absent(
        "By the recipe's name for them; absent in rounds of an earlier release."
    )
    objective: str = Field(description="What was learned with.")
    policy_before: str = Field(description="Id of the policy that the round began with.")
    policy_after: str | None = Field(default=None, description="Id of the candidate; null: there is none.")
    untraced: list[str] | None = absent(
        "Of policy_before and those that it comes from, ids of which the store does not say what prompts "
        "trained them: whether the comparison's were among these is not known. Absent where there are none."
    )
    primary: Change = Field(description="The metric that decides, over all clips of evaluate.prompts.")
    categories: dict[str, Comparison] = Field(default={}, description="The same by category.")
    also: dict[str, Comparison] = Field(default={}, description="The same of sets that do not decide.")
    guards: dict[str, GuardFinding] = Field(description="By name.")
    baselines: dict[str, BaselineFinding] | None = absent("Best-of-N policies, where asked for.")
    stages: dict[str, StageSummary] = Field(description="By name, in their order.")
    failures: dict[str, FailureSummary] | None = absent(
        "Clips without a value, by the reward's name, of training and of the comparison. Absent: none."
    )
    verdict: str = Field(description="In a sentence.")
    promoted: bool = Field(description="Whether this round made its candidate champion.")
    confirmation: Confirmation | None = absent("Absent where the gate's word is the last, or was no.")
    approval: Approval | None = absent("Absent where nobody was asked.")

    @property
    def compared(self) -> dict[str, Comparison]:
        """Categories, then the sets that do not decide."""
        return {**self.categories, **self.also}

    @property
    def beside(self) -> dict[str, BaselineFinding]:
        """The baselines, by what chooses and by N."""

        def place(named: tuple[str, BaselineFinding]) -> tuple[str, int, str]:
            name, one = named
            return one.by, one.best_of, name

        return dict(sorted((self.baselines or {}).items(), key=place))

    @property
    def names(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """What the recipe calls its rewards, by kind and version."""
        names: dict[tuple[str, str], tuple[str, ...]] = {}
        for name, reward in (self.rewards or {}).items():
            where = (reward.kind, reward.version)
            names[where] = (*names.get(where, ()), name)
        return names

    def kind_of(self, name: str) -> str:
        """Which reward a name of the recipe stands for; a round of an earlier release names kinds."""
        return self.rewards[name].kind if self.rewards and name in self.rewards else name

    def key_of(self, stage: str) -> str | None:
        """Key of a stage's own answer; None if the round did not get there."""
        found = self.stages.get(stage)
        return found.key if found is not None else None


def schema() -> str:
    """The JSON schema of `summary.json`, as a file."""
    return json.dumps(RoundSummary.model_json_schema(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema(), encoding="utf-8")
