import numpy as np
import pytest

from data.errors import UserError
from miniature.world.catalog import FLOOR, TEMPLATES, VIOLATIONS, Subject
from miniature.world.checks import CRITERIA
from miniature.world.draft import PALETTE
from miniature.world.scene import random_subjects, sample_scene
from miniature.world.trajectories import MOTIONS

ALL = [(name, violation) for name, t in TEMPLATES.items() for violation in (None, *t.violations)]


def sample(name, violation=None, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    return sample_scene(name, random_subjects(name, rng), rng, violation, **kwargs)


def row(scene, subject=0):
    return int(np.nonzero(scene.colour[:, 0] == PALETTE.index(scene.subjects[subject].colour))[0][0])


def test_every_template_has_a_motion_and_a_criterion():
    assert list(MOTIONS) == list(CRITERIA) == list(TEMPLATES)


@pytest.mark.parametrize(("name", "violation"), ALL)
def test_a_scene_is_finite_and_of_one_shape(name, violation):
    for frames in (17, 9):
        scene = sample(name, violation, frames=frames)
        assert scene.frames == frames
        assert scene.violation == violation
        for values in (scene.x, scene.y, scene.rx, scene.ry):
            assert values.shape == scene.visible.shape == scene.colour.shape == scene.shape.shape
            assert np.isfinite(values).all()
        assert (scene.rx > 0).all()
        assert (scene.ry > 0).all()


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_same_seed_gives_the_same_scene_and_another_seed_another(name):
    a, b, c = sample(name, seed=3), sample(name, seed=3), sample(name, seed=4)
    for field in ("x", "y", "rx", "ry", "visible", "colour", "shape"):
        assert np.array_equal(getattr(a, field), getattr(b, field))
    assert a.subjects == b.subjects
    assert a.x.shape != c.x.shape or not np.array_equal(a.x, c.x)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_right_scene_stays_in_the_picture_until_it_is_taken_away(name):
    for seed in range(30):
        scene = sample(name, seed=seed)
        for subject in range(len(scene.subjects)):
            if TEMPLATES[name].category == "object removal" and subject == 0:
                continue
            i = row(scene, subject)
            assert (scene.x[i] - scene.rx[i] > -0.001).all()
            assert (scene.x[i] + scene.rx[i] < 1.001).all()
            assert (scene.y[i] - scene.ry[i] > -0.001).all()
            assert (scene.y[i] + scene.ry[i] < FLOOR + 0.101).all()


@pytest.mark.parametrize("name", [n for n, t in TEMPLATES.items() if t.category == "deformable objects"])
def test_a_right_deformation_keeps_the_area(name):
    scene = sample(name)
    area = (scene.rx * scene.ry)[row(scene)]
    np.testing.assert_allclose(area, area[0], rtol=1e-5)
    broken = sample(name, "changes_area")
    area = (broken.rx * broken.ry)[row(broken)]
    assert np.abs(np.log(area / area[0])).max() > 0.3


def test_a_violation_breaks_what_it_names():
    scene = sample("move_right", "changes_colour")
    assert len(set(scene.colour[0])) == 2
    assert len(set(scene.shape[0])) == 1
    scene = sample("move_right", "changes_shape")
    assert len(set(scene.shape[0])) == 2
    assert len(set(scene.colour[0])) == 1
    scene = sample("move_right", "vanishes")
    assert scene.visible[0, 0]
    assert not scene.visible[0, -1]
    scene = sample("move_right", "duplicates")
    assert scene.visible[:, 0].sum() == 1
    assert scene.visible[:, -1].sum() == 2
    scene = sample("move_right", "stops_midway")
    assert (np.diff(scene.x[0]) > 0).any()
    assert (np.diff(scene.x[0])[-5:] == 0).all()
    scene = sample("move_right", "turns_back")
    assert (np.diff(scene.x[0]) > 0).any()
    assert (np.diff(scene.x[0]) < 0).any()
    scene = sample("move_right", "wrong_way")
    assert (np.diff(scene.x[0]) < 0).all()
    scene = sample("hit", "loses_momentum")
    assert np.ptp(scene.x[row(scene, 1)]) == 0
    scene = sample("squeeze", "grows")
    i = row(scene)
    assert (scene.rx * scene.ry)[i, -1] > 1.8 * (scene.rx * scene.ry)[i, 0]


def test_every_violation_is_used():
    assert set(VIOLATIONS) == {v for t in TEMPLATES.values() for v in t.violations}


def test_what_cannot_be_sampled_is_refused_with_the_reason():
    rng = np.random.default_rng(0)
    ball = Subject("red", "ball")
    with pytest.raises(UserError, match="unknown template 'explode'"):
        sample_scene("explode", (ball,), rng)
    with pytest.raises(UserError, match="does not apply to 'bounce'"):
        sample_scene("bounce", (ball,), rng, "never_leaves")
    with pytest.raises(UserError, match="does not allow the subjects red ball, red ball"):
        sample_scene("hit", (ball, ball), rng)
    with pytest.raises(UserError, match="does not allow"):
        sample_scene("bounce", (Subject("pink", "ball"),), rng)
    with pytest.raises(UserError, match="at least 2 frames"):
        sample_scene("bounce", (ball,), rng, frames=1)
