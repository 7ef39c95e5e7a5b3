import numpy as np
import pytest
import torch

from miniature.world.catalog import BACKGROUND, COLOURS, MATTE, TEMPLATES, Subject
from miniature.world.render import render, true_flow
from miniature.world.scene import random_subjects, sample_scene


@pytest.fixture
def scenes():
    rng = np.random.default_rng(7)
    return [sample_scene(name, random_subjects(name, rng), rng) for name in TEMPLATES]


def one(name="move_right", shape="ball", seed=0, **kwargs):
    return sample_scene(name, (Subject("red", shape),), np.random.default_rng(seed), **kwargs)


def test_frames_are_uint8_of_the_size_asked_for(scenes):
    assert render(scenes).shape == (len(scenes), 17, 64, 64, 3)
    assert render(scenes[:2], (48, 80)).shape == (2, 17, 48, 80, 3)
    assert render(scenes[:1]).dtype == torch.uint8


def test_the_same_seed_gives_the_same_pixels_alone_and_in_a_batch(scenes):
    together = render(scenes, 32)
    for scene, frames in zip(scenes, together, strict=True):
        assert torch.equal(render([scene], 32)[0], frames)


def test_chunks_do_not_show(scenes):
    """At 256 x 256 only a few clips fit a chunk."""
    many = scenes[:5]
    assert torch.equal(render(many, 256), torch.cat([render([s], 256) for s in many]))


def test_the_picture_is_the_same_at_every_size(scenes):
    some = scenes[::2]
    small, large = render(some, 64).float(), render(some, 256).float()
    shrunk = large.unflatten(2, (64, 4)).unflatten(4, (64, 4)).mean(dim=(3, 5))
    assert (small - shrunk).abs().mean() < 0.3
    assert ((small - shrunk).abs() > 24).float().mean() < 0.001


@pytest.mark.parametrize("shape", ["ball", "square", "triangle"])
@pytest.mark.parametrize("size", [40, 64, 200])
def test_anti_aliasing_gives_the_exact_area(shape, size):
    scene = one(shape=shape)
    frames = render([scene], size)[0].double() / 255
    background, red = ((torch.tensor(c) * 255).round().double() / 255 for c in (BACKGROUND, COLOURS["red"]))
    line = red - background  # as they are after rounding to 8 bits
    alpha = ((frames - background) @ line / (line @ line)).clamp(0, 1)
    area = alpha.sum(dim=(1, 2)) / size**2
    share = {"ball": np.pi / 4, "square": 1.0, "triangle": 0.5}[shape]
    true = share * 4 * torch.from_numpy(scene.rx[0] * scene.ry[0]).double()
    torch.testing.assert_close(area, true, rtol=0.012, atol=0)
    assert ((alpha > 0.02) & (alpha < 0.98)).any(dim=2).any(dim=1).all()  # soft edges in every frame


def test_a_motion_of_a_tenth_of_a_pixel_can_be_seen():
    a, b = one(), one()
    b.x[:] += 0.1 / 64
    moved = (render([a]).int() - render([b]).int()).abs()
    assert moved.max() > 10
    assert moved.max() < 60


def test_outside_the_stage_is_matte():
    frames = render([one()], (32, 64))[0]
    matte = torch.tensor([round(255 * v) for v in MATTE], dtype=torch.uint8)
    assert (frames[:, :, :16] == matte).all()
    assert (frames[:, :, 48:] == matte).all()
    assert torch.equal(frames[:, :, 16:48], render([one()], 32)[0])


def test_what_cannot_be_rendered_is_refused():
    with pytest.raises(ValueError, match="no scenes"):
        render([])
    with pytest.raises(ValueError, match="same number of frames"):
        render([one(), one(frames=9)])
    with pytest.raises(ValueError, match="too small"):
        render([one()], 4)


def test_the_true_flow_of_a_translation_is_its_displacement():
    scene = one("move_diagonal", "square")
    flow, valid = true_flow([scene], 3, 7, 64)
    dx, dy = 64 * (scene.x[0, 7] - scene.x[0, 3]), 64 * (scene.y[0, 7] - scene.y[0, 3])
    cx, cy = int(64 * scene.x[0, 3]), int(64 * scene.y[0, 3])
    inside = flow[0, :, cy - 4 : cy + 4, cx - 4 : cx + 4]
    torch.testing.assert_close(inside[0], torch.full((8, 8), float(dx)), atol=1e-3, rtol=0)
    torch.testing.assert_close(inside[1], torch.full((8, 8), float(dy)), atol=1e-3, rtol=0)
    assert (flow[0, :, :8, :8] == 0).all()
    assert valid.all()


def test_the_true_flow_leads_to_the_same_colour(scenes):
    """Warping frame 5 back along the flow gives frame 4, away from edges and from what is hidden in frame 5."""
    size = 128
    frames = render(scenes, size).permute(0, 1, 4, 2, 3).float()
    flow, valid = true_flow(scenes, 4, 5, size)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    grid = torch.stack([x + flow[:, 0] + 0.5, y + flow[:, 1] + 0.5], dim=-1) / size * 2 - 1
    warped = torch.nn.functional.grid_sample(frames[:, 5], grid, align_corners=False)
    moving = valid & (flow.abs().sum(dim=1) > 0.3)
    wrong = ((warped - frames[:, 4]).abs().amax(dim=1) > 60) & moving
    assert moving.sum() > 10_000
    assert wrong.sum() / moving.sum() < 0.04


def test_the_true_flow_takes_a_time_for_each_scene_and_marks_what_is_gone(scenes):
    both, _ = true_flow(scenes[:2], [0, 4], [1, 9], 32)
    for i, (a, b) in enumerate(((0, 1), (4, 9))):
        assert torch.equal(both[i], true_flow([scenes[i]], a, b, 32)[0][0])
    gone = sample_scene("move_right", (Subject("red", "ball"),), np.random.default_rng(0), "vanishes")
    _, valid = true_flow([gone], 0, 16)
    assert 100 < (~valid).sum() < 400
