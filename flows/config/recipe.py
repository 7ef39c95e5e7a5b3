"""What a round is told: every setting with its meaning, default and bounds.

A recipe is a YAML file (`recipes/*.yaml`) that these models check strictly, before any work. Its parts are
the components' own settings. `flows.config.load` reads a recipe, `flows.config.resolve` opens it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Self

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from data.curation import ShapingSettings
from data.explain import nearest
from data.settings import Settings, setting
from flows.config.improve import ImproveSettings
from flows.config.rewards import (
    DEFAULT,
    ORACLE,
    Instance,
    folded,
    instance_model,
    kind_of,
    same_weights,
    taught_by,
)
from models.families import get_family
from models.families.settings import BaseModelSettings
from models.gate.settings import DIVERSITY, GateSettings
from models.policy import BASE
from models.training.settings import FinetuneSettings
from rewards import reward_kinds
from rewards.composite import CompositeSettings
from tasks.policies import CANDIDATE
from tasks.settings import (
    BestOfSettings,
    ClipsSettings,
    CurateStageSettings,
    EvaluateSettings,
    GenerateSettings,
    ScoreSettings,
)

# Kinds of rewards that any motion raises.
_MOVING: Final = ("flow", "motion")


def _policy(said: Any, _: ValidatorFunctionWrapHandler) -> str | BestOfSettings:
    """A name or best of N; a union's own errors would be of both."""
    if isinstance(said, str) and said:
        return said
    if not isinstance(said, Mapping | BestOfSettings):
        raise ValueError("expected base, champion, a policy id, or {best_of: N, by: REWARD, from: POLICY}")
    return BestOfSettings.model_validate(said)


class Recipe(Settings):
    """One way to run a round."""

    name: str = setting(..., "Name", "Shown in run names.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    seed: int = setting(0, "Seed", "All randomness of the round derives from it.", ge=0, lt=2**63)
    policy: Annotated[str | BestOfSettings, WrapValidator(_policy)] = setting(
        "base",
        "Policy",
        "Where the round starts: base, which it is where nothing is said, champion, or a policy id; or "
        "{best_of: N, by: REWARD, from: POLICY}: training clips are then the best of N, and what is trained, "
        "and compared, is the policy sampled.",
    )
    workers: int = setting(
        1,
        "Workers",
        "Shards computed at the same time; on a GPU they take turns and share the model.",
        cost_only=True,
        ge=1,
        le=64,
    )
    model: BaseModelSettings = setting(..., "Model", "The text-to-video model.")
    clips: ClipsSettings = setting(ClipsSettings(), "Clips", "Where training clips come from.")
    generate: GenerateSettings = setting(GenerateSettings(), "Generate", "Stage 1.")
    rewards: dict[str, Instance] = Field(
        default_factory=lambda: {name: instance_model(name)() for name in DEFAULT},
        min_length=1,
        title="Rewards",
        description="Names of your own, each with a kind of reward and its settings; or a list of kinds.",
    )
    score: ScoreSettings = setting(ScoreSettings(), "Score", "Stage 2.")
    feedback: str = setting(
        ORACLE, "Feedback", "Name of the reward that teaches; oracle: the physics reward.", min_length=1
    )
    shaping: ShapingSettings = setting(ShapingSettings(), "Shaping", "Raw reward to r' in [0, 1].")
    curate: CurateStageSettings = setting(CurateStageSettings(), "Curate", "Stage 3.")
    finetune: FinetuneSettings = setting(FinetuneSettings(), "Finetune", "Stage 4.")
    evaluate: EvaluateSettings = setting(EvaluateSettings(), "Evaluate", "Stage 5.")
    gate: GateSettings = setting(GateSettings(), "Gate", "Promotion.")
    improve: ImproveSettings = setting(ImproveSettings(), "Improve", "Rounds in a row, see docs/improve.md.")

    @model_validator(mode="before")
    @classmethod
    def _rewards_by_name(cls, said: Any) -> Any:
        return folded(said, cls.model_fields) if isinstance(said, Mapping) else said

    @property
    def teacher(self) -> str:
        """Name of the reward that teaches; the physics reward is called oracle where it does."""
        return taught_by(self.feedback)

    @property
    def scored(self) -> list[str]:
        """Names of the rewards that score the training clips."""
        return list(self.rewards if self.score.rewards is None else self.score.rewards)

    @property
    def best_of(self) -> BestOfSettings | None:
        """How training clips are chosen, where the round samples a best-of-N policy."""
        return self.policy if isinstance(self.policy, BestOfSettings) else None

    @property
    def start(self) -> str:
        """The policy that is sampled and trained, as the recipe calls it."""
        return self.policy if isinstance(self.policy, str) else self.policy.source or BASE

    def chooser(self, one: BestOfSettings) -> str:
        """Name of the reward that chooses the best of N."""
        return self.teacher if one.by is None else one.by

    def starting(self, policy: str) -> Self:
        """The same recipe, with its policy, or that which it takes the best of, named."""
        best_of = self.best_of
        return self.changed(policy=policy if best_of is None else best_of.changed(source=policy))

    def reward(self, name: str) -> Settings:
        """The reward of this name, or the kind of this name with its defaults.

        Raises:
            ConfigError: there is neither.
        """
        return self.rewards[name] if name in self.rewards else instance_model(name)()

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        for problem in itertools.chain(
            self._unknown(), self._mixtures(), self._examiner(), self._choosers(), self._networks()
        ):
            raise ValueError(problem)
        return self

    def _choices(self) -> Iterator[tuple[str, BestOfSettings]]:
        """Where the recipe says best of N."""
        if self.best_of is not None:
            yield "policy", self.best_of
        for place, one in enumerate(self.evaluate.baselines):
            yield f"evaluate.baselines.{place}", one

    def _unknown(self) -> Iterator[str]:
        """Names of rewards that there are not, or twice."""
        known = list(dict.fromkeys([*self.rewards, *reward_kinds()]))
        for key, names, others in (
            ("score.rewards", self.scored, ()),
            ("evaluate.metric", [self.evaluate.metric], ()),
            ("evaluate.guards", self.evaluate.guards, (DIVERSITY,)),
            ("evaluate.beside", self.evaluate.beside, ()),
            *((f"{key}.by", [self.chooser(one)], ()) for key, one in self._choices()),
        ):
            for name in names:
                if name not in (*known, *others):
                    yield f"{key}: there is no reward {name!r}; known: {', '.join(known)}"
            if len(set(names)) != len(names):
                yield f"{key} names one twice"
        for name in self.evaluate.beside:
            if name in (self.evaluate.metric, *self.evaluate.guards):
                yield f"evaluate.beside names {name!r}, which measures already: it is the metric or a guard"
        for name in self.gate.limits:
            if name not in self.evaluate.guards:
                close = nearest(name, self.evaluate.guards)
                yield f"gate.limits names {name!r}, which evaluate.guards does not list{close}"
        if self.teacher not in self.scored:
            teacher = f"the reward {self.teacher!r}, which `rewards` does not list"
            yield f"feedback {self.feedback!r} learns from {teacher}"

    def _mixture(self, name: str) -> CompositeSettings | None:
        found = self.reward(name) if name != DIVERSITY else None
        return found if isinstance(found, CompositeSettings) else None

    def _mixtures(self) -> Iterator[str]:
        """What a mixture of rewards cannot be made of, or be used for."""
        for name in self.scored:
            mixture = self._mixture(name)
            if mixture is not None and not mixture.components:
                yield f"rewards names {name}, but {name}.components names no reward to mix"
            for one in mixture.asked if mixture is not None else ():
                if one not in self.scored:
                    close = nearest(one, self.scored)
                    yield f"{name} needs the reward {one!r}, which `rewards` does not list{close}"
                if self._mixture(one) is not None:
                    yield f"{name}.components.{one}: a mixture mixes no mixture"
        examined = {"metric": [self.evaluate.metric], "guards": self.evaluate.guards}
        for key, names in {**examined, "beside": self.evaluate.beside}.items():
            for name in names:
                if self._mixture(name) is not None:
                    yield f"evaluate.{key} names {name!r}, a mixture of rewards, which only teaches"

    def _examiner(self) -> Iterator[str]:
        mixture = self._mixture(self.teacher)
        teachers = [self.teacher] if mixture is None else list(mixture.components)
        name, metric = self.evaluate.metric, self.reward(self.evaluate.metric)
        same = [
            one
            for one, taught in zip(teachers, map(self.reward, teachers), strict=True)
            if self._same(taught, metric)
        ]
        if same and not self.evaluate.same_as_feedback:
            is_it = "also what" if name in same else f"of the same weights as {same[0]!r}, which"
            yield (
                f"evaluate.metric {name!r} is {is_it} feedback {self.feedback!r} teaches: "
                "a policy is not judged by its own teacher. Choose another metric, or say "
                "evaluate.same_as_feedback: true on purpose"
            )
        if kind_of(metric) in _MOVING and not self.evaluate.flow_may_decide:
            yield (
                f"evaluate.metric {name!r} measures how much moves, right or wrong: a still picture that "
                "slides would be promoted. Choose a judge that does not teach (docs/judge.md), or say "
                "evaluate.flow_may_decide: true on purpose"
            )

    def _choosers(self) -> Iterator[str]:
        """Best of N by what examines, or by a mixture, or of a policy that is not there yet."""
        name, metric = self.evaluate.metric, self.reward(self.evaluate.metric)
        for key, one in self._choices():
            by = self.chooser(one)
            if self._mixture(by) is not None:
                yield f"{key}.by: {by!r} is a mixture of rewards, which only teaches: choose by one reward"
            if self._same(self.reward(by), metric) and not self.evaluate.same_as_feedback:
                yield (
                    f"{key} chooses by {by!r}, which is what evaluate.metric {name!r} examines by, or of its "
                    "weights: what is chosen by a measure looks good to it. Choose by another reward, or say "
                    "evaluate.same_as_feedback: true on purpose"
                )
        if self.best_of is not None and not self.clips.makes:
            yield "policy takes the best of several clips, but clips.imported has none made: leave out one"
        if self.start == CANDIDATE:
            yield f"policy.from: {CANDIDATE} is what the round trains: it is only a baseline's"
        if len(set(self.evaluate.baselines)) != len(self.evaluate.baselines):
            yield "evaluate.baselines names one twice"

    def _same(self, one: Settings, metric: Settings) -> bool:
        alike = kind_of(one) == kind_of(metric) and one.fingerprint() == metric.fingerprint()
        return alike or same_weights(one, metric)

    def _networks(self) -> Iterator[str]:
        """What is said of experts and of quantised weights, and does not fit the model."""
        family, expert = f"model.family {self.model.family!r}", self.finetune.expert
        has = get_family(self.model.family).experts
        if has and expert is None:
            yield f"{family} has two experts: say finetune.expert: {', '.join(has)} or both"
        if not has and expert is not None:
            yield f"finetune.expert is {expert!r}, but {family} has one network: leave it out"
        if not has and self.generate.guidance_2 is not None:
            yield f"generate.guidance_2 is set, but {family} has one network"
        if self.model.quantise != "none" and (self.model.compile or self.finetune.compile):
            yield (
                f"{self.model.quantise} weights cannot be compiled: set finetune.compile to false and "
                "model.compile to null"
            )
