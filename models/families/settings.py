"""Which base model, where it runs, and how a clip is sampled. No torch here, so that a plan costs nothing."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from data.device import resolve_device
from data.settings import Settings, setting

Expert = Literal["high", "low"]
"""A network of a model that has two: for high or for low noise."""
Dtype = Literal["float32", "bfloat16"]
Quantise = Literal["none", "fp8-storage"]
"""How a network's weights are held, see `models.families.base.quantise`."""


class BaseModelSettings(Settings):
    """The base model as a recipe names it."""

    family: str = setting(..., "Family", "Adapter that knows the pipeline's parts, see `models.families`.")
    path: str = setting(
        ...,
        "Path",
        "A folder in diffusers layout, or a hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers.",
        named_by="the policy's id",
        min_length=1,
    )
    revision: str | None = setting(
        None,
        "Revision",
        "Commit of a hub id, 40 hex digits; null for a local folder.",
        named_by="the policy's id",
    )
    dtype: Dtype = setting(
        "float32",
        "Precision",
        "Of the weights. Adapters, losses and stored latents are float32 either way.",
    )
    device: str = setting(
        "auto",
        "Device",
        "auto takes the first CUDA device, and the CPU where there is none; cuda:all takes every GPU: each "
        "generates and scores its share.",
        cost_only=True,
        pattern=r"^(auto|cpu|cuda(:(\d+|all))?)$",
    )
    compile: bool | None = setting(
        None,
        "Compile",
        "Sample through torch.compile, block by block. null: on a GPU, and not on a CPU, where it gains "
        "nothing. It changes results by rounding, as another GPU does. Quantised weights are not compiled.",
        cost_only=True,
    )
    quantise: Quantise = setting(
        "none",
        "Quantise",
        "Hold weights in fewer bits. fp8-storage: half of bfloat16's memory for the "
        "network's weights, and other clips and adapters.",
    )

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        if self.quantise != "none" and self.compile:
            raise ValueError(f"{self.quantise} weights cannot be compiled: set model.compile to null")
        return self


class ModelSettings(BaseModelSettings):
    """The base model as it is loaded: what the recipe names, and what its other parts decide of it."""

    frame_rate: float | None = setting(
        None,
        "Frame rate",
        "Of the clips, for families whose network is told it (ltx), in sampling and training alike: the "
        "recipe's generate.fps. null takes the pipeline's default.",
        unit="frames/s",
        gt=0.0,
    )
    expert: Expert | None = setting(
        None, "Expert", "Which network `load_transformer` loads, of a model of two experts."
    )

    @property
    def low_precision(self) -> bool:
        """Whether weights are held in fewer digits than an adapter's numbers need."""
        return self.dtype != "float32" or self.quantise != "none"

    @property
    def torch_device(self) -> str:
        """The device on this machine: "cpu", "cuda", "cuda:1". Raises ModelError if it has none such."""
        return resolve_device(self.device)


class StepCacheSettings(Settings):
    """Step caching: at some steps the network's answer is extrapolated from earlier ones (TaylorSeer).

    Liu et al. 2025, arXiv 2503.06923, in its light form: the output of the last projection is extrapolated.
    Which steps are computed is fixed by number alone, so a clip does not depend on those it was sampled with.
    """

    interval: int = setting(2, "Interval", "Of so many steps the network runs at one.", ge=2, le=10)
    warmup: int = setting(
        4,
        "Warm-up",
        "First steps at which it always runs; an extrapolation needs two points.",
        unit="steps",
        ge=2,
        le=1000,
    )
    order: int = setting(1, "Order", "Of the Taylor expansion; 0 repeats the last answer.", ge=0, le=3)

    def computed(self, steps: int) -> int:
        """At how many of `steps` the network runs."""
        return min(steps, self.warmup) + len(range(self.warmup + 1, steps, self.interval))

    def describe(self) -> str:
        """The mode in a word, as it stands with every clip's sampler."""
        return f"fast: taylorseer interval {self.interval} warmup {self.warmup} order {self.order}"


class SampleSettings(Settings):
    """How a clip is sampled. Everything here is part of a clip's identity."""

    steps: int = setting(10, "Sampling steps", "Denoising steps of a clip.", ge=1, le=1000)
    guidance: float = setting(
        3.0,
        "Guidance",
        "Classifier-free guidance scale; at or below 1 the unconditional pass is left out.",
        ge=0.0,
        le=50.0,
    )
    guidance_2: float | None = setting(
        None,
        "Guidance, low noise",
        "Of a model of two experts, the scale of the one for low noise; null: `guidance`.",
        ge=0.0,
        le=50.0,
    )
    flow_shift: float | None = setting(
        None, "Flow shift", "Of the noise schedule; null: as the model was saved.", gt=0.0
    )
    height: int = setting(
        64, "Height", "A multiple of 16 and of the model's own grid.", unit="px", ge=16, le=4096
    )
    width: int = setting(
        64, "Width", "A multiple of 16 and of the model's own grid.", unit="px", ge=16, le=4096
    )
    frames: int = setting(
        17, "Frames", "Of a clip: 1 + a multiple of the VAE's temporal stride.", ge=1, le=1024
    )
    max_sequence_length: int = setting(
        512, "Prompt tokens", "Text is padded or cut to this length.", unit="tokens", ge=1, le=4096
    )
    negative_prompt: str = setting(
        "", "Negative prompt", "Text of the unconditional branch: what guidance steers away from."
    )
    decode_batch: int | None = setting(
        None,
        "Decode batch",
        "Clips decoded at once; null: the whole batch, which is fast and takes more memory.",
        ge=1,
    )
    step_cache: StepCacheSettings | None = setting(
        None,
        "Step cache",
        "Leave out some of the network's passes, named in every clip and never mixed with exact clips in one "
        "round; null: exact. docs/speed.md has its cost in quality.",
        formerly="fast",
    )

    @model_validator(mode="after")
    def _guides(self) -> Self:
        if self.guidance_2 is not None and self.guidance <= 1:
            raise ValueError(
                f"generate.guidance_2 is {self.guidance_2}, but generate.guidance {self.guidance} switches "
                "guidance off for both experts: set it above 1"
            )
        return self
