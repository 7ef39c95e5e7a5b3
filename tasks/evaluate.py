"""Evaluate: the policy before and the candidate on the same prompts and seeds, then the gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final

from data.errors import ConfigError
from data.records import Clip, Evaluation, Score
from data.store import Store
from models.gate import budget
from models.gate.settings import DIVERSITY, GateSettings
from models.gate.verdict import compare, decide, diversity, pair_up
from tasks import baselines, cut_prompts, finetune, fingerprints, generate, score
from tasks.context import EvaluationPlan, PolicyRef, RoundContext, Sampled, open_store
from tasks.score import ScoreShard, check_failures
from tasks.stage_spec import Phase, StageSpec
from tasks.summary import Confirmation, Findings
from tasks.units import Inputs, OneAnswer, each_once

STAGE = "evaluate"
NO_TRAINING_DATA = "no training data"
# Diversity belongs to a prompt, not to a clip: its rows have this seed and no clip.
NO_SEED = 0


@dataclass(frozen=True)
class Side:
    """The clips of one policy on one set of prompts, with their scores."""

    policy_id: str
    split: str
    clips: Inputs
    scores: Inputs

    def beside(self, others: Iterable[Side]) -> Side:
        """This side with the clips that others have of its policy on its prompts before its own."""
        own = (self.policy_id, self.split)
        same = [*(one for one in others if (one.policy_id, one.split) == own), self]
        clips, scores = (one.clips for one in same), (one.scores for one in same)
        return Side(*own, Inputs.joined(clips), Inputs.joined(scores))


@dataclass(frozen=True)
class EvaluateUnit(OneAnswer):
    """The comparison: rows for both policies, and the gate's findings as the manifest's `info`."""

    root: str
    before: PolicyRef
    settings: EvaluationPlan
    gate: GateSettings
    after: PolicyRef | None
    sides: tuple[Side, ...]
    lacking: str = ""
    confidence: float | None = None
    label: str = "comparison and gate"
    task: ClassVar[str] = "evaluate-policy"

    @cached_property
    def question(self) -> dict[str, Any]:
        """What decides the verdict."""
        inputs = [[side.policy_id, side.split, side.clips.digest, side.scores.digest] for side in self.sides]
        return fingerprints.evaluate(
            self.before, self.after, self.settings, self.gate, inputs, self.confidence
        )

    @property
    def inputs(self) -> Mapping[str, Inputs]:
        found: dict[str, Inputs] = {}
        for side in self.sides:
            of = f"{side.policy_id} {side.split}"
            found |= {f"{of} clips": side.clips, f"{of} scores": side.scores}
        return found

    def run(self) -> None:
        """Collect the rows, compare, decide, commit."""
        store = open_store(self.root)
        rows: list[Evaluation] = []
        if self.after is None:
            found = nothing_learned(self.settings, self.lacking)
        else:
            rows = [row for side in self.sides for row in _rows(store, side, self.settings)]
            found = self._decide(store, rows, self.after)
        store.commit(STAGE, self.question, {"evaluations": rows, "inputs": self.listed()}, info=found)

    def _decide(self, store: Store, rows: Sequence[Evaluation], after: PolicyRef) -> dict[str, Any]:
        def side(policy: PolicyRef, split: str) -> list[Evaluation]:
            return [row for row in rows if row.split == split and row.policy_id == policy.policy_id]

        metric = self.settings.metric.name
        pairs = {
            (split, name): pair_up(side(self.before, split), side(after, split), name)
            for split, _ in self.settings.jobs
            for name in (metric, *self.settings.guards)
        }
        primary = self.settings.primary
        guards = [pairs[primary, name] for name in self.settings.guards]
        verdict = decide(pairs[primary, metric], guards, self.gate, self.settings.within, self.confidence)
        found = dataclasses.asdict(verdict)
        also = {
            split: dataclasses.asdict(compare(pairs[split, metric], self.gate))
            for split, _ in self.settings.jobs
            if split != primary
        }
        kept = {name: found[name] for name in ("promoted", "primary", "categories", "guards")}
        beside = self._beside(store, [row for row in rows if row.split == primary], after)
        return {**kept, "verdict": verdict.sentence, "also": also, **beside}

    def _beside(self, store: Store, rows: Sequence[Evaluation], after: PolicyRef) -> dict[str, Any]:
        """What is found of the baselines; nothing where the recipe names none."""
        by_policy: dict[str, list[Evaluation]] = {}
        for row in rows:
            by_policy.setdefault(row.policy_id, []).append(row)
        clips = {side.policy_id: side.clips for side in self.sides if side.split == self.settings.primary}
        found = {}
        for one in self.settings.baselines:
            own = baselines.sampled(one, after, self.settings)
            policies = (self.before.policy_id, after.policy_id, own)
            inputs = clips[own.policy_id]
            found[one.name] = baselines.found(
                store, one, by_policy, policies, inputs, self.settings, self.gate
            )
        return {"baselines": found} if found else {}


def nothing_learned(settings: EvaluationPlan, reason: str) -> dict[str, Any]:
    """Findings of a round that made no candidate: nothing was measured, the champion stays."""
    unmeasured = {"before": None, "after": None}
    beside = {one.name: baselines.unmeasured(one, settings, reason) for one in settings.baselines}
    empty = {"delta": None, "ci_low": None, "ci_high": None, "n": 0, "reason": reason}
    return {
        "promoted": False,
        "verdict": NO_TRAINING_DATA,
        "primary": {"metric": settings.metric.name, **unmeasured, **empty},
        "categories": {},
        "guards": {name: {**unmeasured, "ok": None, "reason": NO_TRAINING_DATA} for name in settings.guards},
        "also": {},
        **({"baselines": beside} if beside else {}),
    }


def phases(context: RoundContext) -> Iterator[Phase]:
    """Clips of both policies, their scores, the comparison; and of baselines, between them, the choice. Where
    the comparison says yes and is to be confirmed, the same once more with fresh clips beside its own.

    Raises:
        StageFailed: the finetune stage is missing, or a measure failed on more clips than the recipe allows.
    """
    store, level = context.store, context.gate.confirm
    learned = finetune.unit(context)
    Inputs.of(store, STAGE, learned.keys)
    candidate = finetune.candidate(context)
    gate = context.gate.changed(confirm=None)  # what the gate says does not depend on what follows
    if candidate is None:
        manifest = store.manifest(learned.key)
        assert manifest is not None
        lacking, root = manifest.info["no_training_data"], context.generation.root
        yield Phase([EvaluateUnit(root, context.policy, context.evaluate, gate, None, (), lacking)])
        return
    unit = yield from examination(context, candidate, context.evaluate, gate, more=level is not None)
    compared = store.manifest(unit.key)
    if level is not None and compared is not None and compared.info["promoted"]:
        plan = context.evaluate
        fresh = dataclasses.replace(plan, jobs=((plan.primary, plan.confirmation),), baselines=())
        again = examination(
            context,
            candidate,
            fresh,
            gate,
            seen=unit.sides,
            confidence=1 - 2 * level,
            label="confirmation with fresh clips",
        )
        yield from (dataclasses.replace(phase, answers=False) for phase in again)


def examination(
    context: RoundContext,
    after: PolicyRef,
    settings: EvaluationPlan,
    gate: GateSettings,
    *,
    seen: Sequence[Side] = (),
    confidence: float | None = None,
    more: bool = False,
    label: str = "comparison and gate",
) -> Generator[Phase, None, EvaluateUnit]:
    """Clips of the policy that the context starts from and of another, their scores, the comparison.

    Args:
        context: says how clips are made, and by which policy before.
        after: the other policy.
        settings: which clips, and what is measured.
        gate: what the comparison decides by.
        seen: clips of an earlier comparison, which count too.
        confidence: see `models.gate.verdict.decide`.
        more: whether the stage has more to do after the comparison.
        label: of the comparison.

    Returns:
        The comparison, once the phases are through.
    """
    store = context.store
    asked = [
        (split, f"{split} {when}", Sampled(policy, jobs))
        for policy, when in ((context.policy, "before"), (after, "after"))
        for split, jobs in settings.jobs
    ]
    asked += [
        (settings.primary, one.name, baselines.sampled(one, after, settings)) for one in settings.baselines
    ]
    how = context.generation
    made = [shard for _, what, one in asked for some in generate.candidates(how, one, what) for shard in some]
    yield Phase(each_once(made), more=True)
    yield from score.choose(context, [one for _, _, one in asked])
    scored = [
        (one.policy_id, split, score.of(store, how, one, settings.measures, what))
        for split, what, one in asked
    ]
    everything = each_once([shard for _, _, shards in scored for shard in shards])
    yield from score.in_turns(everything, more=True)
    check_failures(store, STAGE, everything, context.max_failed_share)
    sides = tuple(_side(store, *one).beside(seen) for one in scored)
    root = context.generation.root
    unit = EvaluateUnit(
        root, context.policy, settings, gate, after, sides, confidence=confidence, label=label
    )
    yield Phase([unit], more=more)
    return unit


def unit_of(context: RoundContext) -> EvaluateUnit:
    """The comparison alone. Raises StageFailed if something it needs is missing."""
    return next(comparisons(context))


def findings(context: RoundContext) -> Findings:
    """What the gate found in this round, and its confirmation. Raises ConfigError if one has not been run."""
    store, found = context.store, []
    for unit in comparisons(context):
        manifest = store.manifest(unit.key)
        if manifest is None:
            raise ConfigError(f"{store.url} holds no evaluation of this recipe: run `vidloop round`")
        found.append((unit.key, Findings.model_validate(manifest.info)))
    (_, gate), *second = found
    level = context.gate.confirm
    return gate if not second or level is None else _confirmed(gate, *second[0], level)


def comparisons(context: RoundContext) -> Iterator[EvaluateUnit]:
    """The comparison, and its confirmation. Raises StageFailed if something they need is missing."""
    for phase in phases(context):
        yield from (unit for unit in phase.units if isinstance(unit, EvaluateUnit))


def _confirmed(gate: Findings, key: str, again: Findings, level: float) -> Findings:
    """The gate's yes with what a second examination says of it."""
    told = f"with fresh clips beside the gate's, at a one-sided level of {level:.3g}: {words_of(again)}"
    verdict = (
        f"{gate.verdict} Confirmed {told}"
        if again.promoted
        else f"Not promoted: not confirmed {told} The gate had let it through: {words_of(gate)}"
    )
    return gate.changed(
        promoted=again.promoted,
        verdict=verdict,
        confirmation=Confirmation(
            level=level, confirmed=again.promoted, key=key, primary=again.primary, guards=again.guards
        ),
    )


def words_of(found: Findings) -> str:
    """The verdict's sentence without the "Promoted:" or "Not promoted:" that it begins with."""
    return found.verdict.partition(": ")[2]


def _side(store: Store, policy: str, split: str, shards: Sequence[ScoreShard]) -> Side:
    scores = Inputs.of(store, STAGE, [key for shard in shards for key in shard.keys])
    return Side(policy, split, score.clips_of(shards), scores)


def _rows(store: Store, side: Side, settings: EvaluationPlan) -> list[Evaluation]:
    """Every measure of every clip of one side, and the diversity of its prompts."""
    clips: dict[str, Clip] = {row.clip_id: row for key in side.clips.keys for row in store.read(key, "clips")}
    scores: list[Score] = [row for key in side.scores.keys for row in store.read(key, "scores")]
    metrics, stands_for = _metrics(settings), baselines.seeds(store, side.clips)
    rows = [
        Evaluation(
            policy_id=side.policy_id,
            prompt_id=clips[row.clip_id].prompt_id,
            category=clips[row.clip_id].category,
            split=side.split,
            seed=stands_for.get(row.clip_id, clips[row.clip_id].seed),
            metric=metric,
            value=row.value,
            status=row.status,
            error=row.error,
            clip_id=row.clip_id,
        )
        for row in scores
        for metric in metrics[row.reward, row.reward_version]
    ]
    return rows + _diversity(store, side, list(clips.values())) if DIVERSITY in settings.guards else rows


def _metrics(settings: EvaluationPlan) -> dict[tuple[str, str], list[str]]:
    """What the recipe calls each reward and each part of one, by kind and version."""
    found: dict[tuple[str, str], list[str]] = {}
    for reward in settings.measures:
        found.setdefault((reward.kind, reward.version), []).append(reward.name)
        for part in reward.parts:
            own = part.kind.removeprefix(reward.kind)
            found.setdefault((part.kind, part.version), []).append(f"{reward.name}{own}")
    return {asked: list(dict.fromkeys(names)) for asked, names in found.items()}


def _diversity(store: Store, side: Side, clips: Sequence[Clip]) -> list[Evaluation]:
    import numpy as np
    from safetensors.numpy import load

    files = {path: load(store.read_media(path))["latents"] for path in {clip.latent_path for clip in clips}}
    latents = np.stack([files[clip.latent_path][clip.latent_row] for clip in clips])
    category = {clip.prompt_id: clip.category for clip in clips}
    found = diversity(latents, [clip.prompt_id for clip in clips])
    return [
        Evaluation(
            policy_id=side.policy_id,
            prompt_id=prompt,
            category=category[prompt],
            split=side.split,
            seed=NO_SEED,
            metric=DIVERSITY,
            value=value,
            status="failed" if value is None else "ok",
            error="a single clip of this prompt: diversity needs two" if value is None else None,
            clip_id="",
        )
        for prompt, value in found.items()
    ]


def _warnings(context: RoundContext, fetch: bool) -> Iterator[str]:
    if context.untraced:
        yield (
            f"the store does not hold what {' and '.join(context.untraced)} was trained on, where the "
            "round's policy comes from: whether prompts that examine were among it is not known"
        )
    yield from cut_prompts.in_evaluation(context, fetch)
    plan, level = context.evaluate, context.gate.confirm
    examined = [*plan.jobs[0][1], *plan.confirmation]
    prompts = len({job.prompt.prompt_id for job in examined})
    if level is not None and (why := budget.few(prompts, level)):
        yield (
            f"a yes of the gate is confirmed at a one-sided level of {level:.2g}, on {prompts} prompts "
            f"({plan.primary}): {why}. Examine on more (docs/gate.md says what they find)"
        )


SPEC: Final = StageSpec(
    name=STAGE,
    flow="evaluate",
    version=fingerprints.VERSIONS[STAGE],
    title="before against after",
    does="Compare both policies on prompts that do not train, unless the recipe allows it. "
    "The champion stays as it is.",
    phases=phases,
    form=("evaluate.metric", "evaluate.same_as_feedback", "evaluate.prompts", "evaluate.clips"),
    prepare=score.prepare,
    rewards=lambda context: (*context.evaluate.measures, *context.evaluate.choosers),
    warnings=_warnings,
)
