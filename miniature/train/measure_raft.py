"""Quality of a RAFT of the world, as its files have it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch

from miniature.train.reward_corpus import world_scenes
from miniature.world.render import render, true_flow
from rewards.base import LoadedClip
from rewards.flow import FlowReward, FlowSettings

MEANING: Final = {
    "epe": "end-point error over all valid pixels, px of 64-px frames, at the reward's stride and updates",
    "epe of zero": "the same of a flow that is zero everywhere",
    "epe moving": "end-point error over valid pixels that move by half a pixel or more",
    "epe moving of zero": "the same of a flow that is zero everywhere",
    "speed ratio": "mean reward / mean of the same measure on the true flow",
    "speed correlation": "Pearson's r between the reward and the same measure on the true flow, over clips",
}
CLIPS: Final = 390
_SEED: Final = 990_002  # no training run uses it
_FPS: Final = 8.0
_MOVING: Final = 0.5


def measure_raft(folder: Path, device: str = "auto", clips: int = CLIPS) -> dict[str, float]:
    """The figures of `MEANING` on `clips` held-out clips that obey their laws, by the reward's own flow."""
    reward = FlowReward(FlowSettings(model=str(folder), device=device))
    scenes = world_scenes(clips, _SEED)
    frames = render(scenes, device=reward.device).cpu().numpy()
    side = frames.shape[2]
    judged = reward.score([LoadedClip(str(i), "", clip, _FPS) for i, clip in enumerate(frames)])
    pairs: list[tuple[int, int]] = [
        (a, b) for a, b in judged[0].detail["pairs"]
    ]  # the same for clips of one length

    errors: dict[str, list[torch.Tensor]] = {name: [] for name in MEANING if name.startswith("epe")}
    speeds = torch.zeros(clips, dtype=torch.float64)
    for at in range(0, clips, reward.settings.batch_size):
        some = slice(at, at + reward.settings.batch_size)
        for first, second in pairs:
            flow = reward.flow(frames[some, first], frames[some, second])
            true, valid = true_flow(scenes[some], first, second, size=flow.shape[-1], device=flow.device)
            true = true * side / flow.shape[-1]
            error, length = (flow - true).norm(dim=1), true.norm(dim=1)
            moving = valid & (length >= _MOVING)
            errors["epe"].append(error[valid])
            errors["epe of zero"].append(length[valid])
            errors["epe moving"].append(error[moving])
            errors["epe moving of zero"].append(length[moving])
            count = max(1, round(reward.settings.top * length[0].numel()))
            speeds[some] += length.flatten(1).topk(count, dim=1).values.mean(dim=1).double().cpu()
    true_speed = speeds.numpy() / len(pairs) * _FPS / reward.settings.stride / side
    speed = np.array([judgement.value for judgement in judged], dtype=np.float64)
    figures = {name: float(torch.cat(parts).mean()) for name, parts in errors.items()}
    figures["speed ratio"] = float(speed.mean() / true_speed.mean())
    figures["speed correlation"] = float(np.corrcoef(speed, true_speed)[0, 1])
    return figures
