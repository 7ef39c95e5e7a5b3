"""Opening a round: recipe to RoundContext. Whatever can be found wrong before any work is found here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from data import champion
from data.curation import CurateSettings
from data.errors import ConfigError
from data.keys import clip_seed
from data.policies import policies
from data.prompts import load_prompts, prompt_sets
from data.records import Policy, Prompt
from data.resources import find
from data.store import Store
from data.video import VideoSettings
from flows.config.load import load_recipe, resolve
from flows.config.recipe import Recipe
from flows.config.rewards import DIVERSITY, kind_of
from models.families.grid import check_fit
from models.policy import BASE, base_id, policy_id
from models.settings import FastSettings, FinetuneSettings, GateSettings, ModelSettings, SampleSettings
from rewards import NetworkSettings, reward_kind, reward_ref
from tasks import mixture, spread
from tasks.context import ClipJob, EvaluateSettings, Generation, PolicyRef, RewardRef, RoundContext
from tasks.finetune import policy_ref
from tasks.rounds import RECIPE

CHAMPION = "champion"
Settings = TypeVar("Settings")
Weight = Literal["uniform", "reward", "exp"]


def open_round(recipe: Recipe, store: Store, run_id: str) -> RoundContext:
    """Everything the stages need, checked.

    Args:
        recipe: a recipe that `flows.config.load.load_recipe` accepted.
        store: the store of the round.
        run_id: names the run's facts in the store.

    Raises:
        ConfigError: prompts, model, policy or a reward's weights are missing or wrong.
    """
    model = model_settings(recipe)
    base = base_id(model.path, model.revision)
    fast = recipe.generate.fast
    sample = replace(_from(recipe.generate, SampleSettings), fast=_from(fast, FastSettings) if fast else None)
    check_fit(model, sample)
    policy = find_policy(store, recipe.policy, base)
    return RoundContext(
        run_id=run_id,
        name=recipe.name,
        seed=recipe.seed,
        workers=recipe.workers,
        recipe=resolve(recipe),
        generation=Generation(
            root=str(store.root),
            model=model,
            sample=sample,
            video=_from(recipe.generate.video, VideoSettings),
            fps=recipe.generate.fps,
            batch_size=recipe.generate.batch_size,
        ),
        policy=policy,
        jobs=_jobs(recipe),
        # A mixture last: it combines what the others said.
        rewards=tuple(sorted((open_reward(recipe, name) for name in recipe.scored), key=mixture.is_one)),
        feedback=open_reward(recipe, recipe.teacher),
        max_failed_share=recipe.score.max_failed_share,
        curate=curate_settings(recipe),
        finetune=finetune_settings(recipe),
        evaluate=_evaluate(recipe, policy),
        gate=_from(recipe.gate, GateSettings),
        earlier=tuple(_earlier(recipe, store, name, base) for name in dict.fromkeys(recipe.curate.rounds)),
    )


def model_settings(recipe: Recipe) -> ModelSettings:
    """The base model, and where it runs, as the recipe says it."""
    return ModelSettings(
        recipe.model.family,
        str(find(recipe.model.path)),
        recipe.model.revision,
        recipe.model.dtype,
        recipe.model.device,
        frame_rate=recipe.generate.fps,
        compile=recipe.model.compile,
        quantise=recipe.model.quantise,
    )


def curate_settings(recipe: Recipe) -> CurateSettings:
    """What may teach, and how much, as the recipe says it."""
    return CurateSettings(
        feedback=kind_of(recipe.reward(recipe.teacher)),
        seed=recipe.seed,
        weight=_weight(recipe),
        leave_out=tuple(recipe.curate.leave_out),
        **shaping(recipe),
        **recipe.curate.model_dump(exclude={"weight", "rounds", "leave_out"}),
    )


def finetune_settings(recipe: Recipe) -> FinetuneSettings:
    """How it is learned, as the recipe says it."""
    return FinetuneSettings(
        **recipe.finetune.model_dump(exclude={"targets", "processes"}),
        targets=tuple(recipe.finetune.targets),
        seed=recipe.seed,
        processes=recipe.finetune.processes or _processes(recipe),
    )


def _processes(recipe: Recipe) -> int:
    """As many as there are GPUs to share out, but no more than a step has units."""
    return min(max(1, len(spread.gpus(recipe.model.device))), recipe.finetune.batch_size)


def round_prompts(recipe: Recipe) -> list[Prompt]:
    """The prompts of the training clips, in the order of their set.

    Raises:
        ConfigError: there is no such set, or `generate.only` names a prompt that is not in it.
    """
    held = _prompts(recipe.generate.prompts)
    if recipe.generate.only is None:
        return held
    wanted = set(recipe.generate.only)
    unknown = sorted(wanted - {prompt.prompt_id for prompt in held})
    if unknown:
        raise ConfigError(f"generate.only: {recipe.generate.prompts} holds no prompt {unknown[0]!r}")
    return [prompt for prompt in held if prompt.prompt_id in wanted]


def _jobs(recipe: Recipe) -> tuple[ClipJob, ...]:
    return training_jobs(round_prompts(recipe), recipe.generate.clips_per_prompt, recipe.seed)


def _earlier(recipe: Recipe, store: Store, name: str, base: str) -> tuple[PolicyRef, tuple[ClipJob, ...]]:
    """The training clips of an earlier round, by the recipe that was frozen when it began."""
    path = store.path(f"rounds/{name}/{RECIPE}")
    if not path.is_file():
        raise ConfigError(f"curate.rounds: {store.root} holds no round {name}")
    before = load_recipe(str(path))
    chosen = {"prompts", "only", "clips_per_prompt"}  # which clips; the rest says how they are made
    if before.generate.model_dump(exclude=chosen) != recipe.generate.model_dump(exclude=chosen):
        raise ConfigError(f"curate.rounds: round {name} made its clips with other `generate` settings")
    return find_policy(store, before.policy, base), _jobs(before)


def training_jobs(prompts: Sequence[Prompt], clips_per_prompt: int, seed: int) -> tuple[ClipJob, ...]:
    """The training clips in prompt order."""
    return tuple(
        ClipJob(prompt, clip_seed(seed, prompt.prompt_id, index, "train"))
        for prompt in prompts
        for index in range(clips_per_prompt)
    )


def evaluation_jobs(prompts: Sequence[Prompt], clips: int, seed: int, policy: str) -> tuple[ClipJob, ...]:
    """`clips` jobs spread evenly over the prompts.

    Seeds derive from the recipe's seed and the policy that the round starts from: fresh for every new
    champion, the same when a round is repeated, and never those of a training clip.
    """
    own = clip_seed(seed, policy, 0, "evaluate")
    # Evenly spaced prompts get one clip more than the others where the division leaves a rest.
    share, rest = divmod(clips, len(prompts))
    extra = {index * len(prompts) // rest for index in range(rest)} if rest else set()
    return tuple(
        ClipJob(prompt, clip_seed(own, prompt.prompt_id, index, "evaluate"))
        for place, prompt in enumerate(prompts)
        for index in range(share + (place in extra))
    )


def find_policy(store: Store, name: str, base: str) -> PolicyRef:
    """The policy a recipe means by `base`, `champion` (the base where there is none yet) or an id.

    Raises:
        ConfigError: the store holds no such policy, or it was trained over another base model.
    """
    base_policy = PolicyRef(policy_id(base), base)
    if name == CHAMPION:
        present = champion.read(store)
        name = present.policy_id if present else BASE
    if name in (BASE, base_policy.policy_id):
        return base_policy
    held = policies(store)
    if name not in held:
        known = ", ".join(sorted(held)) or "none"
        raise ConfigError(
            f"policy {name!r}: {store.root} holds no such policy; say base, champion, or one of: {known}"
        )
    if held[name].base_id != base:
        raise ConfigError(
            f"policy {name} was trained over base model {held[name].base_id}, the recipe's is {base}"
        )
    return policy_of(held, name)


def policy_of(held: Mapping[str, Policy], name: str) -> PolicyRef:
    """A policy with the adapters of all its experts: those it did not train are its parents'."""
    row = held[name]
    known = [parent for parent in row.parents if parent in held]
    return policy_ref(row, policy_of(held, known[0]) if known else None)


def _weight(recipe: Recipe) -> Weight:
    """How examples are weighted, where the recipe leaves it to the objective."""
    if recipe.curate.weight != "objective":
        return recipe.curate.weight
    match recipe.finetune.objective:
        case "rwr" | "rwr-anchor":
            return "reward"
        case "rwr-exp" | "rwr-exp-anchor":
            return "exp"
        case _:
            return "uniform"


def shaping(recipe: Recipe) -> dict[str, Any]:
    """The shaping as the recipe says it; some rewards know from where on a clip passes, as a rubric does."""
    said = recipe.shaping.model_dump()
    if "threshold" not in recipe.shaping.model_fields_set:
        known = passes(recipe, recipe.teacher)
        said |= {} if known is None else {"threshold": known}
    return said


def passes(recipe: Recipe, name: str) -> float | None:
    """Value of a reward from which a clip passes, if the reward knows one."""
    instance = recipe.reward(name)
    return reward_kind(kind_of(instance)).threshold(instance)


def _evaluate(recipe: Recipe, policy: PolicyRef) -> EvaluateSettings:
    chosen = recipe.evaluate
    if chosen.prompts in chosen.also:
        raise ConfigError(f"evaluate.also names {chosen.prompts!r}, which is already evaluate.prompts")
    sets = [
        (chosen.prompts, chosen.clips),
        *((name, chosen.also_clips) for name in dict.fromkeys(chosen.also)),
    ]
    jobs = tuple(
        (
            name if name in prompt_sets() else Path(name).stem,
            evaluation_jobs(_prompts(name), clips, recipe.seed, policy.policy_id),
        )
        for name, clips in sets
    )
    metric = open_reward(recipe, chosen.metric)
    guards = [open_reward(recipe, name) for name in chosen.guards if name != DIVERSITY]
    rising = tuple(one.name for one in guards if reward_kind(one.kind).breaks_by == "rising")
    return EvaluateSettings(metric, tuple(chosen.guards), (metric, *guards), jobs[0][0], jobs, rising)


def _prompts(name: str) -> list[Prompt]:
    return load_prompts(name if name in prompt_sets() else find(name))


def open_reward(recipe: Recipe, name: str) -> RewardRef:
    """A reward of the recipe, or a kind with its defaults, by name.

    Raises:
        UserError: its weights, or other files, are missing.
    """
    said = recipe.reward(name)
    kind = reward_kind(kind_of(said))
    settings = said.as_part(kind.settings)
    if isinstance(settings, NetworkSettings) and settings.device is None:
        settings = settings.changed(device=recipe.model.device)
    return reward_ref(name, kind.name, settings, lambda other: open_reward(recipe, other))


def _from(part: BaseModel, settings: type[Settings]) -> Settings:
    """The plain dataclass whose fields the part of the recipe has under the same names."""
    known = {field.name for field in fields(settings)}  # type: ignore[arg-type]  # every one given here is a dataclass
    return settings(**{name: value for name, value in part.model_dump().items() if name in known})
