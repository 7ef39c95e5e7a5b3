"""Questions: everything that decides a unit's answer, and so its key.

A question holds settings that matter and digests of inputs: never a path of this machine, a device, a number
of workers, a time. A change of meaning or of results for the same question raises the stage's version, which
makes old answers answers to another question.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from data.curation import CurateSettings
from data.records import Prompt
from data.video import ENCODER
from models.settings import FinetuneSettings, GateSettings, ModelSettings
from rewards import Part
from tasks.context import ClipJob, EvaluateSettings, Generation, PolicyRef, RewardRef

VERSIONS: Final[Mapping[str, int]] = {
    "generate": 2, "score": 1, "curate": 1, "reference": 1, "finetune": 2, "evaluate": 1,
}  # fmt: skip

# How a training run is cut into pieces of work, and which kernels do it, changes no result beyond rounding.
_COSTS_ONLY: Final = (
    "micro_batch", "gradient_checkpointing", "checkpoint_every", "memory_gb", "compile", "attention",
    "processes",
)  # fmt: skip

Question = dict[str, Any]


def sampling(how: Generation) -> dict[str, Any]:
    """Every setting that changes a clip's pixels, as a clip's identity names them."""
    return {
        "family": how.model.family,
        **precision(how.model),
        "fps": how.fps,
        "video": dataclasses.asdict(how.video),
        "encoder": ENCODER,
        **how.sample.question(),
    }


def precision(model: ModelSettings) -> dict[str, Any]:
    """In what form the weights compute; what came later than the dtype is named where it is used only."""
    quantised = {} if model.quantise == "none" else {"quantise": model.quantise}
    return {"dtype": model.dtype, **quantised}


def generate(how: Generation, policy: PolicyRef, jobs: Sequence[ClipJob]) -> Question:
    """The clips of one shard: the prompts as rows, and (row of the prompt, seed) a clip, in batch order."""
    prompts = list(dict.fromkeys(job.prompt for job in jobs))
    return {
        "stage": "generate",
        "version": VERSIONS["generate"],
        "policy": policy.policy_id,
        "sampling": sampling(how),
        "batch_size": how.batch_size,
        "prompts": [_plain(prompt) for prompt in prompts],
        "clips": [[prompts.index(job.prompt), job.seed] for job in jobs],
    }


def score(reward: RewardRef | Part, clips_digest: str) -> Question:
    """One reward's judgement, or that of a part of one, of the clips of one shard."""
    return {
        "stage": "score",
        "version": VERSIONS["score"],
        "reward": reward.kind,
        "reward_version": reward.version,
        "clips": clips_digest,
    }


def curate(
    settings: CurateSettings, feedback: RewardRef, clips: Sequence[str], scores: Sequence[str]
) -> Question:
    """What is worth learning from, by the scores of one reward; `clips` and `scores` are manifest digests."""
    return {
        "stage": "curate",
        "version": VERSIONS["curate"],
        "settings": settings.question(),
        "reward": feedback.kind,
        "reward_version": feedback.version,
        "clips": list(clips),
        "scores": list(scores),
    }


def reference(
    model: ModelSettings, settings: FinetuneSettings, policy: PolicyRef, clips_digest: str
) -> Question:
    """A policy's errors on the clips of one shard at the fixed draws of `settings`: no objective, no beta."""
    return {
        "stage": "reference",
        "version": VERSIONS["reference"],
        "policy": policy.policy_id,
        **precision(model),
        "draws": settings.draws_from,
        "clips": clips_digest,
    }


def finetune(
    model: ModelSettings, settings: FinetuneSettings, policy: PolicyRef, curation: str, clips: Sequence[str]
) -> Question:
    """An adapter learned from one curation; `curation` and `clips` are manifest digests."""
    chosen = {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        # The range of noise levels is the expert's, and the expert is named where there are two.
        if name not in (*_COSTS_ONLY, "sigma_range") and (name != "expert" or value is not None)
    }
    return {
        "stage": "finetune",
        "version": VERSIONS["finetune"],
        "policy": policy.policy_id,
        **precision(model),
        "settings": chosen | {"targets": list(settings.targets)},
        "curation": curation,
        "clips": list(clips),
    }


def evaluate(
    before: PolicyRef,
    after: PolicyRef | None,
    settings: EvaluateSettings,
    gate: GateSettings,
    seed: int,
    inputs: Sequence[Sequence[Any]],
) -> Question:
    """Two policies on the same prompts and seeds; `inputs`: digests of clips and scores by policy and set."""
    return {
        "stage": "evaluate",
        "version": VERSIONS["evaluate"],
        "before": before.policy_id,
        "after": after.policy_id if after else None,
        "metric": settings.metric.name,
        "metric_version": settings.metric.version,
        "guards": list(settings.guards),
        "primary": settings.primary,
        "gate": dataclasses.asdict(gate),
        "seed": seed,
        "inputs": [list(one) for one in inputs],
    }


def _plain(prompt: Prompt) -> list[str]:
    return [prompt.prompt_id, prompt.text, prompt.category, prompt.template, prompt.split, prompt.source]
