"""What the training measurements share: pairs to learn from, a timed run of ours, the ceiling, FLOPs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.full_size import build_transformer
from models.families import get_family
from models.settings import FinetuneSettings
from models.training.memory_plan import MemoryPlan
from models.training.reference import ErrorTable, measure
from models.training.train_data import Clips, TrainData
from models.training.trainer import TrainResult, train

BASE = "random"


@dataclass(frozen=True)
class Shape:
    """What is trained on: pixels, frames, and a cut of the network's depth (None: all layers)."""

    size: str
    height: int
    width: int
    frames: int
    text_length: int
    layers: int | None = None

    @property
    def latent(self) -> tuple[int, int, int, int]:
        """(C, T, H, W) of Wan2.1's VAE: a quarter of the frames, an eighth of the pixels."""
        return 16, (self.frames - 1) // 4 + 1, self.height // 8, self.width // 8

    @property
    def tokens(self) -> int:
        """Of one clip, in patches of 1 x 2 x 2 latent cells."""
        _, depth, height, width = self.latent
        return depth * (height // 2) * (width // 2)


@dataclass
class Timed:
    """A training run as it was measured; seconds are of single steps."""

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peak_bytes: int | None = None

    def step(self, skip: int) -> float:
        """Median seconds of a step, without the first `skip`."""
        return median(self.seconds[skip:] or self.seconds)


def network(shape: Shape, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The random transformer, always the same one, cut to `shape.layers`."""
    made: Any = build_transformer("wan", shape.size, str(device), dtype)
    if shape.layers is not None:
        made.blocks = made.blocks[: shape.layers]
    module: nn.Module = made
    return module


def pairs_of(latents: Tensor, embeds: Tensor) -> TrainData:
    """Pairs (2 i, 2 i + 1) of clips [2 n, C, T, H, W], each pair of a prompt of its own [n, L, D]."""
    count = len(latents)
    index = torch.arange(count)
    return TrainData(
        clip_ids=tuple(f"clip{i}" for i in range(count)),
        prompt_ids=tuple(f"prompt{i}" for i in range(len(embeds))),
        latents=latents,
        embeds=embeds,
        prompt_index=index // 2,
        examples=index,
        weights=torch.ones(count),
        accepted=index % 2 == 0,
        pairs=index.view(-1, 2),
    )


def reference_table(
    data: TrainData, shape: Shape, settings: FinetuneSettings, device: torch.device, dtype: torch.dtype
) -> tuple[ErrorTable, float]:
    """Stored errors of the reference, as the product measures them, and seconds of one forward pass a clip.

    The seconds leave out the first pass, which compiles.
    """
    family = get_family("wan")
    reference = network(shape, device, dtype)
    rows = 2 * (settings.micro_batch or settings.batch_size)
    clips = Clips(data.clip_ids, data.prompt_ids, data.latents, data.embeds, data.prompt_index)
    first = Clips(data.clip_ids[:1], data.prompt_ids, data.latents[:1], data.embeds, data.prompt_index[:1])
    measure(reference, family, first, settings, rows)
    synchronize(device)
    start = time.perf_counter()
    errors = measure(reference, family, clips, settings, rows)
    seconds = time.perf_counter() - start
    return ErrorTable(data.clip_ids, dict(zip(data.clip_ids, errors, strict=True))), seconds / errors.numel()


class OutOfTimeError(Exception):
    """A run was cut short. `timed` is what was measured of it, at least one step."""

    def __init__(self, timed: Timed) -> None:
        super().__init__(f"cut short after {len(timed.losses)} steps")
        self.timed = timed


def ours(
    data: TrainData,
    shape: Shape,
    settings: FinetuneSettings,
    table: ErrorTable | None,
    device: torch.device,
    dtype: torch.dtype,
    *,
    until: float | None = None,
) -> tuple[Timed, TrainResult]:
    """A run of `models.training.trainer.train`, the product's own.

    Args:
        until: of `time.monotonic()`, after which no further step is begun.

    Raises:
        OutOfTimeError: that was before the last step.
    """
    release(device)
    timed = Timed()
    transformer = network(shape, device, dtype)
    start = time.perf_counter()

    def on_step(entry: dict[str, float]) -> None:
        nonlocal start
        now = time.perf_counter()
        timed.seconds.append(now - start)
        timed.losses.append(entry["loss"])
        if until is not None and time.monotonic() > until and len(timed.losses) < settings.steps:
            timed.peak_bytes = peak(device)
            raise OutOfTimeError(timed)
        start = now

    result = train(
        transformer, get_family("wan"), data, settings, BASE, on_step=on_step, reference_errors=table
    )
    timed.peak_bytes = peak(device)
    return timed, result


def plan_of(result: TrainResult) -> dict[str, Any] | None:
    """What the blocks kept, see `MemoryPlan`; None where it was not measured (on a CPU)."""
    held: dict[str, Any] | None = result.diagnostics.get("memory_plan")
    assert held is None or set(held) == set(MemoryPlan.__dataclass_fields__)
    return held


def clip_flops(transformer: nn.Module, shape: Shape) -> dict[str, float]:
    """Floating-point operations of one clip: `linear` and `attention` of a forward pass.

    A backward pass to the adapters adds `linear` once (the frozen weights get no gradient) and `attention`
    two and a half times (five products where the forward pass has two).
    """
    config: Any = transformer.config
    blocks = len(transformer.blocks)  # type: ignore[arg-type]  # a ModuleList, which nn.Module does not say
    width, n, text = config.num_attention_heads * config.attention_head_dim, shape.tokens, shape.text_length
    layer = n * (6 * width * width + 2 * width * config.ffn_dim) + text * 2 * width * width
    scores = 2 * width * n * (n + text)
    return {"linear": 2.0 * blocks * layer, "attention": 2.0 * blocks * scores}


def ceiling(device: torch.device, size: int = 8192, repeats: int = 20) -> float:
    """TFLOP/s of a square product in bfloat16 (float32 on a CPU), the most that this device gives."""
    on_gpu = device.type == "cuda"
    kind = torch.bfloat16 if on_gpu else torch.float32
    size, repeats = (size, repeats) if on_gpu else (512, 3)
    left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))

    def work() -> None:
        for _ in range(repeats):
            left @ right

    work()
    return 2.0 * size**3 * repeats / elapsed(work, device) / 1e12


def elapsed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of `work`, the device's included."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> None:
    """Give back what nobody holds, and count peaks from here."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int | None:
    """Bytes of tensors at the peak since `release`; None on a CPU, where nothing counts them."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None
