"""Contract of the preference rewards, on models of the published classes with tiny random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from data.errors import UserError
from rewards import LoadedClip, build_reward, reward_version
from tests.tiny_preferences import TEXT, build_hpsv2, build_pickscore

Make = Callable[..., LoadedClip]


@pytest.fixture(scope="module")
def hpsv2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_hpsv2(tmp_path_factory.mktemp("hpsv2"))


@pytest.fixture(scope="module")
def pickscore_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_pickscore(tmp_path_factory.mktemp("pickscore"))


@pytest.fixture(params=["hpsv2", "pickscore"])
def named(request: pytest.FixtureRequest) -> tuple[str, Path]:
    folder: Path = request.getfixturevalue(f"{request.param}_folder")
    return request.param, folder


def test_hpsv2_is_the_mean_cosine_of_the_frames_without_the_logit_scale(
    hpsv2_folder: Path, noise_clip: Make, tmp_path: Path
) -> None:
    import open_clip

    plain = tmp_path / "plain"
    shutil.copytree(hpsv2_folder, plain)
    weights = {k.removeprefix("model."): v for k, v in load_file(plain / "model.safetensors").items()}
    (plain / "model.safetensors").unlink()
    save_file(weights, plain / "open_clip_model.safetensors")
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{plain}")
    tokens = open_clip.get_tokenizer(f"local-dir:{plain}")([TEXT])
    clip = noise_clip(frames=5)
    judged = build_reward("hpsv2", {"model": str(hpsv2_folder), "frames": 3}).score([clip])[0]
    assert judged.detail["frames"] == [0, 2, 4]
    with torch.inference_mode():
        text = model.eval().encode_text(tokens, normalize=True)[0]
        expected = [
            float(
                model.encode_image(transform(Image.fromarray(clip.frames[i]))[None], normalize=True)[0] @ text
            )
            for i in (0, 2, 4)
        ]
    assert judged.detail["scores"] == pytest.approx(expected, abs=1e-6)
    assert judged.value == pytest.approx(np.mean(expected), abs=1e-6)


def test_pickscore_is_the_mean_of_the_models_own_logits(pickscore_folder: Path, noise_clip: Make) -> None:
    from transformers import CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(pickscore_folder).eval()
    processor = CLIPProcessor.from_pretrained(pickscore_folder)
    clip = noise_clip(frames=5, height=40, width=64)
    judged = build_reward("pickscore", {"model": str(pickscore_folder), "frames": 3}).score([clip])[0]
    expected = []
    for i in (0, 2, 4):
        asked = processor(text=[TEXT], images=[Image.fromarray(clip.frames[i])], return_tensors="pt")
        with torch.inference_mode():
            expected.append(float(model(**asked).logits_per_image[0, 0]))
    assert judged.detail["scores"] == pytest.approx(expected, abs=1e-4)
    assert judged.value == pytest.approx(np.mean(expected), abs=1e-4)
    # The scale is in it: cosines alone would all be below 1.
    assert max(map(abs, expected)) > 1


def test_a_clip_has_its_own_value_in_whatever_company(named: tuple[str, Path], noise_clip: Make) -> None:
    name, folder = named
    clips = [
        noise_clip(seed=0),
        replace(noise_clip(seed=1), prompt="a blue ball moves to the left"),
        noise_clip(seed=2, frames=1),
        noise_clip(seed=3, height=90, width=50, frames=20),
    ]
    together = build_reward(name, {"model": str(folder), "batch_size": 5}).score(clips)
    alone = build_reward(name, {"model": str(folder), "batch_size": 1})
    values = [alone.score([clip])[0].value for clip in clips]
    assert [one.value for one in together] == pytest.approx(values, abs=1e-4)
    assert len(set(values)) == len(values)
    other = alone.score([replace(clips[0], prompt=clips[1].prompt)])[0].value
    assert other != values[0]


def test_the_version_follows_weights_and_frames_and_not_the_batch(
    named: tuple[str, Path], tmp_path: Path
) -> None:
    name, folder = named
    version = reward_version(name, {"model": str(folder)})
    assert build_reward(name, {"model": str(folder)}).version == version
    assert reward_version(name, {"model": str(folder), "batch_size": 3, "device": "cpu"}) == version
    assert reward_version(name, {"model": str(folder), "frames": 3}) != version
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert reward_version(name, {"model": str(moved)}) == version
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(weights)
    assert reward_version(name, {"model": str(moved)}) != version


def test_a_hub_id_needs_a_commit_and_another_commit_is_another_version(named: tuple[str, Path]) -> None:
    name, _ = named
    for revision in ("", "main", "496c065"):
        with pytest.raises(UserError, match="40 hex digits"):
            reward_version(name, {"revision": revision})
    first, second = (reward_version(name, {"revision": digit * 40}) for digit in "ab")
    assert first != second


def test_only_safetensors_are_read_and_they_must_fit(named: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = named
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        build_reward(name, {"model": str(pickled)})
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="is no safetensors file"):
        build_reward(name, {"model": str(damaged)})


def test_hpsv2_takes_no_weights_of_another_shape(hpsv2_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(hpsv2_folder, tmp_path / "other")
    config = json.loads((other / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["layers"] += 1
    (other / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"lack 12 keys \(visual\.transformer\.resblocks"):
        build_reward("hpsv2", {"model": str(other)})


def test_what_its_text_encoder_cuts_is_told(named: tuple[str, Path], noise_clip: Make) -> None:
    name, folder = named
    clips = [noise_clip(), replace(noise_clip(), prompt="ball " * 80)]
    short, long = build_reward(name, {"model": str(folder)}).score(clips)
    assert "prompt_tokens" not in short.detail
    tokens = {"hpsv2": (81, 20), "pickscore": (82, 77)}[name]
    assert (long.detail["prompt_tokens"], long.detail["prompt_limit"]) == tokens
