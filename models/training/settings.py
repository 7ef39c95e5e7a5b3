"""Settings of offline training of a LoRA adapter: the recipe's `finetune`, and what a run adds to it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, model_validator

from data.settings import RenamedKey, Several, one_of, setting
from models.training import objectives
from models.training.objectives import LossSettings, Objective

STORED_SEGMENTS: Final = (
    "pairs are compared in segments, and stored reference errors are of whole clips: use "
    "finetune.reference_errors: inline, or curate.segments: ignore"
)
# An objective of this ending is the one before it with the term `sft_weight`. Tables for scripts and people
# (`summary.json`, `docs/study.json`, policies) call it so; recipes did until 0.2.
_ANCHOR: Final = "-anchor"

ObjectiveName = Annotated[str, one_of(objectives.names)]
ObjectiveLabel = Annotated[
    str, one_of(lambda: [*objectives.names(), *(n + _ANCHOR for n in objectives.names())])
]
"""An objective as tables call it, see `label_of`."""


def label_of(objective: str, sft_weight: float) -> str:
    """What tables call an objective: "dpo", or "dpo-anchor" where it carries the chosen clips' own error."""
    return objective + _ANCHOR if sft_weight > 0 else objective


def settings_of(label: str) -> dict[str, Any]:
    """What a recipe's `finetune` says for a label of a table. Inverse of `label_of`, at weight 1."""
    return {"objective": label.removesuffix(_ANCHOR), "sft_weight": 1.0 if label.endswith(_ANCHOR) else 0.0}


class FinetuneSettings(LossSettings):
    """Stage 4: offline learning of a LoRA adapter."""

    objective: ObjectiveName = setting(
        "dpo",
        "Objective",
        "What is learned, see docs/objectives.md. Where none is said: dpo, with sft_weight 1.",
    )
    target_logit_std: float | None = setting(
        None,
        "Spread of the logit",
        "Given, beta is measured from the reference's errors before training so that the logit has this "
        "spread; the value of beta is then not used.",
        formerly="target_spread",
        gt=0.0,
    )
    sft_weight: float = setting(
        0.0,
        "Weight of sft",
        "Of the chosen (or accepted) clips' own error as a term beside any objective (Reg-DPO; TRL's "
        "rpo_alpha); 0: no such term.",
        ge=0.0,
    )
    kl: float = setting(
        0.0,
        "KL",
        "Weight of the squared distance to the reference's prediction, beside any objective; 0: none.",
        ge=0.0,
    )
    steps: int = setting(200, "Steps", "Optimiser steps.", ge=1, le=1_000_000)
    batch_size: int = setting(32, "Batch size", "Clips, or pairs, a step.", ge=1, le=65_536)
    micro_batch: int | None = setting(
        None,
        "Micro-batch",
        "Clips or pairs a forward pass; null: the whole batch. Halved when a GPU is full.",
        cost_only=True,
        ge=1,
    )
    lr: float = setting(1e-4, "Learning rate", "Peak, of AdamW (betas 0.9, 0.999).", gt=0.0, le=1.0)
    warmup: int = setting(10, "Warm-up", "Steps of linear warm-up.", ge=0, le=1_000_000)
    schedule: Literal["cosine", "constant"] = setting(
        "cosine", "Schedule", "After warm-up: down to zero at the last step, or constant."
    )
    rank: int = setting(32, "Rank", "LoRA rank.", ge=1, le=1024)
    alpha: float = setting(32.0, "Alpha", "LoRA alpha; alpha / rank scales the update.", gt=0.0)
    targets: Several[str] = setting(
        (), "Targets", "Name endings of the adapted linear layers; empty: the family's own list."
    )
    timestep_sampling: Literal["logit_normal", "uniform"] = setting(
        "logit_normal",
        "Noise levels",
        "Distribution that the training noise levels are drawn from: logit_normal (SD3, arXiv 2403.03206) "
        "or uniform.",
        formerly="sigma",
    )
    logit_mean: float = setting(
        0.0, "Mean of the logit", "Of logit_normal noise levels.", formerly="sigma_mean"
    )
    logit_std: float = setting(
        1.0, "Spread of the noise's logit", "Of logit_normal noise levels.", formerly="sigma_std", gt=0.0
    )
    shift: float = setting(
        1.0,
        "Shift",
        "sigma' = shift sigma / (1 + (shift - 1) sigma), as the sampler's flow shift.",
        gt=0.0,
    )
    stratified: bool = setting(
        True,
        "Stratified",
        "One noise level from each of batch_size equal shares of the distribution: less variance.",
    )
    fixed_noise_samples: int = setting(
        0,
        "Fixed noise samples",
        "K fixed (noise level, noise) draws a prompt, shared by all its clips; 0: fresh at every step.",
        formerly="draws",
        ge=0,
        le=4096,
    )
    reference_errors: Literal["inline", "stored"] = setting(
        "inline",
        "Reference errors",
        "inline: the reference beside the policy at every step. stored: measured once a clip and draw, kept "
        "for all objectives and betas; needs fixed_noise_samples. What compares predictions stays inline.",
    )
    probe: int = setting(
        8,
        "Probe",
        "Clips of each kind at which policy and reference are measured after training, at fixed noise; 0: "
        "none. It teaches nothing.",
        ge=0,
        le=65_536,
    )
    max_grad_norm: float = setting(1.0, "Gradient norm", "Scaled down to this.", gt=0.0)
    weight_decay: float = setting(0.0, "Weight decay", "Of AdamW.", ge=0.0)
    prompt_dropout: float = setting(
        0.0,
        "Prompt dropout",
        "Share of clips trained with the unconditional embedding; the reference gets the same one.",
        ge=0.0,
        lt=1.0,
    )
    reference: Literal["start", "base"] = setting(
        "start", "Reference", "The policy the round starts from, or the base model."
    )
    gradient_checkpointing: bool | Literal["attention", "auto"] = setting(
        False,
        "Checkpointing",
        "Recompute activations: slower, far less memory. attention: all but self-attention; auto: only as "
        "much as the GPU's memory asks, measured before the first step (on a CPU: none).",
        cost_only=True,
    )
    memory_gb: float | None = setting(
        None,
        "Memory",
        "GPU memory that checkpointing auto may use at its peak; null: what is free.",
        unit="GB",
        cost_only=True,
        gt=0.0,
    )
    compile: bool = setting(
        False, "Compile", "Compile the network's blocks: worth its minute on a GPU.", cost_only=True
    )
    attention: Literal["fastest", "default"] = setting(
        "fastest",
        "Attention",
        "On a GPU: the fastest of PyTorch's kernels for the card, or PyTorch's own choice.",
        cost_only=True,
    )
    processes: int | None = setting(
        None,
        "Processes",
        "That train together, a GPU each; null: one, and with model.device cuda:all one a GPU.",
        cost_only=True,
        ge=1,
        le=64,
    )
    expert: Literal["high", "low", "both"] | None = setting(
        None,
        "Expert",
        "Of a model of two experts: which is trained, in its range of noise, both: the one for high noise "
        "first; null: one network.",
    )
    checkpoint_every: int = setting(
        50, "Checkpoint every", "Between resumable checkpoints.", unit="steps", cost_only=True, ge=1
    )

    @model_validator(mode="before")
    @classmethod
    def _terms(cls, given: Any) -> Any:
        """The objective that is meant where none is said, and names of before 0.2 that held a term."""
        if not isinstance(given, Mapping):
            return given
        if "anchor" in given and "sft_weight" in given:
            raise ValueError("anchor and sft_weight are one setting: say sft_weight only")
        said = dict(given)
        name, weight = said.get("objective"), said.pop("anchor", 1.0)
        if isinstance(name, str) and name.endswith(_ANCHOR):
            said |= {"objective": name.removesuffix(_ANCHOR), "sft_weight": said.get("sft_weight", weight)}
            _renamed(f"the objective {name} is now {said['objective']} with sft_weight {said['sft_weight']}")
        elif "anchor" in given and name is not None:
            _renamed(f"the key anchor, unused by objective {name}, is now sft_weight: leave it out")
        elif name is None:
            said.setdefault("sft_weight", weight)
            if "anchor" in given:
                _renamed("the key anchor is now called sft_weight")
        return said

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.reference_errors == "stored" and (self.fixed_noise_samples == 0 or self.prompt_dropout > 0):
            raise ValueError(
                "finetune.reference_errors 'stored' needs finetune.fixed_noise_samples above 0 and "
                "prompt_dropout 0: only what is the same at every step can be measured once"
            )
        wrong = self.algorithm.check(self)
        if wrong:
            raise ValueError(wrong)
        return self

    @property
    def algorithm(self) -> Objective:
        """What the objective is, see `models.training.objectives`."""
        return objectives.get_objective(self.objective)

    @property
    def label(self) -> str:
        """What tables and names of runs call the objective."""
        return label_of(self.objective, self.sft_weight)

    @property
    def compares_errors(self) -> bool:
        """Whether the loss needs the reference's error, one number a row."""
        return self.algorithm.reference == "error"

    @property
    def compares_predictions(self) -> bool:
        """Whether the loss needs the reference's prediction itself, which no table holds."""
        return self.algorithm.reference == "prediction" or self.kl > 0


def _range(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class TrainSettings(FinetuneSettings):
    """One training run: the recipe's settings, and what the rest of the recipe and the model decide."""

    processes: int = setting(1, "Processes", "That share a step's micro-batches.", cost_only=True, ge=1)
    seed: int = setting(0, "Seed", "Of the adapter's start values and of every draw.", ge=0)
    sigma_range: Annotated[tuple[float, float], BeforeValidator(_range)] = setting(
        (0.0, 1.0),
        "Range of noise",
        "Noise levels are drawn within: those at which the trained expert works.",
        named_by="the expert",
    )

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        low, high = self.sigma_range
        if not 0 <= low < high <= 1:
            raise ValueError(f"the noise levels {low} to {high} are no range within 0 and 1")
        return self

    @property
    def noise_fingerprint(self) -> dict[str, Any]:
        """What decides the fixed draws of noise: no objective, no beta."""
        names = (
            "seed", "fixed_noise_samples", "timestep_sampling", "logit_mean", "logit_std", "shift", "expert",
        )  # fmt: skip
        return {name: value for name, value in self.fingerprint().items() if name in names}


def _renamed(message: str) -> None:
    warnings.warn(message, RenamedKey, stacklevel=3)
