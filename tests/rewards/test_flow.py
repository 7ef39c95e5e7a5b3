from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from miniature.world.catalog import Subject
from miniature.world.render import render, true_flow
from miniature.world.scene import sample_scene
from rewards import LoadedClip
from rewards.flow import FlowReward, FlowSettings, load_raft, raft_input, working_size
from tests.miniature_rewards import FLOW

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[..., LoadedClip]


@pytest.fixture(scope="module")
def flow_reward() -> FlowReward:
    return FlowReward(FlowSettings(**FLOW, device="cpu"))


def value(reward: FlowReward, clip: LoadedClip) -> float:
    judged = reward.score([clip])[0]
    assert judged.value is not None, judged.error
    return judged.value


# What these weights can do, by their card: over the world's clips speed comes out a sixth too low on average,
# of slow squares up to a fifth too high.
CARD = 0.25


def test_a_faster_square_has_the_higher_speed(flow_reward: FlowReward, sliding_square: Make) -> None:
    speeds = [value(flow_reward, sliding_square(step=step)) for step in (1, 2, 3)]
    true = [step / 64 * 8 for step in (1, 2, 3)]
    assert speeds == sorted(speeds)
    assert speeds == pytest.approx(true, rel=CARD)


def test_the_flow_of_a_rendered_square_is_right(flow_reward: FlowReward) -> None:
    scene = sample_scene("move_right", [Subject("blue", "square")], np.random.default_rng(5))
    frames = render([scene])[0].numpy()
    flow = flow_reward.flow(frames[None, 6], frames[None, 8])[0]
    true, valid = true_flow([scene], 6, 8, size=flow.shape[-1])
    moving = valid[0] & (true[0].norm(dim=0) > 1)
    assert float(flow[0][moving].mean()) == pytest.approx(float(true[0, 0][moving].mean() / 2), rel=CARD)
    assert float(flow[1][moving].abs().mean()) < 0.5  # pixels
    assert float(flow.norm(dim=0)[valid[0] & ~moving].mean()) < 0.25


def test_what_stands_still_has_no_speed(flow_reward: FlowReward, world_clip: Make) -> None:
    clip = world_clip("move_right", "blue square")
    still = replace(clip, frames=np.repeat(clip.frames[:1], 17, axis=0))
    assert value(flow_reward, still) < 0.1 * value(flow_reward, clip)


def test_speed_is_per_second_and_a_share_of_the_side(flow_reward: FlowReward, sliding_square: Make) -> None:
    base = value(flow_reward, sliding_square(step=1))
    assert value(flow_reward, sliding_square(step=1, fps=24.0)) == pytest.approx(3 * base)
    assert value(flow_reward, sliding_square(step=2, size=128)) == pytest.approx(base, rel=CARD)


@pytest.mark.parametrize("fps", [None, 0.0, -8.0, float("nan")])
def test_an_unknown_frame_rate_has_no_value(
    fps: float | None, flow_reward: FlowReward, sliding_square: Make
) -> None:
    unknown, known = flow_reward.score([sliding_square(fps=fps), sliding_square()])
    assert unknown.value is None
    assert "frame rate" in str(unknown.error)
    assert known.value is not None


def test_a_clip_no_longer_than_the_stride_has_no_value(flow_reward: FlowReward, sliding_square: Make) -> None:
    judged = flow_reward.score([sliding_square(frames=2), sliding_square(frames=3)])
    assert judged[0].value is None
    assert "stride" in str(judged[0].error)
    assert judged[1].detail["pairs"] == [[0, 2]]


def test_the_detail_names_the_pairs_and_their_speeds(flow_reward: FlowReward, world_clip: Make) -> None:
    judged = flow_reward.score([world_clip()])[0]
    assert judged.detail["pairs"] == [[2, 4], [7, 9], [12, 14]]
    assert judged.detail["n_pairs"] == 3
    assert np.mean(judged.detail["speeds"]) == pytest.approx(judged.value)


def test_a_batch_gives_what_single_clips_give(
    sliding_square: Make, noise_clip: Make, flow_reward: FlowReward
) -> None:
    """Clips of several geometries, in batches that straddle clips."""
    clips = [
        sliding_square(step=1),
        noise_clip(height=50, width=70, frames=5),
        sliding_square(step=3),
        noise_clip(frames=4),
    ]
    small = FlowReward(FlowSettings(**FLOW, device="cpu", batch_size=2))
    together = [judged.value for judged in small.score(clips)]
    assert together == pytest.approx([value(flow_reward, clip) for clip in clips], rel=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "short_side", "expected"),
    [
        (64, 64, 0, (128, 128)),
        (128, 128, 0, (128, 128)),
        (50, 70, 0, (128, 176)),
        (480, 832, 0, (480, 832)),
        (480, 832, 240, (240, 416)),
        (100, 100, 240, (128, 128)),
        (130, 1000, 0, (128, 1000)),
    ],
)
def test_raft_sees_at_least_128_pixels_and_multiples_of_8(
    height: int, width: int, short_side: int, expected: tuple[int, int]
) -> None:
    assert working_size(height, width, short_side) == expected


def test_it_is_torchvisions_raft_with_the_folders_weights(flow_reward: FlowReward, noise_clip: Make) -> None:
    from safetensors.torch import load_file
    from torchvision.models.optical_flow import raft_small

    model = raft_small().eval()
    weights = load_file(ROOT / flow_reward.settings.model / "model.safetensors")
    assert all(tensor.dtype in (torch.float16, torch.int64) for tensor in weights.values())
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    frames = noise_clip(height=128, width=128).frames
    images = [torch.from_numpy(frames[i : i + 1]).permute(0, 3, 1, 2) / 127.5 - 1 for i in (0, 1)]
    with torch.no_grad():
        expected = model(*images, num_flow_updates=flow_reward.settings.updates)[-1]
    torch.testing.assert_close(flow_reward.flow(frames[:1], frames[1:2]), expected, rtol=1e-4, atol=1e-4)


def test_frames_keep_their_values_when_they_are_enlarged() -> None:
    flat = torch.full((2, 64, 48, 3), 255, dtype=torch.uint8)
    image = raft_input(flat, (128, 128))
    assert image.shape == (2, 3, 128, 128)
    torch.testing.assert_close(image, torch.ones_like(image))


def test_the_folder_loads_as_its_config_says() -> None:
    model = load_raft(FLOW["model"])
    assert sum(parameter.numel() for parameter in model.parameters()) == 990_162
