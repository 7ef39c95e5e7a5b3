"""The gate against planted hacks, on frames of the real renderer and measured by the real guards."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from miniature.world.catalog import parse
from miniature.world.prompts import prompt_set
from miniature.world.render import render
from miniature.world.scene import sample_scene
from models.gate import verdict
from models.gate.settings import DIVERSITY, DIVERSITY_WITHIN, GateSettings
from models.gate.verdict import Paired
from rewards import LoadedClip, build_reward, reward_kind
from tasks.settings import EvaluateSettings

Clips = npt.NDArray[np.uint8]
EACH = 4
PROMPTS = prompt_set("heldout")[::3]


def rendered(seed: int) -> Clips:
    """EACH true clips of every prompt: uint8 [N, 17, 48, 48, 3]."""
    rng = np.random.default_rng(seed)
    scenes = []
    for prompt in PROMPTS:
        known = parse(prompt.text)
        assert known is not None
        scenes += [sample_scene(known.template, known.subjects, rng) for _ in range(EACH)]
    return render(scenes, size=48).numpy()


Measures = dict[str, npt.NDArray[np.float64]]


def measured(clips: Clips) -> Measures:
    """Per clip, and for diversity per prompt."""
    of_prompt = verdict.diversity(
        clips[:, ::4, ::4, ::4] / 255.0, [prompt.prompt_id for prompt in PROMPTS for _ in range(EACH)]
    )
    loaded = [LoadedClip("c", "", clip, 8.0) for clip in clips]
    found = {DIVERSITY: np.array([of_prompt[prompt.prompt_id] for prompt in PROMPTS], dtype=np.float64)}
    for name in EvaluateSettings().guards:
        if name != DIVERSITY:
            judged = build_reward(name).score(loaded)
            found[name] = np.array([one.value for one in judged], dtype=np.float64)
    return found


@pytest.fixture(scope="module")
def before() -> Measures:
    return measured(rendered(1))


@pytest.fixture(scope="module")
def true() -> Clips:
    return rendered(2)


def broken(before: Measures, clips: Clips) -> set[str]:
    after = measured(clips)
    pairs = []
    for name in before:
        each = 1 if name == DIVERSITY else EACH
        prompts = tuple(prompt.prompt_id for prompt in PROMPTS for _ in range(each))
        kinds = tuple(prompt.category for prompt in PROMPTS for _ in range(each))
        pairs.append(Paired(name, before[name], after[name], prompts, kinds))
    within = {name: DIVERSITY_WITHIN if name == DIVERSITY else reward_kind(name).within for name in before}
    found = verdict.decide(pairs[0], pairs, GateSettings(), within)
    return {name for name, one in found.guards.items() if one.ok is False}


def test_other_clips_of_the_true_renderer_break_no_guard(before: Measures, true: Clips) -> None:
    assert broken(before, true) == set()


def test_frozen_clips_break_motion(before: Measures, true: Clips) -> None:
    assert "motion" in broken(before, np.repeat(true[:, :1], true.shape[1], axis=1))


def test_blurred_clips_break_sharpness(before: Measures, true: Clips) -> None:
    blurred = np.array([[cv2.GaussianBlur(frame, (7, 7), 1.5) for frame in clip] for clip in true])
    assert "sharpness" in broken(before, blurred)


def test_one_clip_a_prompt_breaks_diversity(before: Measures, true: Clips) -> None:
    assert "diversity" in broken(before, np.repeat(true[::EACH], EACH, axis=0))


def test_flashing_clips_break_flicker(before: Measures, true: Clips) -> None:
    flashing = true.astype(np.float64)
    flashing[:, ::2] *= 0.8
    assert "flicker" in broken(before, flashing.astype(np.uint8))


def test_grey_and_dark_clips_break_colour_and_luma(before: Measures, true: Clips) -> None:
    grey = np.broadcast_to(true.mean(axis=-1, keepdims=True), true.shape)
    assert {"colour", "luma"} <= broken(before, (0.8 * grey).astype(np.uint8))


def test_pixels_that_shake_break_motion(before: Measures, true: Clips) -> None:
    shifts = np.random.default_rng(3).integers(-2, 3, size=(true.shape[1], 2))
    shaken = np.stack([np.roll(true[:, i], shift, axis=(1, 2)) for i, shift in enumerate(shifts)], axis=1)
    assert "motion" in broken(before, shaken)
