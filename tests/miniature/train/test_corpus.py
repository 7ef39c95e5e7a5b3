from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from miniature.train.reward_corpus import (
    augment,
    flows_of,
    flying_scenes,
    meanings_of,
    pick,
    world_scenes,
)
from miniature.world.catalog import Subject
from miniature.world.render import render
from miniature.world.scene import Scene, sample_scene

RED, BLUE = Subject("red", "ball"), Subject("blue", "square")


def test_scenes_are_their_seed() -> None:
    one, same, other = (world_scenes(26, seed, broken=0.5) for seed in (1, 1, 2))
    captions = [[scene.caption for scene in scenes] for scenes in (one, same, other)]
    assert captions[0] == captions[1] != captions[2]
    assert torch.equal(render(one, 16), render(same, 16))
    assert {scene.violation is None for scene in one} == {True, False}
    assert {scene.violation for scene in world_scenes(26, 1)} == {None}


def test_captions_that_mean_the_same_are_told_from_those_that_do_not() -> None:
    rng = np.random.default_rng(0)
    scenes = [
        sample_scene(name, who, rng)
        for name in ("meet", "hit")
        for who in ((RED, BLUE), (BLUE, RED), (RED, BLUE))
    ]
    assert meanings_of(scenes) == [0, 0, 0, 1, 2, 1]


@pytest.mark.parametrize("make", [world_scenes, flying_scenes])
def test_flow_leads_from_the_first_frame_to_the_second(make: Callable[[int, int], list[Scene]]) -> None:
    """Looking up the second frame where the flow points finds what the first frame shows."""
    scenes = make(26, 3)
    clips = render(scenes)
    flows = flows_of(scenes, 2, (1, 3), 64, 0, "cpu")
    assert len(flows.clip) == 52
    assert set((flows.second - flows.first).tolist()) == {1, 3}
    grid = torch.stack(torch.meshgrid(torch.arange(64), torch.arange(64), indexing="xy"))
    warped, still = [], []
    for i in range(len(flows.clip)):
        x, y = (grid + flows.flow[i].float()).round().long().clamp(0, 63)
        before, after = (clips[flows.clip[i], t[i]].float() for t in (flows.first, flows.second))
        moving = flows.valid[i] & (flows.flow[i].float().norm(dim=0) > 1)
        warped.append((after[y, x] - before).abs()[moving])
        still.append((after - before).abs()[moving])
    assert torch.cat(warped).mean() < 0.5 * torch.cat(still).mean()


def test_much_moves_where_shapes_fly() -> None:
    shares = [
        (flows_of(make(26, 0), 1, (2,), 64, 0, "cpu").flow.norm(dim=1) > 1).float().mean()
        for make in (world_scenes, flying_scenes)
    ]
    assert shares[1] > 3 * shares[0]
    assert all(scene.x.min() >= 0 and scene.x.max() <= 1 for scene in flying_scenes(5, 1))


def test_pick_takes_frames_of_the_clips_asked_for() -> None:
    frames = torch.arange(4, dtype=torch.uint8)[:, None, None, None, None].expand(4, 5, 8, 8, 3) * 60
    picked = pick(frames, torch.tensor([2, 0, 3]), 2, torch.Generator().manual_seed(0))
    assert picked.shape == (3, 2, 3, 8, 8)
    assert picked.mean(dim=(1, 2, 3, 4)).mul(255).round().tolist() == [120, 0, 180]


def test_augmentation_stays_a_picture_and_is_its_seed() -> None:
    frames = torch.rand(6, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    one, same, other = (augment(frames, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == frames.shape
    assert one.min() >= 0
    assert one.max() <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, frames)
