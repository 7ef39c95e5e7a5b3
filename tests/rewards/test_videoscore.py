"""Contract of the VideoScore reward, on a model of the published class with tiny random weights."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from data.errors import UserError
from rewards import LoadedClip, build_reward, reward_version
from rewards.videoscore import ASPECTS, sampled
from tests.tiny_preferences import VIDEOSCORE_PROMPT as PROMPT
from tests.tiny_preferences import build_videoscore
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

Make = Callable[..., LoadedClip]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_videoscore(tmp_path_factory.mktemp("videoscore"))


@pytest.fixture(scope="module")
def settings(folder: Path) -> dict[str, Any]:
    return {"model": str(folder), "dtype": "float32", "frames": 4, "device": "cpu"}


def by_hand(folder: Path, clip: LoadedClip, indices: list[int]) -> list[float]:
    """The five aspects by transformers' own Idefics2Model, with the head's matrix applied to what it says."""
    from transformers import Idefics2Model, Idefics2Processor

    model = Idefics2Model.from_pretrained(folder).eval()
    processor = Idefics2Processor.from_pretrained(folder)
    text = PROMPT.format(text_prompt=clip.prompt) + "<image> " * len(indices)
    inputs = processor(
        text=[text], images=[[Image.fromarray(clip.frames[i]) for i in indices]], return_tensors="pt"
    )
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == 3 * len(indices)
    head = load_file(folder / "model.safetensors")
    with torch.no_grad():
        last = model(**inputs).last_hidden_state[0, -1]
    found: list[float] = (head["score.weight"] @ last + head["score.bias"]).tolist()
    return found


def test_the_aspects_are_those_of_a_plain_idefics2_with_its_head(
    folder: Path, settings: dict[str, Any], noise_clip: Make
) -> None:
    clip = noise_clip(frames=9, height=32, width=24)
    (one,) = build_reward("videoscore", settings).score([clip])
    assert one.detail["frames"] == [0, 2, 4, 6]
    expected = by_hand(folder, clip, [0, 2, 4, 6])
    assert list(one.detail["aspects"]) == list(ASPECTS)
    assert list(one.detail["aspects"].values()) == pytest.approx(expected, abs=1e-5)
    assert one.value == pytest.approx(np.mean(expected), abs=1e-5)
    assert len({round(mark, 4) for mark in expected}) == len(ASPECTS)
    (dynamic,) = build_reward("videoscore", settings | {"aspect": "dynamic"}).score([clip])
    assert dynamic.value == one.detail["aspects"]["dynamic"]


def test_frames_are_taken_as_the_authors_take_them() -> None:
    for total, most in ((33, 16), (49, 48), (16, 16), (5, 16), (81, 48)):
        theirs = np.arange(0, total, total / most) if total > most else np.arange(total)
        assert sampled(total, most) == theirs.astype(int).tolist()


def test_a_clip_has_its_own_value_in_whatever_company(settings: dict[str, Any], noise_clip: Make) -> None:
    clips = [
        noise_clip(seed=0, height=32, width=32),
        replace(noise_clip(seed=0, height=32, width=32), prompt="a blue ball moves to the left"),
        noise_clip(seed=2, frames=1, height=32, width=32),
        noise_clip(seed=3, height=48, width=20, frames=20),
    ]
    judge = build_reward("videoscore", settings)
    together = [one.value for one in judge.score(clips)]
    assert together == [judge.score([clip])[0].value for clip in reversed(clips)][::-1]
    assert len(set(together)) == len(clips)
    assert all(value is not None and math.isfinite(value) for value in together)


def test_the_order_of_frames_matters_and_marks_in_a_prompt_do_not(
    settings: dict[str, Any], noise_clip: Make
) -> None:
    judge = build_reward("videoscore", settings)
    clip = noise_clip(frames=4, height=32, width=32)
    forwards, backwards = judge.score([clip, replace(clip, frames=clip.frames[::-1])])
    assert forwards.value != backwards.value
    (marked,) = judge.score([replace(clip, prompt="a <image> {prompt} moves")])
    assert marked.value is not None, marked.error


def test_what_is_no_video_fails_alone_and_nan_is_no_value(
    folder: Path, settings: dict[str, Any], noise_clip: Make, tmp_path: Path
) -> None:
    good = noise_clip(height=32, width=32)
    bad = replace(good, frames=np.zeros((3, 32, 32), np.uint8))
    one, other = build_reward("videoscore", settings).score([good, bad])
    assert one.value is not None
    assert other.value is None
    assert "expected uint8" in str(other.error)
    broken = shutil.copytree(folder, tmp_path / "broken")
    state = load_file(broken / "model.safetensors")
    state["score.bias"][2] = float("nan")
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    (none,) = build_reward("videoscore", settings | {"model": str(broken)}).score([good])
    assert none.value is None
    assert "not a finite number" in str(none.error)


def test_the_version_follows_weights_prompt_frames_and_aspect(
    folder: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    version = reward_version("videoscore", settings)
    assert build_reward("videoscore", settings).version == version
    assert reward_version("videoscore", settings | {"device": "auto"}) == version
    for changed in ({"frames": 5}, {"aspect": "factual"}, {"dtype": "bfloat16"}):
        assert reward_version("videoscore", settings | changed) != version
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert reward_version("videoscore", settings | {"model": str(moved)}) == version
    (moved / "prompt.txt").write_text("Other words: {prompt}")
    assert reward_version("videoscore", settings | {"model": str(moved)}) != version
    named = {"model": str(moved), "prompt": str(folder / "prompt.txt")}
    assert reward_version("videoscore", settings | named) != reward_version(
        "videoscore", settings | {"model": str(moved)}
    )
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(weights)
    (moved / "prompt.txt").write_text(PROMPT)
    assert reward_version("videoscore", settings | {"model": str(moved)}) != version


def test_a_folder_that_holds_something_else_is_refused_before_anything_is_loaded(
    folder: Path, settings: dict[str, Any], tmp_path: Path, tiny_vlm: Path
) -> None:
    with pytest.raises(UserError, match="qwen2_vl"):
        reward_version("videoscore", settings | {"model": str(tiny_vlm)})
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["id2label"] = {"0": "a", "1": "b"}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="with 2 outputs"):
        reward_version("videoscore", settings | {"model": str(other)})
    (other / "model.safetensors").rename(other / "model.pth")
    with pytest.raises(UserError, match="safetensors"):
        reward_version("videoscore", settings | {"model": str(other)})


def test_a_checkpoint_without_its_head_is_refused_and_not_filled_with_chance(
    folder: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    headless = shutil.copytree(folder, tmp_path / "headless")
    state = load_file(headless / "model.safetensors")
    save_file(
        {name: value for name, value in state.items() if not name.startswith("score.")},
        headless / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    with pytest.raises(UserError, match=r"lack 2 keys \(score\.bias, score\.weight\)"):
        build_reward("videoscore", settings | {"model": str(headless)})


def test_words_and_commit_are_asked_for(settings: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="40 hex digits"):
        reward_version("videoscore", {})
    with pytest.raises(UserError, match=r"videoscore\.prompt"):
        reward_version("videoscore", {"revision": "a" * 40})
    (tmp_path / "bare.txt").write_text("Mark this video.")
    with pytest.raises(UserError, match="place of the clip's own"):
        reward_version("videoscore", settings | {"prompt": str(tmp_path / "bare.txt")})
    with pytest.raises(UserError, match="should be 'mean'"):
        reward_version("videoscore", settings | {"aspect": "beauty"})
