"""Flow `round`: the five stages as subflows, then the gate and the champion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from prefect import Flow, flow
from pydantic.json_schema import SkipJsonSchema

from flows.reporting.artifacts import progress
from flows.reporting.artifacts.showing import show_round
from flows.reporting.messages import DEFAULT_STORE
from flows.rounds import notify
from flows.rounds.common import DEFAULT_RECIPE, NO_OVERRIDES, name_run, run_name, tell_plan
from flows.rounds.curate_dataset import curate_dataset
from flows.rounds.evaluate_policy import evaluate_policy
from flows.rounds.forms import (
    CurateForm,
    DryRunField,
    EvaluateForm,
    FinetuneForm,
    GenerateForm,
    OverridesField,
    RecipeField,
    RunField,
    ScoreForm,
    SeedField,
    StoreField,
    overrides_of,
    titled,
)
from flows.rounds.generate_videos import generate_videos
from flows.rounds.offline_rl_finetune import offline_rl_finetune
from flows.rounds.run_round import begin, context_of, play
from flows.rounds.score_with_rewards import score_with_rewards
from tasks.promotion import Promotion
from tasks.units import StageResult

FLOWS: Mapping[str, Flow[..., dict[str, Any]]] = {
    "generate": generate_videos,
    "score": score_with_rewards,
    "curate": curate_dataset,
    "finetune": offline_rl_finetune,
    "evaluate": evaluate_policy,
}
StageName = Literal["generate", "score", "curate", "finetune", "evaluate"]


@flow(name="round", flow_run_name=run_name, result_serializer="json")
def round_flow(
    recipe: RecipeField = DEFAULT_RECIPE,
    store: StoreField = DEFAULT_STORE,
    seed: SeedField = None,
    from_stage: Annotated[StageName, titled("From stage")] = "generate",
    dry_run: DryRunField = False,
    generate: Annotated[GenerateForm, titled("Generate")] = GenerateForm(),
    score: Annotated[ScoreForm, titled("Score")] = ScoreForm(),
    curate: Annotated[CurateForm, titled("Curate")] = CurateForm(),
    finetune: Annotated[FinetuneForm, titled("Finetune")] = FinetuneForm(),
    evaluate: Annotated[EvaluateForm, titled("Evaluate")] = EvaluateForm(),
    overrides: OverridesField = NO_OVERRIDES,
    run: RunField = "",
    promotion: SkipJsonSchema[Promotion] = "at once",
) -> dict[str, Any]:
    """Generate, score, curate, finetune, evaluate; promote the candidate if the gate lets it through.

    Args:
        recipe: The settings to start from: one of vidloop's recipes.
        store: The folder that keeps everything.
        seed: All randomness derives from it; empty: the recipe's.
        from_stage: The stages before this one must be whole in the store.
        dry_run: Only say what would run, and what the store holds already.
        generate: Changes to stage 1.
        score: Changes to stage 2.
        curate: Changes to stage 3.
        finetune: Changes to stage 4.
        evaluate: Changes to stage 5.
        overrides: Changes to anything else in the recipe, each like gate.confidence=0.99.
        run: A round that has begun elsewhere.
        promotion: Whether the gate's yes is enough; not in the form.
    """
    given = locals()
    if dry_run:
        return tell_plan(given)
    create = from_stage == "generate"
    context = context_of(store, run) if run else begin(recipe, store, overrides_of(given), create=create)
    root = context.generation.root

    def call(stage: str) -> StageResult:
        return StageResult(**FLOWS[stage](store=root, run=context.run_id))

    name_run(context)
    with progress.of_round(context.run_id):
        summary = play(context, call, from_stage, promotion)
    show_round(context.store, summary)
    if promotion == "at once":  # else whoever asked for something else has the last word
        notify.tell_verdict(summary)
    return summary
