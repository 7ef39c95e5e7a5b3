"""The sides of the training measurements: the plain way, the product's own, and whether the two are one.

**Plain** is Diffusion-DPO with LoRA as a training script is usually written. Text encoder and VAE stay on the
GPU and encode text and video in the loop, the reference is the same network with its adapter switched off,
run beside the policy at every step; eager mode, gradient checkpointing on every block, PyTorch's default
attention. The draws, the start of the adapter and the learning rate are those of ours.

**Equal.** Training amplifies rounding: the plain way started twice, on one GPU, from one adapter and one
table of draws, gives two curves some percent apart, since the sums of attention's backward pass have no fixed
order. One pair of runs says little of how far. So the plain way is run several times, and ours has to lie no
further from those runs than they lie from each other, within a factor. A run with another learning rate,
which is to be told apart, shows that the measure can fail.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from itertools import combinations
from math import sqrt
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.full_size import TOKENIZER, build_text_encoder, build_transformer, build_vae, size_of
from benchmarks.harness import clip_options, command_line, elapsed, peak, release, write_json
from models import lora
from models.families import get_family
from models.families.wan import Wan
from models.training import noise
from models.training.batches import Batches
from models.training.equations import error as mean_squares
from models.training.reference import ErrorTable, measure
from models.training.settings import TrainSettings
from models.training.step import learning_rate
from models.training.train_data import Clips, TrainData
from models.training.trainer import TrainJob, train

BASE: Final = "random"
LIBRARIES: Final = ("torch", "diffusers", "peft", "transformers")
CONTROL_LR: Final = 1.25
"""What the learning rate of the run that is to be told apart is multiplied by."""
# Ours may lie this many times further from the plain runs than these lie from each other. The distances
# between four plain runs differ by a factor of 1.7 themselves.
_FACTOR: Final = 1.5
# Below this, relative, differences of a loss are what any other order of a sum does.
_FLOOR: Final = 2e-3


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

    def network(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The random transformer, always the same one, cut to `layers`."""
        made: Any = build_transformer("wan", self.size, str(device), dtype)
        if self.layers is not None:
            made.blocks = made.blocks[: self.layers]
        return made

    def pairs(self, count: int) -> TrainData:
        """Pairs of random latents and embeddings, each of a prompt of its own; the same ones every time."""
        draw = torch.Generator().manual_seed(0)
        width = size_of("wan", self.size).text_encoder["d_model"]
        latents = torch.randn(2 * count, *self.latent, generator=draw)
        return pairs_of(latents, torch.randn(count, self.text_length, width, generator=draw))


def shape_options(parser: argparse.ArgumentParser) -> None:
    """What `Shape` and a run of it are told."""
    clip_options(parser)
    parser.add_argument("--layers", type=int, default=None, help="blocks of the network; default: all")
    parser.add_argument("--text-length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--no-compile", dest="compile", action="store_false")


def shape_of(asked: argparse.Namespace) -> Shape:
    """What the options of `shape_options` ask for."""
    return Shape(asked.size, asked.height, asked.width, asked.frames, asked.text_length, asked.layers)


def device_of(asked: argparse.Namespace) -> tuple[torch.device, torch.dtype]:
    """Where it runs, in bfloat16 on a GPU and float32 on a CPU."""
    device = torch.device(asked.device)
    return device, torch.bfloat16 if device.type == "cuda" else torch.float32


def pairs_of(latents: Tensor, embeds: Tensor) -> TrainData:
    """Pairs (2 i, 2 i + 1) of clips [2 n, C, T, H, W], each pair of a prompt of its own [n, L, D]."""
    index = torch.arange(len(latents))
    return TrainData(
        clip_ids=tuple(f"clip{i}" for i in range(len(latents))),
        prompt_ids=tuple(f"prompt{i}" for i in range(len(embeds))),
        latents=latents,
        embeds=embeds,
        prompt_index=index // 2,
        examples=index,
        weights=torch.ones(len(latents)),
        accepted=index % 2 == 0,
        pairs=index.view(-1, 2),
    )


@dataclass
class Timed:
    """A training run as it was measured; seconds are of single steps.

    `facts`: of a run of ours that came to its end: `plan`, what the blocks kept (None on a CPU), and
    `logit_at_start`, what the reference's stored errors differ by from the policy's before the first step.
    """

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def step(self, skip: int) -> float:
        """Median seconds of a step, without the first `skip`."""
        return median(self.seconds[skip:] or self.seconds)


class Sides:
    """The runs of one comparison, each written to a file of its own as soon as it is measured.

    A comparison on a lent machine may be ended before it is done: the same command with `--resume` measures
    only what is missing.

    Args:
        folder: where the files lie; made if missing.
        question: whatever decides the figures, as JSON values: a side of another question is never taken up.
        resume: take up sides that are there.

    Attributes:
        resumed: names of the sides that were taken up, and not measured.
    """

    def __init__(self, folder: Path, question: Mapping[str, Any], *, resume: bool) -> None:
        self._folder, self._resume = folder, resume
        self._question = json.loads(json.dumps(question))  # as it reads back: tuples become lists
        self.resumed: list[str] = []

    def take(self, side: str, steps: int, measure: Callable[[], Timed]) -> Timed:
        """A side from its file, if that has so many steps, else from `measure`, then written at once."""
        path = self._folder / f"{side.replace(', ', '-').replace(' ', '-')}.json"
        if self._resume and path.is_file():
            held = json.loads(path.read_text())
            if held["question"] == self._question and len(held["losses"]) >= steps:
                self.resumed.append(side)
                return Timed(held["seconds"], held["losses"], held["peak_bytes"], held["facts"])
        timed = measure()
        facts = {"side": side, "question": self._question, "command": command_line()}
        write_json(path, facts | asdict(timed))
        return timed


class OutOfTimeError(Exception):
    """A run was cut short, after at least one step."""


def ours(
    data: TrainData,
    shape: Shape,
    settings: TrainSettings,
    table: ErrorTable | None,
    device: torch.device,
    dtype: torch.dtype,
    *,
    until: float = float("inf"),
) -> Timed:
    """A run of `models.training.trainer.train`, the product's own.

    Args:
        table: stored errors of the reference, see `reference_table`.
        until: of `time.monotonic()`, after which no further step is begun.
    """
    release(device)
    timed = Timed()
    transformer = shape.network(device, dtype)
    start = time.perf_counter()

    def on_step(entry: dict[str, float]) -> None:
        nonlocal start
        now = time.perf_counter()
        timed.seconds.append(now - start)
        timed.losses.append(entry["loss"])
        if time.monotonic() > until and len(timed.losses) < settings.steps:
            raise OutOfTimeError
        start = now

    family = get_family("wan")
    with suppress(OutOfTimeError):
        result = train(transformer, family, TrainJob(data, settings, BASE, reference_errors=table), on_step)
        plan = result.diagnostics.get("memory_plan")
        timed.facts = {"plan": plan, "logit_at_start": result.curve[0]["logit/max"]}
    timed.peak_bytes = peak(device)
    return timed


def reference_table(
    data: TrainData, shape: Shape, settings: TrainSettings, device: torch.device, dtype: torch.dtype
) -> tuple[ErrorTable, float]:
    """Stored errors of the reference, as the product measures them, and seconds of one forward pass a clip.

    The seconds leave out the first pass, which compiles.
    """
    family, network = get_family("wan"), shape.network(device, dtype)
    rows = 2 * (settings.micro_batch or settings.batch_size)
    clips = Clips(data.clip_ids, data.prompt_ids, data.latents, data.embeds, data.prompt_index)
    first = Clips(data.clip_ids[:1], data.prompt_ids, data.latents[:1], data.embeds, data.prompt_index[:1])
    measure(network, family, first, settings, rows)
    found: list[Any] = []
    seconds = elapsed(lambda: found.append(measure(network, family, clips, settings, rows)), device)
    (errors,) = found
    return ErrorTable(data.clip_ids, dict(zip(data.clip_ids, errors, strict=True))), seconds / errors.numel()


Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Rows of the clips of a batch -> x0 [b, C, T, H, W] float32 and embeddings [b, L, D]."""


class Encoders:
    """The text encoder (bfloat16) and the VAE (float32) of Wan2.1, random, and videos to encode with them.

    Args:
        count: videos, uint8 noise smoothed over 8 x 8 pixels; two of each prompt.
    """

    def __init__(self, shape: Shape, count: int, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        from transformers import AutoTokenizer

        self.shape, self.device = shape, device
        self.vae: Any = build_vae("wan", shape.size, str(device), torch.float32)
        self.text: Any = build_text_encoder("wan", shape.size, str(device), dtype)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(TOKENIZER)
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randint(
            0, 256, (count, 3, shape.frames, shape.height // 8, shape.width // 8),
            generator=generator, dtype=torch.uint8,
        )  # fmt: skip
        self.videos = coarse.repeat_interleave(8, 3).repeat_interleave(8, 4)
        self.prompts = [f"a red ball falls down {'slowly ' * (i % 7)}" for i in range(count // 2)]

    @torch.no_grad()
    def latents(self, rows: Tensor) -> Tensor:
        """Normalised latents of videos, one after the other: together they would need twice the memory."""
        config = self.vae.config
        mean, std = (
            torch.tensor(values, device=self.device).view(1, -1, 1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        videos = (self.videos[row][None].to(self.device).float() / 127.5 - 1 for row in rows.tolist())
        return torch.cat([(self.vae.encode(video).latent_dist.mode() - mean) / std for video in videos])

    @torch.no_grad()
    def embeds(self, prompts: Tensor) -> Tensor:
        """Embeddings of prompts [n], padded with zeros to the shape's length."""
        asked = [self.prompts[row] for row in prompts.tolist()]
        length = self.shape.text_length
        ids = self.tokenizer(
            asked, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(self.device)
        embeds: Tensor = self.text(ids.input_ids, ids.attention_mask).last_hidden_state
        padded: Tensor = embeds * ids.attention_mask[..., None]
        return padded

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `Encode`: clips 2 i and 2 i + 1 are of prompt i, which is encoded once."""
        embeds = self.embeds(rows[: len(rows) // 2] // 2)
        return self.latents(rows), torch.cat([embeds, embeds])


def stored(data: TrainData, device: torch.device) -> Encode:
    """The clips' own latents and embeddings, instead of encoding them again."""
    return lambda rows: (data.latents[rows].to(device), data.embeds[rows // 2].to(device))


def plain(
    data: TrainData,
    shape: Shape,
    settings: TrainSettings,
    device: torch.device,
    dtype: torch.dtype,
    encode: Encode,
    *,
    otherwise: bool = False,
    until: float = float("inf"),
) -> Timed:
    """Train for `settings.steps` steps of one pair each.

    Args:
        data: names the clips, prompts and pairs; its latents are read only to know their shape.
        encode: where x0 and the embeddings come from.
        otherwise: the same arithmetic rounded otherwise, attention by another kernel of the same precision.
            Shows what rounding alone does to the curve.
        until: of `time.monotonic()`, after which no further step is begun.
    """
    release(device)
    transformer = shape.network(device, dtype)
    spec = lora.LoraSpec(settings.rank, settings.alpha, Wan.lora_targets)
    adapter = lora.attach(transformer, spec, noise.seed_of(settings.seed, "adapter"))
    parameters = list(adapter.parameters().values())
    transformer.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    batches, path, timed = Batches(data, settings, device), Wan.parameterization, Timed()
    del data

    def error(noisy: Tensor, sigma: Tensor, embeds: Tensor, target: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext():
            prediction: Tensor = transformer(
                hidden_states=noisy.to(transformer.dtype), timestep=sigma * 1000,
                encoder_hidden_states=embeds.to(transformer.dtype), return_dict=False,
            )[0]  # fmt: skip
        return mean_squares(prediction.float(), target)

    with _kernels(otherwise and device.type == "cuda"):
        for step in range(settings.steps):
            if time.monotonic() > until and timed.losses:
                break
            start = time.perf_counter()
            rows = batches.at(step).per_clip()
            x0, embeds = encode(rows.clips[:, 0])
            noisy, target = path.noisy(x0, rows.noise, rows.sigma), path.target(x0, rows.noise, rows.sigma)
            transformer.disable_adapters()
            with torch.no_grad():
                reference = error(noisy, rows.sigma, embeds, target)
            transformer.enable_adapters()
            gap = (error(noisy, rows.sigma, embeds, target) - reference).view(2, -1)
            loss = -F.logsigmoid(-settings.beta / 2 * (gap[0] - gap[1])).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step)
            optimizer.step()
            optimizer.zero_grad()
            timed.losses.append(loss.item())
            timed.seconds.append(time.perf_counter() - start)
    timed.peak_bytes = peak(device)
    return timed


def _kernels(otherwise: bool) -> AbstractContextManager[Any]:
    """PyTorch's own choice of attention kernel, or another one."""
    return sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]) if otherwise else nullcontext()


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Root mean square, over the steps, of the difference of two losses relative to their mean."""
    return sqrt(fmean(((x - y) / ((x + y) / 2)) ** 2 for x, y in zip(a, b, strict=True)))


def equality(
    plain: Sequence[Sequence[float]], ours: Mapping[str, Sequence[float]], control: Sequence[float]
) -> dict[str, Any]:
    """Distances of the loss curves, and whether ours is plain's.

    Args:
        plain: curves of the plain way, two or more, alike but for rounding. All curves are compared over the
            steps that each of them has.
        ours: curves of ours, by name.
        control: a curve of ours with a learning rate `CONTROL_LR` times as high.
    """
    steps = min(map(len, [*plain, *ours.values(), control]))
    runs = [curve[:steps] for curve in plain]

    def away(curve: Sequence[float]) -> float:
        return fmean(distance(curve[:steps], run) for run in runs)

    between = [distance(a, b) for a, b in combinations(runs, 2)]
    allowed = max(_FLOOR, _FACTOR * fmean(between))
    found = {name: away(curve) for name, curve in ours.items()}
    return {
        "measure": f"root mean square over {steps} steps of the relative difference of the loss: of ours to "
        f"{len(runs)} plain runs, mean; of rounding between these, mean",
        **found,
        "rounding": fmean(between),
        "rounding_least": min(between),
        "rounding_most": max(between),
        "allowed": allowed,
        "control": away(control),
        "steps": steps,
        "plain_runs": len(runs),
        "ok": max(found.values()) <= allowed < away(control),
    }


def told(same: Mapping[str, Any]) -> str:
    """What `equality` found, in a line."""
    labels = {"ours": "ours", "ours_all_memory": "with all memory"}
    found = ", ".join(f"{label} {same[key]:.2%}" for key, label in labels.items() if key in same)
    least, most = same["rounding_least"], same["rounding_most"]
    return (
        f"loss curves over {same['steps']} steps: {found} from {same['plain_runs']} plain runs, these "
        f"{same['rounding']:.2%} from each other ({least:.2%} to {most:.2%}), allowed {same['allowed']:.2%}; "
        f"with {CONTROL_LR} times the learning rate {same['control']:.2%}: "
        f"{'equal' if same['ok'] else 'NOT EQUAL'}"
    )
