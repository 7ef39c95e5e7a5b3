"""What a round is told: every setting with its meaning, default and bounds.

A recipe is a YAML file (`recipes/*.yaml`) that these models check strictly: an unknown key, a wrong type or a
value out of bounds is refused before any work. `flows.config.load` reads it; `flows.config.resolve` turns it
into the plain dataclasses that the stages work with.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, cast

from pydantic import Field, model_validator

from flows.config.generate import GeneratePart
from flows.config.improve import ImprovePart
from flows.config.part import Part
from flows.config.rewards import (
    ClipPart,
    ComponentName,
    CompositePart,
    FlowPart,
    Hpsv2Part,
    JudgePart,
    PickScorePart,
    VideoScorePart,
)
from models.families import EXPERTS
from models.settings import Objective, Quantise

Share = Annotated[float, Field(ge=0.0, le=1.0)]
RoundId = Annotated[str, Field(pattern=r"^\d{8}T\d{6}-[0-9a-f]{8}$")]

RewardName = Literal[ComponentName, "composite"]
# Every reward may teach; the physics reward is called `oracle` where it does.
Feedback = Literal[
    "oracle", "judge", "clip", "flow", "hpsv2", "pickscore", "videoscore", "composite",
    "motion", "sharpness", "flicker",
]  # fmt: skip
Guard = Literal["motion", "diversity", "sharpness", "flicker"]


def feedback_reward(feedback: str) -> RewardName:
    """The reward whose scores a feedback teaches from; the physics reward is `oracle` where it teaches."""
    return cast(RewardName, "physics" if feedback == "oracle" else feedback)


class ModelPart(Part):
    """Which text-to-video model, and how it is held in memory."""

    family: Literal["wan", "wan-experts", "cogvideox", "ltx"] = Field(
        title="Family", description="Adapter that knows the pipeline's parts."
    )
    path: str = Field(
        title="Path",
        min_length=1,
        description="Folder in diffusers layout, or a hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers.",
    )
    revision: str | None = Field(
        default=None, title="Revision", description="Hub revision; null for a local folder."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        title="Precision",
        description="Of the weights. Adapters, losses and stored latents are float32.",
    )
    device: str = Field(
        default="auto",
        title="Device",
        pattern=r"^(auto|cpu|cuda(:(\d+|all))?)$",
        description="auto takes the first CUDA device, and the CPU where there is none; cuda:all takes every "
        "GPU: each generates and scores its share.",
    )
    compile: bool | None = Field(
        default=None,
        title="Compile",
        description="Sample through torch.compile, block by block; null: on a GPU. Differs by rounding only.",
    )
    quantise: Quantise = Field(
        default="none",
        title="Quantise",
        description="fp8-storage: half of bfloat16's memory for the network's weights, other clips.",
    )


class ScorePart(Part):
    """Stage 2: rewards over the stored files."""

    max_failed_share: Share = Field(
        default=0.05,
        title="Failures allowed",
        description="Share of clips a reward may fail on before the stage stops.",
    )


class ShapingPart(Part):
    """The one recorded step between a raw reward and anything that learns."""

    kind: Literal["binary", "graded"] = Field(
        default="binary",
        title="Kind",
        description="binary: r' = 1 from the threshold on. graded: clip(eta (r - gamma), 0, 1).",
    )
    threshold: float | None = Field(
        default=0.5,
        title="Threshold",
        description="Value that passes; for graded it gives the share accepted. Not said, with feedback "
        "judge: the rubric's own.",
    )
    eta: float | None = Field(
        default=None,
        gt=0.0,
        title="Eta",
        description="Slope; null: from the 5th to 95th percentile of the clips.",
    )
    gamma: float | None = Field(default=None, title="Gamma", description="Offset; null: the 5th percentile.")
    label_noise: float = Field(
        default=0.0,
        ge=0.0,
        le=0.5,
        title="Label noise",
        description="For experiments: share of the clips taught the other way round, drawn by the seed.",
    )


class CuratePart(Part):
    """Stage 3: what is worth learning from."""

    rounds: list[RoundId] = Field(
        default=[],
        title="Earlier rounds",
        description="Rounds of the same store whose clips are learned from too. `improve` writes them here.",
    )
    pairs_per_prompt: int = Field(
        default=4, ge=0, le=10_000, title="Pairs per prompt", description="At most this many."
    )
    margin: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        title="Margin",
        description="The r' of a pair must differ by more; 0 drops ties only.",
    )
    top_q: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        title="Share accepted",
        description="Of each prompt's clips; null: what passes.",
    )
    max_per_prompt: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        title="Accepted per prompt",
        description="At most this many; null for no limit.",
    )
    weight: Literal["objective", "uniform", "reward", "exp"] = Field(
        default="objective",
        title="Weight",
        description="1, r', or exp(r'/beta)/Z; objective: reward for rwr, exp for rwr-exp, else uniform.",
    )
    beta: float = Field(
        default=1.0, gt=0.0, title="Temperature", description="Of the exp weight, and so of rwr-exp."
    )
    segments: Literal["ignore", "differing"] = Field(
        default="differing",
        title="Segments",
        description="differing: where the judge judged segments, pairs teach in those that differ.",
    )
    leave_out: list[str] = Field(
        default=[],
        title="Left out",
        description="For experiments: categories whose clips do not teach.",
    )


class FinetunePart(Part):
    """Stage 4: offline learning of a LoRA adapter."""

    objective: Objective = Field(
        default="dpo-anchor",
        title="Objective",
        description="What is learned, see docs/objectives.md; -anchor: plus the accepted clips' own error.",
    )
    beta: float = Field(
        default=500.0,
        gt=0.0,
        title="Beta",
        description="Of dpo and kto, over mean-reduced errors. rwr-exp has curate.beta instead.",
    )
    target_spread: float | None = Field(
        default=None,
        gt=0.0,
        title="Target spread",
        description="Of the logit; given, beta is measured from the reference's errors instead.",
    )
    anchor: float = Field(
        default=1.0, ge=0.0, title="Anchor", description="Weight of the chosen clip's own error (...-anchor)."
    )
    kl: float = Field(
        default=0.0, ge=0.0, title="KL", description="Weight of the velocity-space distance to the reference."
    )
    desirable: float = Field(
        default=0.5, gt=0.0, lt=1.0, title="Desirable", description="Share of accepted clips in kto's loss."
    )
    nft_beta: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        title="Beta of nft",
        description="The optimum lies 2 / this many improvement directions from the reference.",
    )
    optimality: Literal["group", "label"] = Field(
        default="group",
        title="Optimality",
        description="r of nft: the label centred within its prompt, or the label itself.",
    )
    steps: int = Field(default=200, ge=1, le=1_000_000, title="Steps", description="Optimiser steps.")
    batch_size: int = Field(
        default=32, ge=1, le=65_536, title="Batch size", description="Clips, or pairs, a step."
    )
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        title="Micro-batch",
        description="Clips or pairs a forward pass; null: the whole batch.",
    )
    lr: float = Field(default=1e-4, gt=0.0, le=1.0, title="Learning rate", description="Peak, of AdamW.")
    warmup: int = Field(
        default=10, ge=0, le=1_000_000, title="Warm-up", description="Steps of linear warm-up."
    )
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine",
        title="Schedule",
        description="After warm-up: down to zero at the last step, or constant.",
    )
    rank: int = Field(default=32, ge=1, le=1024, title="Rank", description="LoRA rank.")
    alpha: float = Field(
        default=32.0, gt=0.0, title="Alpha", description="LoRA alpha; alpha / rank scales the update."
    )
    targets: list[str] = Field(
        default=[],
        title="Targets",
        description="Name endings of the adapted layers; empty: the family's own list.",
    )
    sigma: Literal["logit_normal", "uniform"] = Field(
        default="logit_normal",
        title="Noise levels",
        description="Distribution the training noise levels are drawn from.",
    )
    sigma_mean: float = Field(default=0.0, title="Noise mean", description="Of the logit.")
    sigma_std: float = Field(default=1.0, gt=0.0, title="Noise spread", description="Of the logit.")
    shift: float = Field(
        default=1.0, gt=0.0, title="Shift", description="Of the noise levels, as the sampler's flow shift."
    )
    stratified: bool = Field(
        default=True,
        title="Stratified",
        description="One noise level from each equal share of the distribution.",
    )
    draws: int = Field(
        default=0,
        ge=0,
        le=4096,
        title="Draws",
        description="Fixed (noise level, noise) draws a prompt; 0: fresh every step.",
    )
    reference_errors: Literal["inline", "stored"] = Field(
        default="inline",
        title="Reference errors",
        description="stored: measured once a clip and draw, kept for all objectives and betas; needs draws.",
    )
    probe: int = Field(
        default=8,
        ge=0,
        le=65_536,
        title="Probe",
        description="Clips of each kind measured after training at fixed noise; 0: none.",
    )
    max_grad_norm: float = Field(default=1.0, gt=0.0, title="Gradient norm", description="Clipped to this.")
    weight_decay: float = Field(default=0.0, ge=0.0, title="Weight decay", description="Of AdamW.")
    prompt_dropout: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        title="Prompt dropout",
        description="Share of clips trained without their prompt.",
    )
    reference: Literal["start", "base"] = Field(
        default="start", title="Reference", description="The policy the round starts from, or the base model."
    )
    gradient_checkpointing: bool | Literal["attention", "auto"] = Field(
        default=False,
        title="Checkpointing",
        description="Recompute activations: slower, far less memory. attention: all but self-attention; "
        "auto: only as much as the GPU's memory asks.",
    )
    memory_gb: float | None = Field(
        default=None,
        gt=0.0,
        title="Memory",
        description="GB of GPU memory that checkpointing auto may use; null: what is free.",
    )
    compile: bool = Field(
        default=False, title="Compile", description="Compile the network's blocks: worth its minute on a GPU."
    )
    attention: Literal["fastest", "default"] = Field(
        default="fastest",
        title="Attention",
        description="On a GPU: the fastest of PyTorch's kernels, tried at the start, or its own choice.",
    )
    processes: int | None = Field(
        default=None,
        ge=1,
        le=64,
        title="Processes",
        description="That train together, a GPU each; null: one, and with model.device cuda:all one a GPU.",
    )
    expert: Literal["high", "low", "both"] | None = Field(
        default=None,
        title="Expert",
        description="Of a model of two experts: which is trained, in its range of noise; null: one network.",
    )
    checkpoint_every: int = Field(
        default=50, ge=1, title="Checkpoint every", description="Steps between resumable checkpoints."
    )


class EvaluatePart(Part):
    """Stage 5: before against after, on the same prompts and seeds."""

    metric: ComponentName = Field(
        default="physics", title="Metric", description="Reward that was not the training feedback."
    )
    same_as_feedback: bool = Field(
        default=False,
        title="Metric is the feedback",
        description="Says that judging by the training feedback is on purpose.",
    )
    prompts: str = Field(
        default="heldout", min_length=1, title="Prompts", description="A set or a file; the primary one."
    )
    clips: int = Field(
        default=400,
        ge=1,
        le=1_000_000,
        title="Clips",
        description="Clips per policy in all, spread evenly over the prompts.",
    )
    also: list[str] = Field(
        default=["unseen"], title="Also", description="Sets reported apart; they never decide."
    )
    also_clips: int = Field(
        default=80, ge=1, le=1_000_000, title="Clips of each other set", description="Per policy."
    )
    guards: list[Guard] = Field(
        default=["motion", "diversity", "sharpness", "flicker"],
        title="Guards",
        description="What must not get worse.",
    )


class GatePart(Part):
    """When a candidate becomes champion."""

    draws: int = Field(
        default=10_000, ge=100, le=1_000_000, title="Draws", description="Bootstrap draws over prompts."
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1.0, title="Confidence", description="Of intervals and guards."
    )
    min_ratio: float = Field(
        default=0.8,
        gt=0.0,
        le=1.0,
        title="Lowest ratio",
        description="after/before of motion, diversity, sharpness.",
    )
    max_ratio: float = Field(
        default=1.25, ge=1.0, title="Highest ratio", description="after/before of flicker."
    )


class Recipe(Part):
    """One way to run a round."""

    name: str = Field(
        title="Name", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Shown in run names."
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, title="Seed", description="All randomness of the round derives from it."
    )
    policy: str = Field(
        default="base",
        min_length=1,
        title="Policy",
        description="Where the round starts: base, champion, or a policy id.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        title="Workers",
        description="Shards computed at the same time; on a GPU they take turns and share the model.",
    )
    model: ModelPart = Field(title="Model", description="The text-to-video model.")
    generate: GeneratePart = Field(default_factory=GeneratePart, title="Generate", description="Stage 1.")
    rewards: list[RewardName] = Field(
        default=["physics"], min_length=1, title="Rewards", description="All are scored."
    )
    clip: ClipPart = Field(default_factory=ClipPart, title="CLIP", description="Settings of the clip reward.")
    flow: FlowPart = Field(default_factory=FlowPart, title="Flow", description="Settings of the flow reward.")
    judge: JudgePart = Field(
        default_factory=JudgePart, title="Judge", description="Settings of the judge reward."
    )
    hpsv2: Hpsv2Part = Field(
        default_factory=Hpsv2Part, title="HPSv2.1", description="Settings of the hpsv2 reward."
    )
    pickscore: PickScorePart = Field(
        default_factory=PickScorePart, title="PickScore", description="Settings of the pickscore reward."
    )
    videoscore: VideoScorePart = Field(
        default_factory=VideoScorePart, title="VideoScore", description="Settings of the videoscore reward."
    )
    composite: CompositePart = Field(
        default_factory=CompositePart, title="Composite", description="Settings of the composite reward."
    )
    score: ScorePart = Field(default_factory=ScorePart, title="Score", description="Stage 2.")
    feedback: Feedback = Field(default="oracle", title="Feedback", description="The reward that teaches.")
    shaping: ShapingPart = Field(
        default_factory=ShapingPart, title="Shaping", description="Raw reward to r' in [0, 1]."
    )
    curate: CuratePart = Field(default_factory=CuratePart, title="Curate", description="Stage 3.")
    finetune: FinetunePart = Field(default_factory=FinetunePart, title="Finetune", description="Stage 4.")
    evaluate: EvaluatePart = Field(default_factory=EvaluatePart, title="Evaluate", description="Stage 5.")
    gate: GatePart = Field(default_factory=GatePart, title="Gate", description="Promotion.")
    improve: ImprovePart = Field(
        default_factory=ImprovePart, title="Improve", description="Rounds in a row, see docs/improve.md."
    )

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        taught = feedback_reward(self.feedback)
        if taught not in self.rewards:
            raise ValueError(
                f"feedback {self.feedback!r} learns from the reward {taught!r}, which `rewards` does not list"
            )
        mixed = list(self.composite.components) if "composite" in self.rewards else []
        if "composite" in self.rewards and not mixed:
            raise ValueError("rewards names composite, but composite.components names no reward to mix")
        needed: list[str] = [*mixed, "motion"] if mixed and self.composite.motion_floor > 0 else [*mixed]
        for one in needed:
            if one not in self.rewards:
                raise ValueError(f"composite needs the reward {one!r}, which `rewards` does not list")
        teachers = mixed if taught == "composite" else [taught]
        if self.evaluate.metric in teachers and not self.evaluate.same_as_feedback:
            raise ValueError(
                f"evaluate.metric {self.evaluate.metric!r} is also what feedback {self.feedback!r} teaches: "
                "a policy is not judged by its own teacher. Choose another metric, or say "
                "evaluate.same_as_feedback: true on purpose"
            )
        self._networks_agree()
        for name, chosen in (("rewards", self.rewards), ("evaluate.guards", self.evaluate.guards)):
            if len(set(chosen)) != len(chosen):
                raise ValueError(f"{name} names one twice")
        return self

    def _networks_agree(self) -> None:
        """What is said of experts and of quantised weights fits the model."""
        has = EXPERTS.get(self.model.family)
        if has and self.finetune.expert is None:
            raise ValueError(
                f"model.family {self.model.family!r} has two experts: say finetune.expert: "
                f"{', '.join(has)} or both"
            )
        if not has and self.finetune.expert is not None:
            raise ValueError(
                f"finetune.expert is {self.finetune.expert!r}, but model.family "
                f"{self.model.family!r} has one network: leave it out"
            )
        if not has and self.generate.guidance_2 is not None:
            raise ValueError(
                f"generate.guidance_2 is set, but model.family {self.model.family!r} has one network"
            )
        if self.model.quantise != "none" and (self.model.compile or self.finetune.compile):
            raise ValueError(
                f"{self.model.quantise} weights cannot be compiled: set finetune.compile to false and "
                "model.compile to null"
            )
