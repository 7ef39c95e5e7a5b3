"""What the rewards share that compare single frames with the prompt, as a two-tower model embeds them.

    value = mean over F frames of scale * cos(image(frame), text(prompt))

They look at single frames and never at their order: they say nothing of motion, and a still can please them.
Mix them with a motion floor (`rewards.composite`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.device import resolve_device
from data.settings import setting
from data.threads import in_threads
from rewards.base import Judgement, LoadedClip, frame_indices, guarded
from rewards.kind import NetworkSettings, version_of
from rewards.loading import pinned_identity

if TYPE_CHECKING:
    import torch

Frame = NDArray[np.uint8]  # [H, W, 3]
# Raise it when the same weights and settings would give other values.
_CODE = 1


class FramesSettings(NetworkSettings):
    """Settings that all of them have."""

    frames: int = setting(
        8, "Frames", "Looked at, evenly spread over the clip, first and last included.", ge=1, le=1024
    )
    batch_size: int = setting(32, "Batch size", "Frames a forward pass: memory only.", cost_only=True, ge=1)


class PreferenceSettings(FramesSettings):
    """Settings of the models of what people prefer in pictures."""

    model: str = setting("", "Model", "Folder or hub id (hf-hub:org/name).", min_length=1)
    revision: str = setting("", "Revision", "Commit of a hub id, 40 hex digits.")


def preference_version(name: str, settings: PreferenceSettings) -> str:
    """Digest of weights, frame sampling and code; loads nothing. Raises as `pinned_identity`."""
    weights = pinned_identity(name, settings.model, settings.revision)
    return version_of(name, _CODE, settings, weights, "model", "revision")


class SimilarityReward:
    """Base of these rewards; see the module's docstring. A class of its own loads its model, and embeds."""

    name: str
    range: tuple[float, float]
    scale = 1.0
    each = "scores"
    """What `detail` calls the frames' values."""

    def __init__(self, settings: Any, version: str) -> None:
        self.settings = settings
        self.version = version
        self.device = resolve_device(settings.device)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit embeddings [N, D]. What exceeds the model's context is cut by its tokenizer."""
        raise NotImplementedError

    def encode_frames(self, frames: Sequence[Frame]) -> torch.Tensor:
        """Unit embeddings [N, D] of frames, uint8 [H, W, 3] each, preprocessed as the model wants."""
        raise NotImplementedError

    @guarded
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """One mean a clip; `detail` has the frame numbers seen and the value of each."""
        seen = [frame_indices(len(clip.frames), self.settings.frames) for clip in clips]
        prompts = sorted({clip.prompt for clip in clips})
        text = dict(zip(prompts, self.embed_texts(prompts), strict=True))
        images = self.embed_frames(
            clip.frames[i] for clip, indices in zip(clips, seen, strict=True) for i in indices
        )
        ends = np.cumsum([len(indices) for indices in seen])[:-1]
        judgements = []
        for clip, indices, embedded in zip(clips, seen, np.split(images, ends), strict=True):
            values = [float(value) for value in self.scale * (embedded @ text[clip.prompt])]
            judgements.append(Judgement(float(np.mean(values)), {"frames": indices, self.each: values}))
        return judgements

    def embed_texts(self, texts: Iterable[str]) -> NDArray[np.float64]:
        """`encode_texts` in batches, float64 [N, D]."""
        return self._embedded(self.encode_texts, texts)

    def embed_frames(self, frames: Iterable[Frame]) -> NDArray[np.float64]:
        """`encode_frames` in batches, float64 [N, D]."""
        return self._embedded(self.encode_frames, frames)

    def _embedded(
        self, encode: Callable[[Sequence[Any]], torch.Tensor], items: Iterable[Any]
    ) -> NDArray[np.float64]:
        import torch

        rows, waiting = [], iter(items)
        with torch.inference_mode():
            while batch := list(islice(waiting, self.settings.batch_size)):
                rows.append(encode(batch).double().cpu().numpy())
        return np.concatenate(rows)


class OpenClipReward(SimilarityReward):
    """One whose model is open_clip's."""

    model: Any
    transform: Callable[[Any], torch.Tensor]
    tokenize: Callable[[Any], torch.Tensor]
    dtype: torch.dtype | None = None

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """See `SimilarityReward.encode_texts`."""
        found: torch.Tensor = self.model.encode_text(self.tokenize(texts).to(self.device), normalize=True)
        return found

    def encode_frames(self, frames: Sequence[Frame]) -> torch.Tensor:
        """See `SimilarityReward.encode_frames`."""
        import torch
        from PIL import Image

        pixels = torch.stack(in_threads(lambda frame: self.transform(Image.fromarray(frame)), frames))
        found: torch.Tensor = self.model.encode_image(pixels.to(self.device, self.dtype), normalize=True)
        return found
