"""What the rewards of preference share: models of which of two pictures people prefer, averaged over frames.

They look at single frames and never at their order: they say nothing of motion, and a still can please them.
Mix them with a motion floor (`rewards.composite`). A hub id needs the full commit hash: what a name points to
may change, and scores must not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from data.settings import setting
from rewards.base import Judgement, LoadedClip, frame_indices
from rewards.kind import NetworkSettings, version_of
from rewards.loading import pinned_identity

if TYPE_CHECKING:
    import torch

# Raise it when the same weights and settings would give other values.
_CODE: Final = 1

# uint8 [H, W, 3] each.
Frames = Sequence[NDArray[np.uint8]]
# (N frames, M prompts, index of the prompt of each frame) -> scores, float64 [N]
Scores = Callable[[Frames, Sequence[str], Sequence[int]], NDArray[np.float64]]


class PreferenceSettings(NetworkSettings):
    """Settings that all of them have."""

    model: str = setting("", "Model", "Folder or hub id (hf-hub:org/name).", min_length=1)
    revision: str = setting("", "Revision", "Commit of a hub id, 40 hex digits.")
    frames: int = setting(
        8, "Frames", "Looked at, evenly spread over the clip, first and last included.", ge=1, le=1024
    )
    batch_size: int = setting(32, "Batch size", "Frames a forward pass: memory only.", cost_only=True, ge=1)


def preference_version(name: str, settings: PreferenceSettings) -> str:
    """Digest of weights, frame sampling and code; loads nothing. Raises as `pinned_identity`."""
    weights = pinned_identity(name, settings.model, settings.revision)
    return version_of(name, _CODE, settings, weights, "model", "revision")


def mean_over_frames(
    clips: Sequence[LoadedClip], settings: PreferenceSettings, scores: Scores
) -> list[Judgement]:
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


def cosines(images: torch.Tensor, words: torch.Tensor, text_of: Sequence[int]) -> NDArray[np.float64]:
    """Of unit image embeddings [N, D] with the unit text embedding [M, D] that each has, float64 [N]."""
    found: NDArray[np.float64] = (images.double() * words.double()[list(text_of)]).sum(-1).cpu().numpy()
    return found
