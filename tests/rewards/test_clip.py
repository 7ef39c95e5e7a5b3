from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import UserError
from rewards import LoadedClip, build_reward, reward_kind
from rewards.clip import ClipReward, ClipSettings
from tests.miniature_rewards import CLIP

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[..., LoadedClip]


@pytest.fixture(scope="module")
def clip_reward() -> ClipReward:
    return ClipReward(ClipSettings(**CLIP, device="cpu"))


def value(reward: ClipReward, clip: LoadedClip) -> float:
    judged = reward.score([clip])[0]
    assert judged.value is not None, judged.error
    return judged.value


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("a red ball moves to the left", "a blue ball moves to the left"),
        ("a red ball moves to the left", "a red square moves to the left"),
        ("a red ball moves to the left", "a hand lifts the green square beside the cyan triangle"),
    ],
)
def test_the_caption_of_what_is_shown_scores_higher(
    right: str, wrong: str, clip_reward: ClipReward, world_clip: Make
) -> None:
    clip = world_clip("move_left", "red ball", seed=3)
    assert clip.prompt == right
    assert value(clip_reward, clip) > 0.1 + value(clip_reward, replace(clip, prompt=wrong))


def test_values_are_cosines_whatever_the_clip_and_the_prompt(
    clip_reward: ClipReward, noise_clip: Make
) -> None:
    clips = [noise_clip(seed=i) for i in range(3)]
    clips += [
        noise_clip(frames=1),
        noise_clip(height=40, width=90),
        noise_clip(height=300, width=200, frames=2),
    ]
    clips += [replace(noise_clip(), prompt=prompt) for prompt in ("", "zzz", "a dog \N{DOG}", "word " * 1000)]
    for judged in clip_reward.score(clips):
        assert judged.value is not None
        assert -1 <= judged.value <= 1


def test_the_detail_names_the_frames_and_their_cosines(clip_reward: ClipReward, world_clip: Make) -> None:
    judged = clip_reward.score([world_clip()])[0]
    assert judged.detail["frames"] == [0, 3, 6, 10, 13, 16]
    assert np.mean(judged.detail["cosines"]) == pytest.approx(judged.value)


def test_a_batch_gives_what_single_clips_give(
    clip_reward: ClipReward, world_clip: Make, noise_clip: Make
) -> None:
    clips = [
        world_clip(seed=1),
        noise_clip(frames=3),
        world_clip("squeeze", "cyan ball"),
        noise_clip(height=96),
    ]
    small = ClipReward(ClipSettings(**CLIP, device="cpu", batch_size=5))
    together = [judged.value for judged in small.score(clips)]
    assert together == pytest.approx([value(clip_reward, clip) for clip in clips], abs=1e-5)


def test_the_order_of_frames_is_invisible(clip_reward: ClipReward, world_clip: Make) -> None:
    clip = world_clip("move_left", "red ball")
    backward = replace(clip, frames=np.ascontiguousarray(clip.frames[::-1]))
    assert value(clip_reward, backward) == pytest.approx(value(clip_reward, clip), abs=1e-5)


def test_it_is_open_clips_cosine_of_frames_and_prompt(clip_reward: ClipReward, world_clip: Make) -> None:
    """The folder loads with open_clip alone, and its features give the same number."""
    import open_clip

    clip, name = world_clip(size=96), f"local-dir:{ROOT / clip_reward.settings.model}"
    model, transform = open_clip.create_model_from_pretrained(name)
    model.eval()
    with torch.no_grad():
        images = torch.stack([transform(Image.fromarray(clip.frames[i])) for i in (0, 3, 6, 10, 13, 16)])
        image = model.encode_image(images, normalize=True)
        text = model.encode_text(open_clip.get_tokenizer(name)([clip.prompt]), normalize=True)
    assert value(clip_reward, clip) == pytest.approx(float((image @ text.T).mean()), abs=1e-5)


def test_an_architecture_without_weights_is_refused() -> None:
    with pytest.raises(UserError, match="ViT-S-32-alt"):
        build_reward("clip", {"model": "ViT-S-32-alt", "device": "cpu"})


def test_what_is_longer_than_the_context_is_told_by_the_tokenizers_own_count(
    clip_reward: ClipReward, noise_clip: Make
) -> None:
    import open_clip

    tokenizer = open_clip.get_tokenizer(f"local-dir:{ROOT / clip_reward.settings.model}")
    fits, cut = "ball " * 19, "ball " * 20
    assert [int((tokenizer([text]) != 0).sum()) for text in (fits, cut)] == [20, 20]
    first, second = clip_reward.score([replace(noise_clip(), prompt=text) for text in (fits, cut)])
    assert first.value == pytest.approx(second.value, abs=1e-6)  # the rest of it was not read
    assert "prompt_tokens" not in first.detail
    assert (second.detail["prompt_tokens"], second.detail["prompt_limit"]) == (21, 20)


def test_an_architecture_of_open_clip_reads_77_tokens() -> None:
    limit = reward_kind("clip").text_limit(ClipSettings())
    assert limit.tokens == 77
    assert limit.cuts(["a ball " * 37, "a ball " * 37 + "falls", "a ball " * 38 + "falls"]) == {
        "a ball " * 38 + "falls": 79
    }


def test_the_tokenizer_of_a_hub_id_that_was_not_fetched_is_not_known() -> None:
    assert reward_kind("clip").text_limit(ClipSettings(model="hf-hub:nobody/nothing")) is None
