"""Parts of a recipe: the settings of the rewards that have any."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from flows.config.part import Part

# What a composite may mix: every reward but itself.
ComponentName = Literal[
    "physics", "judge", "clip", "flow", "hpsv2", "pickscore", "videoscore", "motion", "sharpness", "flicker"
]


class ClipPart(Part):
    """The CLIP reward: mean over frames of cosine(frame, prompt)."""

    model: str = Field(
        default="miniature/weights/clip",
        title="Model",
        description="Folder, or an open_clip architecture or hub id.",
    )
    pretrained: str = Field(
        default="", title="Weights", description="Tag of the weights, for an architecture."
    )
    frames: int = Field(
        default=6, ge=1, le=1024, title="Frames", description="Looked at, evenly spread over the clip."
    )
    batch_size: int = Field(
        default=96, ge=1, title="Batch size", description="Frames a forward pass: memory only."
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", title="Precision", description="16 bit: GPU only."
    )


class FlowPart(Part):
    """The optical-flow reward: speed of the fastest 5% of pixels by RAFT, in short sides a second."""

    model: str = Field(
        default="miniature/weights/raft",
        title="Model",
        description="Folder, or raft_small, or raft_large.",
    )
    pretrained: str = Field(
        default="", title="Weights", description="torchvision's name of them, for an architecture."
    )
    stride: int = Field(
        default=2, ge=1, le=64, title="Stride", description="Frames between the two images of a pair."
    )
    pairs: int = Field(
        default=3, ge=1, le=256, title="Pairs", description="Measured a clip, evenly spread over it."
    )
    updates: int = Field(
        default=4, ge=1, le=64, title="Updates", description="RAFT's refinement steps a pair."
    )
    batch_size: int = Field(
        default=24, ge=1, title="Batch size", description="Pairs a forward pass: memory only."
    )


class JudgePart(Part):
    """The judge: a vision-language model's P(yes) to the questions of a rubric."""

    backend: Literal["vllm", "local"] = Field(
        default="vllm", title="Backend", description="A vLLM server, or transformers in the run's process."
    )
    model: str = Field(
        default="miniature/weights/judge",
        min_length=1,
        title="Model",
        description="Folder with a transformers checkpoint, or a hub id: hf-hub:org/name.",
    )
    revision: str = Field(default="", title="Revision", description="Of a hub id.")
    rubric: str = Field(
        default="miniature/rubrics/world.yaml",
        min_length=1,
        title="Rubric",
        description="YAML file: questions, frames, how answers combine, threshold.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", title="Precision", description="Of the model; part of the scores' version."
    )
    url: str = Field(
        default="",
        title="Address",
        description="Of a server that is running, up to and with /v1; empty: VIDLOOP_JUDGE_URL, else the "
        "run starts one.",
    )
    served_name: str = Field(
        default="",
        title="Served name",
        description="What that server calls the model; empty: its path or id.",
    )
    key_env: str = Field(
        default="VIDLOOP_JUDGE_KEY",
        title="Key",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable with the server's key.",
    )
    ca_file: str = Field(
        default="",
        title="Authority",
        description="PEM file of who signed an https server's certificate; empty: the public authorities.",
    )
    api: Literal["vllm", "openai"] = Field(
        default="vllm", title="API", description="openai for servers that know none of vLLM's own fields."
    )
    timeout_s: float = Field(default=120.0, gt=0.0, title="Time-out", description="Of a request, in seconds.")
    concurrency: int = Field(
        default=8, ge=1, le=1024, title="Concurrency", description="Clips judged at the same time."
    )
    retries: int = Field(
        default=4, ge=0, le=20, title="Retries", description="Of a request that failed and may pass."
    )
    breaker: int = Field(
        default=5,
        ge=1,
        title="Breaker",
        description="Unanswered questions in a row after which the judge counts as down.",
    )
    environment: str = Field(
        default=".venv-judge",
        min_length=1,
        title="Environment",
        description="Virtual environment that has vLLM (`make judge`).",
    )
    server_args: str = Field(
        default="", title="Server arguments", description="More of vLLM's, as in a shell."
    )
    early_start: bool = Field(
        default=True,
        title="Early start",
        description="A server on the CPU starts while clips are still being generated.",
    )
    start_timeout_s: float = Field(
        default=600.0, gt=0.0, title="Start time-out", description="For the server to load and answer."
    )
    gpu_share: float = Field(
        default=0.3, gt=0.0, lt=1.0, title="GPU share", description="Of its memory, for a server of the run."
    )
    max_tokens: int = Field(
        default=2048, ge=64, title="Longest prompt", description="Tokens that the server must take."
    )
    batch_size: int = Field(
        default=16, ge=1, title="Batch size", description="Questions a forward pass of the local backend."
    )


class _PreferencePart(Part):
    revision: str = Field(
        default="",
        pattern=r"^([0-9a-f]{40})?$",
        title="Revision",
        description="Commit of a hub id, 40 hex digits.",
    )
    frames: int = Field(
        default=8, ge=1, le=1024, title="Frames", description="Looked at, evenly spread over the clip."
    )
    batch_size: int = Field(
        default=32, ge=1, title="Batch size", description="Frames a forward pass: memory only."
    )


class Hpsv2Part(_PreferencePart):
    """HPSv2.1, a model of what people prefer in pictures: mean over frames."""

    model: str = Field(
        default="hf-hub:RE-N-Y/hpsv21",
        min_length=1,
        title="Model",
        description="Folder or hub id with the weights in safetensors; a hub id needs its revision.",
    )


class PickScorePart(_PreferencePart):
    """PickScore, a model of what people prefer in pictures: mean over frames."""

    model: str = Field(
        default="hf-hub:yuvalkirstain/PickScore_v1",
        min_length=1,
        title="Model",
        description="Folder or hub id with a transformers CLIPModel and its processor.",
    )
    revision: str = Field(
        default="a4e4367c6dfa7288a00c550414478f865b875800",
        pattern=r"^([0-9a-f]{40})?$",
        title="Revision",
        description="Commit of a hub id, 40 hex digits.",
    )


class VideoScorePart(Part):
    """VideoScore, a model of people's marks of videos: five aspects from 1 to 4."""

    model: str = Field(
        default="hf-hub:TIGER-Lab/VideoScore-v1.1",
        min_length=1,
        title="Model",
        description="Folder or hub id with an Idefics2 of five outputs in safetensors; a hub id needs its "
        "revision.",
    )
    revision: str = Field(
        default="",
        pattern=r"^([0-9a-f]{40})?$",
        title="Revision",
        description="Commit of a hub id, 40 hex digits.",
    )
    prompt: str = Field(
        default="",
        title="Prompt",
        description="Text file with the words of the model's card, {prompt} in the place of the clip's own; "
        "empty: prompt.txt in the folder.",
    )
    aspect: Literal["mean", "visual", "temporal", "dynamic", "alignment", "factual"] = Field(
        default="mean", title="Aspect", description="What the value is; all five are kept."
    )
    frames: int = Field(
        default=48, ge=1, le=1024, title="Frames", description="At most; 16 for VideoScore, 48 for v1.1."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="bfloat16", title="Precision", description="Of the model; part of the scores' version."
    )


class ComponentPart(Part):
    """One reward of a composite."""

    weight: float = Field(
        default=1.0, gt=0.0, title="Weight", description="Only the weights' proportions matter."
    )
    worst: float | None = Field(
        default=None,
        title="Worst",
        description="Value that counts as 0; above best where less is better. Null, as best: the training "
        "clips' 5th percentile.",
    )
    best: float | None = Field(
        default=None, title="Best", description="Value that counts as 1; null: the 95th percentile."
    )

    @model_validator(mode="after")
    def _is_a_scale(self) -> Self:
        if (self.worst is None) != (self.best is None):
            raise ValueError("state both worst and best, or neither")
        if self.worst is not None and self.worst == self.best:
            raise ValueError(f"worst and best are both {self.worst:g}: they must differ")
        return self


class CompositePart(Part):
    """The composite reward: a weighted mean of other rewards, each brought to 0 to 1."""

    components: dict[ComponentName, ComponentPart] = Field(
        default={}, title="Components", description="By reward; each must stand in rewards too."
    )
    motion_floor: float = Field(
        default=0.0,
        ge=0.0,
        title="Motion floor",
        description="Clips that move less (guard motion, short sides a second) are worth 0; 0: no floor.",
    )
