"""Quality of a CLIP of the world, as its files have it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from miniature.train.reward_corpus import meanings_of, world_scenes
from miniature.world.catalog import COLOURS, TEMPLATES, Subject, allows, caption, parse
from miniature.world.render import render
from rewards.base import frame_indices
from rewards.calibration import auc
from rewards.clip import ClipReward, ClipSettings

Floats = NDArray[np.floating[Any]]

MEANING: Final = {
    "colour accuracy": "right colour of the first object among all that the caption allows, top 1",
    "colour chance": "the same by guessing",
    "shape accuracy": "right shape of the first object, top 1",
    "shape chance": "the same by guessing",
    "template accuracy": "right template among all that fit the same objects, top 1 (it cannot see motion)",
    "template chance": "the same by guessing",
    "cosine right": "mean reward of a clip with its own caption",
    "cosine wrong": "mean reward of a clip with another clip's caption",
    "auc": "probability that its own caption scores higher than another's clip's",
    "auc of direction": "moves to the left or to the right: 0.5 is blind to it",
}
CLIPS: Final = 780
_SEED: Final = 990_001  # no training run uses it


def measure_clip(folder: Path, device: str = "auto", clips: int = CLIPS) -> dict[str, float]:
    """The figures of `MEANING` on `clips` held-out clips, as the reward computes them from `folder`."""
    reward = ClipReward(ClipSettings(model=str(folder), device=device))
    scenes = world_scenes(clips, _SEED)
    captions, meanings = [scene.caption for scene in scenes], np.array(meanings_of(scenes))
    frames = render(scenes, device=reward.device).cpu().numpy()
    seen = frame_indices(frames.shape[1], reward.settings.frames)
    image = reward.embed_frames(frame for clip in frames for frame in clip[seen])
    image = image.reshape(len(frames), len(seen), -1).mean(axis=1)  # mean of cosines = cosine with the mean

    texts = sorted({text for own in captions for rival in _rivals(own).values() for text in [own, *rival]})
    row = {text: index for index, text in enumerate(texts)}
    text = reward.embed_texts(texts)

    figures = {}
    for kind in ("colour", "shape", "template"):
        ranks, chances = [], []
        for clip, own in zip(image, captions, strict=True):
            rivals = _rivals(own)[kind]
            if rivals:
                ranks.append(clip @ text[row[own]] > max(clip @ text[row[rival]] for rival in rivals))
                chances.append(1 / (1 + len(rivals)))
        figures[f"{kind} accuracy"], figures[f"{kind} chance"] = (
            float(np.mean(ranks)),
            float(np.mean(chances)),
        )

    own_rows = [row[own] for own in captions]
    scores = image @ text[own_rows].T
    right, wrong = scores.diagonal(), scores[meanings[:, None] != meanings[None, :]]
    figures |= {
        "cosine right": float(right.mean()),
        "cosine wrong": float(wrong.mean()),
        "auc": auc(np.concatenate([right, wrong]), np.arange(len(right) + len(wrong)) < len(right)) or 0.0,
    }
    moving = [i for i, own in enumerate(captions) if _mirrored(own)]
    mirror = reward.embed_texts([_mirrored(captions[i]) for i in moving])
    figures["auc of direction"] = float(np.mean(right[moving] > (image[moving] * mirror).sum(axis=1)))
    return figures


def _rivals(own: str) -> dict[str, list[str]]:
    """Captions that differ in one thing from `own`: the first subject's colour or shape, or the template."""
    parsed = parse(own)
    assert parsed is not None
    first, others = parsed.subjects[0], parsed.subjects[1:]
    shapes = {shape for shape in TEMPLATES[parsed.template].shapes[0]}

    def spelled(template: str, subjects: Sequence[Subject]) -> list[str]:
        text = caption(template, subjects) if allows(TEMPLATES[template], subjects) else own
        return [] if text == own else [text]

    return {
        "colour": [
            t for colour in COLOURS for t in spelled(parsed.template, (Subject(colour, first.shape), *others))
        ],
        "shape": [
            t for shape in shapes for t in spelled(parsed.template, (Subject(first.colour, shape), *others))
        ],
        "template": [t for template in TEMPLATES for t in spelled(template, parsed.subjects)],
    }


def _mirrored(own: str) -> str:
    """The caption of the opposite direction, or "" where there is none."""
    parsed = parse(own)
    assert parsed is not None
    opposite = {"move_left": "move_right", "move_right": "move_left"}.get(parsed.template)
    return caption(opposite, parsed.subjects) if opposite else ""
