"""Parts of a recipe: how clips are made and written."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.config.part import Part


class VideoPart(Part):
    """How clips are written. Rewards see the decoded file, so this is part of a clip's identity."""

    codec: Literal["libx264"] = Field(
        default="libx264", title="Codec", description="H.264 by x264, one thread."
    )
    crf: int = Field(
        default=4, ge=0, le=51, title="CRF", description="Constant rate factor; below 10 is near-lossless."
    )
    pix_fmt: Literal["yuv444p", "yuv420p"] = Field(
        default="yuv444p", title="Pixel format", description="yuv444p keeps the colour of every pixel."
    )
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = Field(
        default="veryfast", title="Preset", description="x264's trade of time for size."
    )


class FastPart(Part):
    """Step caching: fewer passes of the network, other clips. Never mixed with exact ones in one round."""

    interval: int = Field(
        default=2, ge=2, le=10, title="Interval", description="The network is asked at one step of so many."
    )
    warmup: int = Field(
        default=4, ge=2, le=1000, title="Warm-up", description="First steps at which it is always asked."
    )
    order: int = Field(
        default=1, ge=0, le=3, title="Order", description="Of the extrapolation; 0 repeats the last answer."
    )


class GeneratePart(Part):
    """Stage 1: clips from the policy."""

    prompts: str = Field(
        default="train",
        min_length=1,
        title="Prompts",
        description="A set (train, dev, heldout, unseen; real-train, real-heldout) or a file.",
    )
    only: list[str] | None = Field(
        default=None,
        min_length=1,
        title="Only these",
        description="Ids of prompts in the set; null: all. `improve` writes its choice here.",
    )
    clips_per_prompt: int = Field(
        default=8, ge=1, le=10_000, title="Clips per prompt", description="Seeds a prompt."
    )
    batch_size: int = Field(
        default=16,
        ge=1,
        le=1024,
        title="Batch size",
        description="Clips sampled together: one shard, and part of a clip's identity.",
    )
    steps: int = Field(default=10, ge=1, le=1000, title="Sampling steps", description="Solver steps a clip.")
    guidance: float = Field(
        default=3.0,
        ge=0.0,
        le=50.0,
        title="Guidance",
        description="Classifier-free guidance scale; 1 and below switch it off.",
    )
    guidance_2: float | None = Field(
        default=None,
        ge=0.0,
        le=50.0,
        title="Guidance, low noise",
        description="Of a model of two experts, the second one's scale; null: the same.",
    )
    flow_shift: float | None = Field(
        default=None,
        gt=0.0,
        title="Flow shift",
        description="Of the noise schedule; null: as the model was saved.",
    )
    decode_batch: int | None = Field(
        default=None, ge=1, title="Decode batch", description="Clips decoded at once; null: the whole batch."
    )
    height: int = Field(default=64, ge=16, le=4096, title="Height", description="Pixels.")
    width: int = Field(default=64, ge=16, le=4096, title="Width", description="Pixels.")
    frames: int = Field(default=17, ge=1, le=1024, title="Frames", description="Frames a clip.")
    fps: int = Field(
        default=8,
        ge=1,
        le=120,
        title="Frames per second",
        description="Written into the file; LTX-Video's network is told it too.",
    )
    max_sequence_length: int = Field(
        default=512,
        ge=1,
        le=4096,
        title="Prompt tokens",
        description="Text is padded or cut to this many tokens.",
    )
    negative_prompt: str = Field(
        default="", title="Negative prompt", description="What guidance steers away from."
    )
    fast: FastPart | None = Field(
        default=None,
        title="Fast mode",
        description="Step caching, named in every clip; null: exact. docs/speed.md has its cost in quality.",
    )
    video: VideoPart = Field(
        default_factory=VideoPart, title="Video file", description="How clips are written."
    )
