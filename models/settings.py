"""Settings of models/: plain values with their meaning. No torch here, so that a plan costs nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal, get_args

from data.errors import ConfigError
from models.families.settings import Expert

Objective = Literal[
    "sft", "rwr", "rwr-exp", "dpo", "dpo-anchor", "unfiltered", "kto", "nft",
    "rwr-anchor", "rwr-exp-anchor", "kto-anchor", "nft-anchor",
]  # fmt: skip
OBJECTIVES: Final[tuple[Objective, ...]] = get_args(Objective)
ANCHORED: Final = "-anchor"
STORED_SEGMENTS: Final = (
    "pairs are compared in segments, and stored reference errors are of whole clips: use "
    "finetune.reference_errors: inline, or curate.segments: ignore"
)


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """One offline training run of a LoRA adapter. Each default says where it comes from.

    Attributes:
        objective: which loss, see `models.training.objectives`. A name that ends in "-anchor" also carries
        `anchor`.
        beta: strength of the tie to the reference in `dpo` and `kto` (mean-reduced errors; 500 is the best of
            100-8000 in VideoAlign, arXiv 2501.13918). The temperature of rwr-exp is curation's, for it makes
            the weights.
        target_spread: if given, beta is measured before training so that the logit has this spread, see
            `models.training.beta`; the value of `beta` is then not used.
        anchor: weight of the chosen (or accepted) clips' own error in "...-anchor" objectives (Reg-DPO);
            unused by the others.
        kl: weight of the squared distance to the reference's prediction, any objective; 0 leaves it out.
        desirable: share of the accepted clips in the loss of `kto`, in (0, 1): gamma of arXiv 2404.04465,
            section 4.2; 0.5 is the default of its published code.
        nft_beta: of `nft`, in (0, 1]: the optimum lies 2 / nft_beta improvement directions from the
            reference (arXiv 2509.16117, equation 6); 1.0 makes the positive branch plain finetuning.
        optimality: r of `nft`: "group" centres the label within its prompt (arXiv 2509.16117, section 3.3,
            "Optimality Reward"), so that a prompt without contrast teaches nothing; "label" takes it as is.
        steps: optimiser steps.
        batch_size: clips a step, or pairs a step (dpo).
        micro_batch: clips or pairs in one forward pass; None takes the whole batch. Halved when a GPU is
            full.
        lr: peak learning rate of AdamW (betas 0.9, 0.999).
        warmup: steps of linear warm-up.
        schedule: "cosine" down to zero at the last step, or "constant".
        rank, alpha: of the LoRA; the update is scaled by alpha / rank.
        targets: suffixes of the linear layers that get an adapter; empty takes the family's own list.
        sigma: "logit_normal" (SD3, arXiv 2403.03206) or "uniform" noise levels.
        sigma_mean, sigma_std: of the logit.
        shift: sigma' = shift sigma / (1 + (shift - 1) sigma), as the sampler's flow shift.
        stratified: one noise level from each of batch_size equal shares of the distribution: less variance.
        draws: K fixed (noise level, noise) draws a prompt, shared by all its clips; 0 draws afresh at every
            step.
        reference_errors: "inline" runs the reference beside the policy at every step; "stored" measures it
            once a (clip, draw) and keeps the numbers, see `models.training.reference`. Needs `draws` above
            0. Only `dpo` and `kto` compare errors; `nft` and `kl` compare predictions and stay inline.
        probe: clips of each kind at which policy and reference are measured after training, at fixed
            (noise level, noise), see `models.training.probe`; 0 leaves the measurement out. It teaches
        nothing.
        max_grad_norm: the gradient is scaled down to this norm.
        weight_decay: of AdamW.
        prompt_dropout: share of clips trained with the unconditional embedding (the reference gets the same
            one).
        reference: "start" (the policy that training starts from) or "base" (no adapter at all).
        gradient_checkpointing: recompute activations in the backward pass: slower, far less memory. True: of
            every block; "attention": all of a block but its self-attention, half of the work for one more
            tensor a block; "auto": as few blocks as memory asks, measured before the first step (on a GPU; on
            a CPU it is False). See `models.training.blocks`.
        memory_gb: of "auto": GPU memory (1e9 bytes) that training may take at its peak; None: what is free.
        compile: compile the network's blocks; on a GPU, worth its minute on long runs.
        attention: on a GPU, "fastest" tries PyTorch's kernels and takes the fastest; "default" is PyTorch's
            own choice.
        checkpoint_every: steps between checkpoints.
        processes: that share a step's micro-batches, a GPU each; see `models.training.distributed`.
        expert: of a model of two experts, which is trained; "both": the one for high noise first. None for a
            model of one network.
        sigma_range: noise levels are drawn from the distribution within these bounds: those at which the
            trained expert works.
        seed: of the adapter's start values and of every draw.
    """

    objective: Objective = "dpo-anchor"
    beta: float = 500.0
    target_spread: float | None = None
    anchor: float = 1.0
    kl: float = 0.0
    desirable: float = 0.5
    nft_beta: float = 1.0
    optimality: Literal["group", "label"] = "group"
    steps: int = 200
    batch_size: int = 32
    micro_batch: int | None = None
    lr: float = 1e-4
    warmup: int = 10
    schedule: Literal["cosine", "constant"] = "cosine"
    rank: int = 32
    alpha: float = 32.0
    targets: tuple[str, ...] = ()
    sigma: Literal["logit_normal", "uniform"] = "logit_normal"
    sigma_mean: float = 0.0
    sigma_std: float = 1.0
    shift: float = 1.0
    stratified: bool = True
    draws: int = 0
    reference_errors: Literal["inline", "stored"] = "inline"
    probe: int = 8
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    prompt_dropout: float = 0.0
    reference: Literal["start", "base"] = "start"
    gradient_checkpointing: bool | Literal["attention", "auto"] = False
    memory_gb: float | None = None
    compile: bool = False
    attention: Literal["fastest", "default"] = "fastest"
    checkpoint_every: int = 50
    processes: int = 1
    expert: Expert | Literal["both"] | None = None
    sigma_range: tuple[float, float] = (0.0, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.sigma_range
        if not 0 <= low < high <= 1:
            raise ConfigError(f"the noise levels {low} to {high} are no range within 0 and 1")
        if self.objective not in OBJECTIVES:
            raise ConfigError(
                f"finetune.objective is {self.objective!r}; it must be one of {', '.join(OBJECTIVES)}"
            )
        positive = (
            "steps", "batch_size", "lr", "rank", "alpha", "shift", "sigma_std", "checkpoint_every",
            "processes",
        )  # fmt: skip
        given = tuple(name for name in ("target_spread", "memory_gb") if getattr(self, name) is not None)
        for name in (*positive, "max_grad_norm", *(("beta",) if self.compares_errors else ()), *given):
            if not getattr(self, name) > 0:
                raise ConfigError(f"finetune.{name} is {getattr(self, name)}; it must be above 0")
        for name in ("anchor", "kl", "warmup", "weight_decay", "draws", "probe"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"finetune.{name} is {getattr(self, name)}; it must not be negative")
        if not 0 <= self.prompt_dropout < 1:
            raise ConfigError(f"finetune.prompt_dropout is {self.prompt_dropout}; it must lie in [0, 1)")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ConfigError(f"finetune.micro_batch is {self.micro_batch}; it must be at least 1")
        if not 0 < self.desirable < 1:
            raise ConfigError(f"finetune.desirable is {self.desirable}; it must lie between 0 and 1")
        if not 0 < self.nft_beta <= 1:
            raise ConfigError(f"finetune.nft_beta is {self.nft_beta}; it must lie in (0, 1]")
        if self.reference_errors == "stored" and (self.draws == 0 or self.prompt_dropout > 0):
            raise ConfigError(
                "finetune.reference_errors 'stored' needs finetune.draws above 0 and prompt_dropout 0: only "
                "what is the same at every step can be measured once"
            )

    def fingerprint(self) -> dict[str, object]:
        """What decides the adapter. Pieces of work, kernels and an expert's own range of noise do not."""
        left_out = (
            "micro_batch", "gradient_checkpointing", "checkpoint_every", "memory_gb", "compile", "attention",
            "processes", "sigma_range",
        )  # fmt: skip
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in fields(self)
            if field.name not in left_out and (value := getattr(self, field.name)) != field.default
        }

    @property
    def draws_from(self) -> dict[str, int | float | str]:
        """What decides the fixed draws. An expert's range is its model's, which the policy's id names."""
        names = ("seed", "draws", "sigma", "sigma_mean", "sigma_std", "shift")
        expert = {} if self.expert is None else {"expert": self.expert}
        return {name: getattr(self, name) for name in names} | expert

    @property
    def algorithm(self) -> str:
        """The objective without the anchor that it may carry."""
        return self.objective.removesuffix(ANCHORED)

    @property
    def anchored(self) -> bool:
        """Whether the chosen (or accepted) clips' own error is added to the loss."""
        return self.objective.endswith(ANCHORED)

    @property
    def pairwise(self) -> bool:
        """Whether the objective learns from pairs."""
        return self.algorithm == "dpo"

    @property
    def labelled(self) -> bool:
        """Whether the objective learns from accepted and rejected clips that need not be paired."""
        return self.algorithm in ("kto", "nft")

    @property
    def compares_errors(self) -> bool:
        """Whether the loss needs the reference's error, one number a row."""
        return self.algorithm in ("dpo", "kto")

    @property
    def compares_predictions(self) -> bool:
        """Whether the loss needs the reference's prediction itself, which no table holds."""
        return self.algorithm == "nft" or self.kl > 0
