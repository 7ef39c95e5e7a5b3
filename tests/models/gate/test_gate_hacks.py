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
from models.gate.settings import GateSettings
from models.gate.verdict import Paired
from rewards.flicker import flicker
from rewards.motion import MotionSettings, motion
from rewards.sharpness import sharpness

Clips = npt.NDArray[np.uint8]
SETTINGS = GateSettings()
EACH = 4
PROMPTS = prompt_set("heldout")[::2]


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
    settings = MotionSettings(pairs=2)
    return {
        "motion": np.array([motion(clip, 8.0, settings) for clip in clips]),
        "sharpness": np.array([sharpness(clip) for clip in clips]),
        "flicker": np.array([flicker(clip) for clip in clips]),
        "diversity": np.array([of_prompt[prompt.prompt_id] for prompt in PROMPTS], dtype=np.float64),
    }


@pytest.fixture(scope="module")
def before() -> Measures:
    return measured(rendered(1))


@pytest.fixture(scope="module")
def true() -> Clips:
    return rendered(2)


def broken(before: Measures, clips: Clips) -> set[str]:
    after = measured(clips)
    found = set()
    for name in before:
        each = 1 if name == "diversity" else EACH
        prompts = tuple(prompt.prompt_id for prompt in PROMPTS for _ in range(each))
        kinds = tuple(prompt.category for prompt in PROMPTS for _ in range(each))
        paired = Paired(name, before[name], after[name], prompts, kinds)
        if verdict.guard(paired, SETTINGS, rising=name == "flicker").ok is False:
            found.add(name)
    return found


def test_other_clips_of_the_true_renderer_break_no_guard(before: Measures, true: Clips) -> None:
    assert broken(before, true) == set()


def test_frozen_clips_break_motion(before: Measures, true: Clips) -> None:
    assert "motion" in broken(before, np.repeat(true[:, :1], true.shape[1], axis=1))


def test_blurred_clips_break_sharpness(before: Measures, true: Clips) -> None:
    blurred = np.array([[cv2.GaussianBlur(frame, (7, 7), 1.5) for frame in clip] for clip in true])
    assert "sharpness" in broken(before, blurred)


def test_one_clip_a_prompt_breaks_diversity(before: Measures, true: Clips) -> None:
    assert broken(before, np.repeat(true[::EACH], EACH, axis=0)) == {"diversity"}


def test_flashing_clips_break_flicker(before: Measures, true: Clips) -> None:
    flashing = true.astype(np.float64)
    flashing[:, ::2] *= 0.8
    assert "flicker" in broken(before, flashing.astype(np.uint8))
