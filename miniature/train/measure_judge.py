"""Measures a saved judge through the road that serves it: rubric, processor, chat template, P(yes)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from miniature.train.judge_corpus import HELD_OUT, KINDS, LENGTH, JudgeClips, rendered, samples
from miniature.train.judge_questions import RUBRIC, questions, rubric
from miniature.world.catalog import parse
from rewards.base import LoadedClip
from rewards.calibration import figures
from rewards.judge.judge import JudgeReward
from rewards.judge.settings import JudgeSettings

_SEED: Final = 1_000_003  # no training uses it
_OVERALL: Final = KINDS.index("overall")

MEANING: Final = {
    "rendered: agreement": "rendered clips, right and wrong: share on which judge and oracle agree",
    "rendered: AUC": "P(a right clip's value > a wrong one's)",
    "rendered: unseen kinds: agreement": "the same on kinds of failure that no training saw",
    "wrong caption: agreement": "right clips with a caption that is wrong in one thing: share refused",
    "generated: agreement": "the base model's clips, held-out prompts: share on which judge and oracle agree",
    "generated: AUC": "the same: P(a right clip's value > a wrong one's)",
    "generated: ECE": "the same: expected calibration error of P",
    "rendered: no answer": "share of rendered clips, some misnamed, that got neither yes nor no",
    "generated: no answer": "the same of generated clips",
    "generated: oracle yes": "the same: share that the oracle passes",
    "generated: judge yes": "the same: share that the judge passes",
}


def measure_judge(
    folder: Path, device: str, count: int, seed: int, sampled: Path | None, pool: Executor | None = None
) -> dict[str, float]:
    """Figures of the files in `folder`, by group and by kind of failure.

    Args:
        folder: a saved judge.
        device: where it runs.
        count: rendered clips, of kinds seen in training and not; generated ones, all that there are up to it.
        seed: of the rendered clips.
        sampled: folder with generated clips, or None.
        pool: processes for scenes and verdicts.
    """
    settings = JudgeSettings(backend="local", model=str(folder), rubric=RUBRIC, device=device, batch_size=128)
    judge, found = JudgeReward(settings), dict[str, float]()
    threshold = judge.rubric.passes
    assert threshold is not None, "the world's rubric has one"
    frames = judge.rubric.frames.count
    clips = rendered(count, _SEED + seed, frames, 64, "cpu", pool)
    values, labels = _values(judge, clips), clips.labels[:, _OVERALL] == 1.0
    kinds = np.array(clips.kinds)
    seen = ~np.isin(kinds, HELD_OUT)
    whole = figures(_answered(values[seen]), labels[seen].tolist(), threshold)
    unseen = figures(_answered(values[~seen]), labels[~seen].tolist(), threshold)
    found["rendered: agreement"], found["rendered: AUC"] = whole.accuracy or 0.0, whole.auc or 0.0
    found["rendered: unseen kinds: agreement"] = unseen.accuracy or 0.0
    right = [row for row in range(len(clips)) if labels[row]][: count // 2]
    misnamed = _values(judge, _misnamed(clips, right, seed))
    found["wrong caption: agreement"] = float((misnamed[np.isfinite(misnamed)] < threshold).mean())
    found["rendered: no answer"] = float(np.isnan(np.concatenate([values, misnamed])).mean())
    if sampled is not None:
        found |= _generated(judge, samples(sampled, "measure", frames, "cpu"), count, threshold)
    for kind in sorted(set(clips.kinds)):
        at = (kinds == kind) & np.isfinite(values)
        if not at.any():
            continue
        agreed = (values[at] >= threshold) == labels[at]
        found[f"{kind}{' (held out)' if kind in HELD_OUT else ''}, n={at.sum()}"] = float(agreed.mean())
    judge.close()
    return found


def _generated(judge: JudgeReward, clips: JudgeClips, count: int, threshold: float) -> dict[str, float]:
    rows = np.linspace(0, len(clips) - 1, min(count, len(clips))).round().astype(int).tolist()
    some = _some(clips, rows)
    values, labels = _values(judge, some), some.labels[:, _OVERALL] == 1.0
    whole = figures(_answered(values), labels.tolist(), threshold)
    found = {
        "generated: no answer": whole.failed / len(values),
        "generated: agreement": whole.accuracy,
        "generated: AUC": whole.auc,
        "generated: ECE": whole.ece,
        "generated: oracle yes": whole.positives,
        "generated: judge yes": whole.passed,
    }
    return {name: value for name, value in found.items() if value is not None}


def _values(judge: JudgeReward, clips: JudgeClips) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The judge's values, NaN where it said neither yes nor no."""
    frames = clips.frames.numpy()
    # The frames are the ones the judge would pick of the 17, so that it picks all of them.
    loaded = [LoadedClip(str(i), text, frames[i], LENGTH / 2) for i, text in enumerate(clips.captions)]
    found: list[float] = []
    for start in range(0, len(loaded), 512):
        for judgement in judge.score(loaded[start : start + 512]):
            found.append(np.nan if judgement.value is None else judgement.value)
    return np.array(found)


def _answered(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _misnamed(clips: JudgeClips, rows: Sequence[int], seed: int) -> JudgeClips:
    """The clips of `rows`, each with a caption that is wrong in one thing."""
    words, rng = rubric(), np.random.default_rng(seed)
    overall = words.questions[_OVERALL].text.split("{prompt}")
    texts = []
    for row in rows:
        wrong = questions(words, clips.captions[row], [1.0] * len(KINDS), rng)[len(KINDS) : len(KINDS) + 4]
        prompts = [one.text.partition(": ")[2].removesuffix(overall[-1]) for one in wrong]
        assert all(parse(prompt) for prompt in prompts)
        texts.append(prompts[row % 4])
    return replace(_some(clips, rows), captions=texts)


def _some(clips: JudgeClips, rows: Sequence[int]) -> JudgeClips:
    at = list(rows)
    return JudgeClips(
        clips.frames[at], [clips.captions[i] for i in at], clips.labels[at], [clips.kinds[i] for i in at]
    )
