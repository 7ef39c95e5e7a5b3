"""CLIP reward: how well single frames match the prompt.

    score = mean over F frames of cos(image(frame), text(prompt))        in [-1, 1]

CLIPScore without its rescaling (Hessel et al., 2021, arXiv 2104.08718, eq. 1) applied frame by frame, as
text-to-video papers do (Furuta et al., 2024, arXiv 2412.02617, section 4). It sees frames, never their
order: it cannot tell a fall from a rise. That is a property of this feedback and not a defect.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from data.device import resolve_device
from data.errors import ModelError
from data.settings import setting
from data.threads import in_threads
from rewards.base import Judgement, LoadedClip, frame_indices, guarded
from rewards.kind import NetworkSettings, RewardKind, always, version_of
from rewards.loading import HUB, local_folder, opening, weights_identity

if TYPE_CHECKING:
    import torch

# Raise it when the same weights and settings would give other values.
_CODE: Final = 1


class ClipSettings(NetworkSettings):
    """The CLIP reward: mean over frames of cosine(frame, prompt)."""

    model: str = setting(
        "ViT-B-32",
        "Model",
        "Folder with open_clip_config.json, safetensors and a tokenizer; or an open_clip architecture or hub "
        "id (hf-hub:org/name).",
        min_length=1,
    )
    pretrained: str = setting(
        "laion2b_s34b_b79k", "Weights", "Tag of an architecture's weights; folders and hub ids have none."
    )
    frames: int = setting(
        6, "Frames", "Looked at, evenly spread over the clip, first and last included.", ge=1, le=1024
    )
    batch_size: int = setting(96, "Batch size", "Frames a forward pass: memory only.", cost_only=True, ge=1)
    precision: Literal["fp32", "bf16", "fp16"] = setting("fp32", "Precision", "16 bit: GPU only.")


def clip_version(settings: ClipSettings) -> str:
    """Digest of weights, frame sampling and code; loads nothing. Raises ModelError for want of weights."""
    weights = weights_identity("clip", settings.model, settings.pretrained)
    return version_of("clip", _CODE, settings, weights, "model", "pretrained")


class ClipReward:
    """Mean cosine of frames and prompt; see the module's docstring for the equation.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    name: Final = "clip"
    range: Final = (-1.0, 1.0)

    def __init__(self, settings: ClipSettings) -> None:
        import open_clip

        self.settings = settings
        self.version = clip_version(settings)
        self.device = resolve_device(settings.device)
        folder = local_folder(settings.model)
        name = settings.model if folder is None else f"local-dir:{folder}"
        named = folder is None and not name.startswith(HUB)
        if named and name not in open_clip.list_models():
            raise ModelError(
                f"clip: {name!r} is neither a folder, nor a hub id ({HUB}org/name), nor an architecture of "
                "open_clip (its list_models() names them)"
            )
        with opening(self.name, settings.model):
            self.model, self._transform = open_clip.create_model_from_pretrained(
                name, settings.pretrained if named else None, precision=settings.precision, device=self.device
            )
            self._tokenize: Callable[[list[str]], torch.Tensor] = open_clip.get_tokenizer(name)
        self.model.eval().requires_grad_(False)
        self._dtype: torch.dtype | None = open_clip.get_input_dtype(settings.precision)

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """One cosine a clip; `detail` has the frame numbers seen and the cosine of each."""
        seen = [frame_indices(len(clip.frames), self.settings.frames) for clip in clips]
        prompts = sorted({clip.prompt for clip in clips})
        text = dict(zip(prompts, self.embed_texts(prompts), strict=True))
        images = self.embed_frames(
            clip.frames[i] for clip, indices in zip(clips, seen, strict=True) for i in indices
        )
        ends = np.cumsum([len(indices) for indices in seen])[:-1]
        judgements = []
        for clip, indices, embedded in zip(clips, seen, np.split(images, ends), strict=True):
            cosines = [float(cosine) for cosine in embedded @ text[clip.prompt]]
            judgements.append(Judgement(float(np.mean(cosines)), {"frames": indices, "cosines": cosines}))
        return judgements

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Unit text embeddings, float64 [N, D]. What exceeds the model's context is cut by its tokenizer."""
        import torch

        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), self.settings.batch_size):
                tokens = self._tokenize(list(texts[start : start + self.settings.batch_size])).to(self.device)
                rows.append(self.model.encode_text(tokens, normalize=True).double().cpu().numpy())
        return np.concatenate(rows)

    def embed_frames(self, frames: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Unit image embeddings, float64 [N, D], of uint8 [H, W, 3] frames, preprocessed as it wants."""
        import torch

        rows, waiting = [], iter(frames)
        while batch := list(itertools.islice(waiting, self.settings.batch_size)):
            pixels = torch.stack(in_threads(self._prepare, batch))
            with torch.inference_mode():
                images = self.model.encode_image(pixels.to(self.device, self._dtype), normalize=True)
            rows.append(images.double().cpu().numpy())
        return np.concatenate(rows)

    def _prepare(self, frame: NDArray[np.uint8]) -> torch.Tensor:
        from PIL import Image

        pixels: torch.Tensor = self._transform(Image.fromarray(frame))
        return pixels


REWARD: Final = RewardKind(
    name="clip",
    settings=ClipSettings,
    build=ClipReward,
    version=clip_version,
    range=ClipReward.range,
    reads="single frames and the prompt",
    uses_gpu=always,
)
