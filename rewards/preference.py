"""Preference rewards: models of which of two pictures people prefer for a prompt, averaged over frames.

    hpsv2      mean over F frames of cos(image(frame), text(prompt))                    in [-1, 1]
    pickscore  mean over F frames of exp(logit scale) cos(image(frame), text(prompt))   in [-100, 100]

HPSv2.1 (Wu et al., 2023, arXiv 2306.09341) is open_clip's ViT-H-14 with other weights, its score the cosine
without the logit scale. PickScore (Kirstain et al., 2023, arXiv 2305.01569, eq. 1) is transformers' CLIPModel
of the same size; its score has the scale, about 100, so that differences are log-odds. Both look at single
frames and never at their order: they say nothing of motion, and a still can please them. Mix them with a
motion floor (`rewards.composite`).

A hub id needs the full commit hash: what a name points to may change, and scores must not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from data.errors import ModelError
from data.keys import digest
from rewards.base import Judgement, LoadedClip, frame_indices, guarded
from rewards.loading import HUB, local_folder, open_pretrained, opening, pinned_identity, resolve_device

if TYPE_CHECKING:
    import torch

# Raise it when the same weights and settings would give other values.
_CODE: Final = 1
# HPSv2.1's architecture, where a folder does not say another; its weights file in a hub repository.
_ARCHITECTURE: Final = "ViT-H-14"
_WEIGHTS: Final = "model.safetensors"
# CLIP's own limit of the learned logit scale (Radford et al., 2021, arXiv 2103.00020, section 2.5).
_MAX_SCALE: Final = 100.0

# uint8 [H, W, 3] each.
Frames = Sequence[NDArray[np.uint8]]
# (N frames, M prompts, index of the prompt of each frame) -> scores, float64 [N]
Scores = Callable[[Frames, Sequence[str], Sequence[int]], NDArray[np.float64]]


@dataclass(frozen=True)
class _Settings:
    """Settings that both have.

    Attributes:
        model: a folder, or a hub id, "hf-hub:org/name".
        revision: commit of a hub id, 40 hex digits; ignored for folders.
        frames: how many frames of a clip are looked at, evenly spread, first and last included.
        batch_size: frames in one forward pass; memory only, not part of the version.
        device: "auto", "cpu", "cuda", "cuda:1"; not part of the version.
    """

    model: str = ""
    revision: str = ""
    frames: int = 8
    batch_size: int = 32
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.frames < 1 or self.batch_size < 1:
            raise ModelError(
                f"preference: frames ({self.frames}) and batch_size ({self.batch_size}) must be at least 1"
            )


@dataclass(frozen=True)
class Hpsv2Settings(_Settings):
    """Settings of `hpsv2`; see `_Settings`.

    The authors publish HPSv2.1 as a pickle, which is not read here. `model` is a copy in safetensors, with
    open_clip's names or all of them after "model.": a folder with `model.safetensors` (and, for another
    architecture than ViT-H-14, `open_clip_config.json`), or a hub repository with that file.
    """

    model: str = "hf-hub:RE-N-Y/hpsv21"


@dataclass(frozen=True)
class PickScoreSettings(_Settings):
    """Settings of `pickscore`; see `_Settings`. `model` holds a CLIPModel with its processor."""

    model: str = "hf-hub:yuvalkirstain/PickScore_v1"
    revision: str = "a4e4367c6dfa7288a00c550414478f865b875800"


def preference_version(name: str, settings: _Settings) -> str:
    """Digest of weights, frame sampling and code; loads nothing. Raises as `pinned_identity`."""
    weights = pinned_identity(name, settings.model, settings.revision)
    return digest([name, _CODE, weights, settings.frames])[:16]


def hpsv2_version(settings: Hpsv2Settings) -> str:
    """See `preference_version`."""
    return preference_version("hpsv2", settings)


def pickscore_version(settings: PickScoreSettings) -> str:
    """See `preference_version`."""
    return preference_version("pickscore", settings)


class Hpsv2Reward:
    """HPSv2.1 over frames; see the module's docstring.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    name: Final = "hpsv2"
    range: Final = (-1.0, 1.0)

    def __init__(self, settings: Hpsv2Settings) -> None:
        import open_clip
        from open_clip.transform import PreprocessCfg, image_transform_v2
        from safetensors.torch import load_file

        self.settings = settings
        self.version = hpsv2_version(settings)
        self.device = resolve_device(settings.device)
        folder = local_folder(settings.model)
        own = folder is not None and (folder / "open_clip_config.json").exists()
        architecture = f"local-dir:{folder}" if own else _ARCHITECTURE
        with opening(self.name, settings.model):
            file = _hub_file(settings) if folder is None else folder / _WEIGHTS
            self.model = open_clip.create_model(architecture, load_weights=False, device=self.device)
            self.model.load_state_dict(_unwrapped(load_file(file)), strict=True)
            self._transform: Any = image_transform_v2(
                PreprocessCfg(**self.model.visual.preprocess_cfg), is_train=False
            )
            self._tokenize: Any = open_clip.get_tokenizer(architecture)
        self.model.eval().requires_grad_(False)

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """Mean of the frames' scores; `detail` has the frame numbers seen and the score of each."""
        return _mean_over_frames(clips, self.settings, self._scores)

    def _scores(self, frames: Frames, texts: Sequence[str], text_of: Sequence[int]) -> NDArray[np.float64]:
        import torch
        from PIL import Image

        pixels = torch.stack([self._transform(Image.fromarray(frame)) for frame in frames])
        with torch.inference_mode():
            images = self.model.encode_image(pixels.to(self.device), normalize=True)
            words = self.model.encode_text(self._tokenize(list(texts)).to(self.device), normalize=True)
        return _cosines(images, words, text_of)


class PickScoreReward:
    """PickScore over frames; see the module's docstring.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    name: Final = "pickscore"
    range: Final = (-_MAX_SCALE, _MAX_SCALE)

    def __init__(self, settings: PickScoreSettings) -> None:
        from transformers import CLIPModel, CLIPProcessor

        self.settings = settings
        self.version = pickscore_version(settings)
        self.device = resolve_device(settings.device)
        self.model, self._processor = open_pretrained(
            CLIPModel, CLIPProcessor, self.name, settings.model, settings.revision, "float32"
        )
        self.model.to(self.device)
        self.scale = float(self.model.logit_scale.exp())

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """Mean of the frames' scores; `detail` has the frame numbers seen and the score of each."""
        return _mean_over_frames(clips, self.settings, self._scores)

    def _scores(self, frames: Frames, texts: Sequence[str], text_of: Sequence[int]) -> NDArray[np.float64]:
        import torch

        asked = self._processor(
            text=list(texts), images=list(frames), padding=True, truncation=True, max_length=77,
            return_tensors="pt", input_data_format="channels_last",
        ).to(self.device)  # fmt: skip
        with torch.inference_mode():
            found = self.model(**asked)
        return self.scale * _cosines(found.image_embeds, found.text_embeds, text_of)


def _mean_over_frames(clips: Sequence[LoadedClip], settings: _Settings, scores: Scores) -> list[Judgement]:
    """A judgement a clip; frames of all clips share the batches."""
    seen = [frame_indices(len(clip.frames), settings.frames) for clip in clips]
    asked = [(clip.frames[i], clip.prompt) for clip, found in zip(clips, seen, strict=True) for i in found]
    values = np.concatenate([_batch(some, scores) for some in _batches(asked, settings.batch_size)])
    ends = np.cumsum([len(found) for found in seen])[:-1]
    return [
        Judgement(float(np.mean(own)), {"frames": found, "scores": own.tolist()})
        for found, own in zip(seen, np.split(values, ends), strict=True)
    ]


def _batch(some: Sequence[tuple[NDArray[np.uint8], str]], scores: Scores) -> NDArray[np.float64]:
    texts = list(dict.fromkeys(prompt for _, prompt in some))
    return scores([frame for frame, _ in some], texts, [texts.index(prompt) for _, prompt in some])


def _batches(
    asked: Sequence[tuple[NDArray[np.uint8], str]], size: int
) -> Iterator[Sequence[tuple[NDArray[np.uint8], str]]]:
    for start in range(0, len(asked), size):
        yield asked[start : start + size]


def _cosines(images: torch.Tensor, words: torch.Tensor, text_of: Sequence[int]) -> NDArray[np.float64]:
    """Of unit image embeddings [N, D] with the unit text embedding [M, D] that each has, float64 [N]."""
    found: NDArray[np.float64] = (images.double() * words.double()[list(text_of)]).sum(-1).cpu().numpy()
    return found


def _unwrapped(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under open_clip's names: published copies hold the model as a part called `model`."""
    if all(name.startswith("model.") for name in state):
        return {name.removeprefix("model."): tensor for name, tensor in state.items()}
    return state


def _hub_file(settings: _Settings) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(settings.model.removeprefix(HUB), _WEIGHTS, revision=settings.revision))
