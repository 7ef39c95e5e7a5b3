"""Flow `round`: the five stages as subflows, then the gate and the champion."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow

from flows.curate_dataset import curate_dataset
from flows.evaluate_policy import evaluate_policy
from flows.generate_videos import generate_videos
from flows.offline_rl_finetune import offline_rl_finetune
from flows.playing import begin, context_of, frozen_recipe, play
from flows.score_with_rewards import score_with_rewards
from flows.stage_flows import DEFAULT_RECIPE, NO_OVERRIDES, run_name
from flows.telling import DEFAULT_STORE
from tasks.units import StageResult

FLOWS = {
    "generate": generate_videos,
    "score": score_with_rewards,
    "curate": curate_dataset,
    "finetune": offline_rl_finetune,
    "evaluate": evaluate_policy,
}
StageName = Literal["generate", "score", "curate", "finetune", "evaluate"]


@flow(name="round", flow_run_name=run_name, result_serializer="json")
def round_flow(
    recipe: str = DEFAULT_RECIPE,
    store: str = DEFAULT_STORE,
    overrides: list[str] = NO_OVERRIDES,
    from_stage: StageName = "generate",
    run: str = "",
) -> dict[str, Any]:
    """Generate, score, curate, finetune, evaluate; promote the candidate if the gate lets it through.

    Args:
        recipe: A YAML file, from the working folder or from vidloop's checkout.
        store: The folder that keeps everything.
        overrides: Changes to the recipe, each like finetune.steps=100.
        from_stage: The stages before this one must be whole in the store.
        run: A round that has begun elsewhere; leave it empty to begin one.
    """
    context = context_of(recipe, store, run) if run else begin(recipe, store, overrides)
    frozen, root = frozen_recipe(context), context.generation.root

    def call(stage: str) -> StageResult:
        return StageResult(**FLOWS[stage](recipe=frozen, store=root, run=context.run_id))

    return play(context, call, from_stage)
