"""Trains the miniature's RAFT: `python -m miniature.train.train_raft --device cuda --seconds 75 --out DIR`.

torchvision's `raft_small`, from scratch, on pairs of rendered frames and the renderer's true flow. Frames
reach the network exactly as the `flow` reward feeds it (rendered at 64 px, enlarged to 128). The loss is
RAFT's: the L1 distance to the true flow after each refinement, later ones counting more (Teed and Deng,
2020, arXiv 2003.12039, eq. 7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torchvision.models import optical_flow
from torchvision.models.optical_flow import RAFT

from miniature.train.measure_raft import CLIPS, MEANING, measure_raft
from miniature.train.reward_corpus import augment, flows_of, flying_scenes, world_scenes
from miniature.train.training import Options, Trained, cosine, finish, fit, parse, save_half
from miniature.world.render import render
from rewards.flow import raft_input

MODULE: Final = "miniature.train.train_raft"
ARCHITECTURE: Final = "raft_small"
SIZE: Final = 64  # of the clips
WORKING: Final = 128  # of the frames that RAFT sees
PAIRS: Final = 4  # pairs of frames of a clip
STRIDES: Final = (1, 2, 3, 4)
BROKEN: Final = 0.3  # generated clips break laws, and their flow is to be measured all the same
UPDATES: Final = 5
GAMMA: Final = 0.8


def sequence_loss(
    predictions: Sequence[torch.Tensor], flow: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Sum over i = 1..N of gamma^(N - i) |flow_i - flow|_1, mean over valid pixels.

    Args:
        predictions: N tensors [B, 2, H, W], one after each refinement.
        flow: [B, 2, H, W].
        valid: bool [B, H, W].
    """
    weight = valid[:, None] / valid.sum().clamp(min=1)
    last = len(predictions) - 1
    terms = [GAMMA ** (last - i) * ((flow - one).abs() * weight).sum() for i, one in enumerate(predictions)]
    return torch.stack(terms).sum()


def turned(
    images: torch.Tensor, flow: torch.Tensor, valid: torch.Tensor, how: int
) -> tuple[torch.Tensor, ...]:
    """One of the eight symmetries of the square (how = 0..7), applied to pictures and flow alike."""
    if how & 1:  # left to right
        images, valid = images.flip(-1), valid.flip(-1)
        flow = flow.flip(-1) * flow.new_tensor([-1, 1]).view(2, 1, 1)
    if how & 2:  # upside down
        images, valid = images.flip(-2), valid.flip(-2)
        flow = flow.flip(-2) * flow.new_tensor([1, -1]).view(2, 1, 1)
    if how & 4:  # x and y exchanged
        images, valid = images.transpose(-1, -2), valid.transpose(-1, -2)
        flow = flow.transpose(-1, -2).flip(1)
    return images, flow, valid


def raft_batches(model: RAFT, options: Options) -> Callable[[], torch.Tensor]:
    """Renders the corpus and its flow; returns a function that gives the model's loss on a new batch."""
    half = options.clips // 2
    scenes = flying_scenes(options.clips - half, options.seed) + world_scenes(half, options.seed, BROKEN)
    clips = render(scenes, SIZE, options.device)
    flows = flows_of(scenes, PAIRS, STRIDES, WORKING, options.seed, options.device)
    random = torch.Generator(options.device).manual_seed(options.seed)
    turns = torch.Generator().manual_seed(options.seed)

    def loss_of_batch() -> torch.Tensor:
        rows = torch.randint(len(flows.clip), (options.batch,), device=options.device, generator=random)
        times = torch.stack([flows.first[rows], flows.second[rows]], dim=1)
        frames = clips[flows.clip[rows, None], times].permute(0, 1, 4, 2, 3).float() / 255
        frames = (augment(frames, random) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
        images = torch.stack([raft_input(frames[:, i], (WORKING, WORKING)) for i in (0, 1)], dim=1)
        how = int(torch.randint(8, (1,), generator=turns))
        images, flow, valid = turned(images, flows.flow[rows].float(), flows.valid[rows], how)
        predictions = model(images[:, 0].contiguous(), images[:, 1].contiguous(), num_flow_updates=UPDATES)
        return sequence_loss(predictions, flow, valid)

    return loss_of_batch


def main(argv: list[str] | None = None) -> Trained:
    """Trains, saves (weights, config, card), and measures the saved files."""
    options, _ = parse(MODULE, argv, clips=8192, batch=64, lr=3e-4, measure=CLIPS)
    if options.device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")  # TF32: errors of 1e-3 px do not matter, time does
        torch.backends.cudnn.benchmark = True
    (options.out / "config.json").write_text(f'{{\n  "architecture": "{ARCHITECTURE}"\n}}\n')
    model = optical_flow.raft_small().to(options.device)
    done = fit(model, raft_batches(model, options), cosine(options.lr), options.seconds, options.steps)
    facts = [
        f"torchvision `{ARCHITECTURE}`, trained from scratch, for the `flow` reward of the miniature.",
        f"{save_half(model, options.out / 'model.safetensors')}; trained with {UPDATES} flow updates at "
        f"{WORKING} px.",
        f"Data: {options.clips} rendered clips, half of them shapes that fly about, half of all templates of "
        f"the world ({BROKEN:.0%} of these breaking one law); {PAIRS} pairs of frames of each, "
        f"{STRIDES[0]} to {STRIDES[-1]} frames apart, with the renderer's true flow; noise, blur, brightness "
        "jitter and the symmetries of the square.",
    ]
    quality = measure_raft(options.out, options.device, options.measure)
    return finish("RAFT for the physics world", facts, MEANING, options, done, quality)


if __name__ == "__main__":
    main()
