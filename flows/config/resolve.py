"""Opening a round: recipe to RoundContext, once. What can be found wrong before any work is found here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from data.curation import CurateSettings
from data.errors import ConfigError, StoreError
from data.policies import taught
from data.prompts import load_prompts, prompt_sets, same_text
from data.resources import find
from data.store import Store
from flows.config.load import check, load_recipe, resolve
from flows.config.recipe import Recipe
from flows.config.rewards import kind_of
from models.families.check_fit import check_fit
from models.families.settings import ModelSettings, SampleSettings
from models.gate.settings import DIVERSITY, DIVERSITY_WITHIN, Limits
from models.policy import BASE, base_id, former_id
from models.training.objectives import get_objective
from models.training.settings import TrainSettings
from rewards import NetworkSettings, reward_kind, reward_ref
from rewards.composite import is_mixture
from tasks import spread
from tasks.context import (
    Baseline,
    BestOf,
    ClipJob,
    EvaluationPlan,
    Generation,
    PolicyRef,
    RewardRef,
    RoundContext,
    Sampled,
)
from tasks.finetune import check_start
from tasks.imports import find_set, shown_prompts
from tasks.jobs import evaluation_jobs, training_jobs, training_prompts
from tasks.policies import CANDIDATE, find_policy
from tasks.rounds import RECIPE, SUMMARY, read_summary
from tasks.settings import BestOfSettings

# Shared prompts that an error names.
_EXAMPLES: Final = 3


def open_round(recipe: Recipe, store: Store, run_id: str) -> RoundContext:
    """Everything the stages need, checked.

    Args:
        recipe: a recipe that `flows.config.load.load_recipe` accepted.
        store: the store of the round.
        run_id: names the run's facts in the store.

    Raises:
        ConfigError: prompts, model, policy or a reward's weights are missing or wrong, or `finetune` asks for
            another adapter than the policy has, or a prompt both trains and examines.
    """
    model = model_of(recipe)
    base = base_id(model.path, model.revision)
    sample = recipe.generate.as_part(SampleSettings)
    check_fit(model, sample)
    find_one = functools.partial(
        find_policy, store, base=base, former=functools.partial(former_id, model.path)
    )
    policy = find_one(recipe.start)
    before = taught(store, policy.policy_id) if policy.adapter_path else {}
    reward = functools.cache(functools.partial(open_reward, recipe, store=store))  # each once
    rounds = {name: _frozen(store, name) for name in dict.fromkeys(recipe.curate.include_rounds)}
    sets = dict.fromkeys(one for said in (recipe, *rounds.values()) for one in said.clips.imported)
    context = RoundContext(
        run_id=run_id,
        name=recipe.name,
        seed=recipe.seed,
        workers=recipe.workers,
        recipe=resolve(recipe),
        generation=Generation(
            root=store.url,
            model=model,
            sample=sample,
            video=recipe.generate.video,
            fps=recipe.generate.fps,
            batch_size=recipe.generate.batch_size,
        ),
        policy=policy,
        jobs=_jobs(recipe),
        # A mixture last: it combines what the others said.
        rewards=tuple(sorted(map(reward, recipe.scored), key=is_mixture)),
        feedback=reward(recipe.teacher),
        max_failed_share=recipe.score.max_failed_share,
        curate=curation_of(recipe),
        finetune=finetune_settings(recipe),
        evaluate=_evaluation(recipe, policy, reward, find_one),
        gate=recipe.gate,
        earlier=tuple(_earlier(recipe, store, name, said, find_one) for name, said in rounds.items()),
        imported=tuple(shard for name in sets for shard in find_set(store, name).labelled()),
        best_of=_best_of(recipe, reward),
        untraced=tuple(name for name, texts in before.items() if texts is None),
    )
    check_start(context)
    _check_examination(recipe, context, before)
    return context


def frozen_policies(recipe: Recipe, context: RoundContext) -> Recipe:
    """The recipe with ids in place of "champion", which is whoever it is now for the whole of the round."""
    beside = tuple(
        one if one.source in (None, CANDIDATE) or opened.policy is None
        else one.changed(source=opened.policy.policy_id)
        for one, opened in zip(recipe.evaluate.baselines, context.evaluate.baselines, strict=True)
    )  # fmt: skip
    evaluate = recipe.evaluate.changed(baselines=beside)
    return recipe.starting(context.policy.policy_id).changed(evaluate=evaluate)


def model_of(recipe: Recipe) -> ModelSettings:
    """The base model, where it lies on this machine, and the frame rate that it is told."""
    return recipe.model.as_part(
        ModelSettings, path=str(find(recipe.model.path)), frame_rate=float(recipe.generate.fps)
    )


def curation_of(recipe: Recipe) -> CurateSettings:
    """What may teach, and how much: shaping and curation together, with what they leave to other parts."""
    weight = recipe.curate.weight
    by_objective = get_objective(recipe.finetune.objective).curation_weight
    selection = recipe.curate.model_dump(exclude={"include_rounds", "weight"})
    threshold = threshold_of(recipe)
    if threshold is None and recipe.shaping.threshold == "auto" and recipe.shaping.kind == "binary":
        raise ConfigError(
            f"of the reward {recipe.teacher!r}, which teaches, nobody knows from which value a clip passes. "
            "Say it, shaping.threshold=VALUE (`vidloop query` shows what values there are), or let the best "
            "of each prompt teach: --set shaping.kind=graded --set curate.accept_fraction=0.5"
        )
    return recipe.shaping.as_part(
        CurateSettings,
        **selection,
        threshold=threshold,
        weight=by_objective if weight == "objective" else weight,
        feedback=kind_of(recipe.reward(recipe.teacher)),
        seed=recipe.seed,
    )


def threshold_of(recipe: Recipe) -> float | None:
    """The value from which on a clip passes, as the recipe says it or the reward knows it; else None.

    A judge's rubric knows one, where its questions are of yes and no; a cosine, a score without a scale or a
    mixture does not, and half of its range would mean nothing.
    """
    said = recipe.shaping.threshold
    return passes(recipe, recipe.teacher) if said == "auto" else said


def passes(recipe: Recipe, name: str) -> float | None:
    """Value of a reward from which a clip passes, if the reward knows one."""
    instance = recipe.reward(name)
    return reward_kind(kind_of(instance)).threshold(instance)


def finetune_settings(recipe: Recipe) -> TrainSettings:
    """How it is learned, as the recipe says it."""
    # As many as there are GPUs to share out, but no more than a step has units.
    shared = min(max(1, len(spread.gpus(recipe.model.device))), recipe.finetune.batch_size)
    decided = {"seed": recipe.seed, "processes": recipe.finetune.processes or shared}
    return TrainSettings.model_validate(dict(recipe.finetune) | decided)


def _jobs(recipe: Recipe) -> tuple[ClipJob, ...]:
    if not recipe.clips.makes:
        return ()
    return training_jobs(training_prompts(recipe.generate), recipe.generate.clips_per_prompt, recipe.seed)


def _best_of(recipe: Recipe, reward: Callable[[str], RewardRef]) -> BestOf | None:
    """How the recipe's training clips are chosen, where they are."""
    said = recipe.best_of
    return None if said is None else BestOf(said.best_of, reward(recipe.chooser(said)))


def _frozen(store: Store, name: str) -> Recipe:
    """The recipe that a round began with; where its file is damaged or gone, as its summary has it."""
    folder = f"rounds/{name}"
    if not store.backend.names(folder):
        raise ConfigError(f"curate.include_rounds: {store.url} holds no round {name}")
    try:
        return load_recipe(str(store.local(f"{folder}/{RECIPE}")))
    except (OSError, ConfigError) as damaged:
        try:
            summary = read_summary(store, name)
            said = check(Recipe, summary.recipe, store.where(f"{folder}/{SUMMARY}"))
            return said.starting(summary.policy_before)
        except (StoreError, ConfigError):
            raise ConfigError(
                f"curate.include_rounds: how round {name} made its clips is not known: {damaged}. Leave it "
                "out, or play its recipe again, which makes no clip anew that the store holds, and name that "
                "round"
            ) from None


def _earlier(
    recipe: Recipe, store: Store, name: str, before: Recipe, find: Callable[[str], PolicyRef]
) -> Sampled:
    """The clips that an earlier round made, by the recipe that was frozen when it began."""
    chosen = {"prompts", "prompt_ids", "clips_per_prompt"}  # which clips; the rest says how they are made
    if before.generate.model_dump(exclude=chosen) != recipe.generate.model_dump(exclude=chosen):
        raise ConfigError(
            f"curate.include_rounds: round {name} made its clips with other `generate` settings"
        )
    chosen_by = functools.partial(open_reward, before, store=store)
    return Sampled(find(before.start), _jobs(before), _best_of(before, chosen_by))


def _evaluation(
    recipe: Recipe,
    policy: PolicyRef,
    reward: Callable[[str], RewardRef],
    find: Callable[[str], PolicyRef],
) -> EvaluationPlan:
    chosen = recipe.evaluate
    if chosen.prompts in chosen.also:
        raise ConfigError(f"evaluate.also names {chosen.prompts!r}, which is already evaluate.prompts")
    sets = {chosen.prompts: chosen.clips} | dict.fromkeys(chosen.also, chosen.also_clips)
    jobs = tuple(
        (
            name if name in prompt_sets() else Path(name).stem,
            evaluation_jobs(load_prompts(name), clips, recipe.seed, policy.policy_id),
        )
        for name, clips in sets.items()
    )
    metric = reward(chosen.metric)
    guards = [reward(name) for name in chosen.guards if name != DIVERSITY]
    own = {one.name: reward_kind(one.kind).within for one in guards} | {DIVERSITY: DIVERSITY_WITHIN}
    said = recipe.gate.limits
    within = {name: said.get(name, Limits()).within(own[name]) for name in chosen.guards}
    others = [reward(name) for name in chosen.beside]
    beside = tuple(_baseline(recipe, one, policy, reward, find) for one in chosen.baselines)
    if len({one.name for one in beside}) != len(beside):
        raise ConfigError("evaluate.baselines names one twice")
    confirmed = chosen.clips if chosen.confirm_clips is None else chosen.confirm_clips
    fresh: tuple[ClipJob, ...] = ()
    if recipe.gate.confirm is not None:
        fresh = evaluation_jobs(
            load_prompts(chosen.prompts), confirmed, recipe.seed, policy.policy_id, "confirm"
        )
    measures = (metric, *guards, *others)
    return EvaluationPlan(metric, chosen.guards, measures, jobs[0][0], jobs, within, beside, fresh)


def _baseline(
    recipe: Recipe,
    said: BestOfSettings,
    policy: PolicyRef,
    reward: Callable[[str], RewardRef],
    find: Callable[[str], PolicyRef],
) -> Baseline:
    best_of = BestOf(said.best_of, reward(recipe.chooser(said)))
    name = f"best of {best_of.n} by {best_of.by.name}"
    if said.source == CANDIDATE:
        return Baseline(f"{name}, candidate", best_of, None)
    sampled = policy if said.source is None else find(said.source)
    of = sampled.policy_id if sampled.adapter_path else BASE  # the same, however the recipe calls it
    return Baseline(name if sampled == policy else f"{name}, {of}", best_of, sampled)


def _check_examination(
    recipe: Recipe, context: RoundContext, before: Mapping[str, frozenset[str] | None]
) -> None:
    """Refuse prompts that both train and examine, unless the recipe says that this is on purpose.

    Args:
        before: what the policy that the round starts from, and those it comes from, were trained on.
    """
    if recipe.evaluate.allow_training_prompts:
        return
    rounds = [f"curate.include_rounds ({name})" for name in dict.fromkeys(recipe.curate.include_rounds)]
    lessons = {
        place: set(map(same_text, {job.prompt.text for job in sampled.jobs}))
        for place, sampled in zip(["generate.prompts", *rounds], context.training, strict=True)
    }
    if context.imported:
        lessons["clips.imported"] = {
            same_text(text) for text in shown_prompts(context.store, context.imported)
        }
    for policy, prompts in before.items():
        if prompts is not None:
            place = f"policy {policy}, which the round starts from or which that comes from"
            lessons[place] = set(map(same_text, prompts))
    keys = ["evaluate.prompts", *(["evaluate.also"] * (len(context.evaluate.jobs) - 1))]
    for place, learned in lessons.items():
        for key, (name, examined) in zip(keys, context.evaluate.jobs, strict=True):
            texts = list(dict.fromkeys(job.prompt.text for job in examined))
            shared = [text for text in texts if same_text(text) in learned]
            if shared:
                some = ", ".join(map(repr, shared[:_EXAMPLES])) + (", ..." if shared[_EXAMPLES:] else "")
                raise ConfigError(
                    f"{key} ({name}) shares {len(shared)} of its {len(texts)} prompts with those that train, "
                    f"{place}: {some}. A policy is not judged on what it was taught: choose prompts that do "
                    "not train, or say evaluate.allow_training_prompts: true on purpose"
                )


def open_reward(recipe: Recipe, name: str, store: Store | None = None) -> RewardRef:
    """A reward of the recipe, or a kind with its defaults, by name; `store`: of the clips.

    Raises:
        ConfigError: its values lie in a store, and it holds none, or none was named.
        UserError: its weights, or other files, are missing; or the operator does not permit what it asks.
    """
    said = recipe.reward(name)
    kind = reward_kind(kind_of(said))
    settings = said.as_part(kind.settings)
    if isinstance(settings, NetworkSettings) and settings.device is None:
        settings = settings.changed(device=recipe.model.device)
    kind.permitted(settings)
    return reward_ref(name, kind.name, settings, lambda other: open_reward(recipe, other, store), store)
