"""What the miniature judge learns from: clips with the oracle's answers, and questions about them.

Rendered scenes, right and broken in every way but those held out; right ones whose time was tampered with;
clips that the base model generated (`--samples`). The oracle labels them, so that the judge learns what the
oracle means and not which templates were broken how.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from data.errors import DataError
from miniature.world.corpus import sample_corpus, verdicts
from miniature.world.oracle import PASS, Verdict
from miniature.world.render import render
from rewards.base import frame_indices

KINDS: Final = ("task", "physics", "objects", "overall")  # ids of the rubric's questions, in its order
# Never seen in training: how the judge does on them says what it does with failures nobody thought of.
HELD_OUT: Final = ("duplicates", "acts_at_distance", "gains_energy", "double speed", "frozen last frame")
LENGTH: Final = 17
RIGHT: Final = "right"


@dataclass(eq=False)
class JudgeClips:
    """Clips as the judge sees them, with what is true of them.

    Attributes:
        frames: uint8 [N, F, S, S, 3].
        captions: the caption of each.
        labels: float32 [N, 4] in the order of `KINDS`: 1, 0, or NaN where it is not known.
        kinds: "right", the name of what was broken, or "sample".
    """

    frames: torch.Tensor
    captions: list[str]
    labels: NDArray[np.float32]
    kinds: list[str]

    def __len__(self) -> int:
        return len(self.captions)


def answers(verdict: Verdict) -> tuple[float, float, float, float]:
    """The oracle's answers to the questions of `KINDS`."""
    parts = (verdict.motion, verdict.law, verdict.identity)
    return (*(float(part >= PASS) for part in parts), float(verdict.passed))  # type: ignore[return-value]  # 3 + 1


Warp = Callable[[np.random.Generator], NDArray[np.int64]]


def _stops(rng: np.random.Generator) -> NDArray[np.int64]:
    return np.minimum(np.arange(LENGTH), int(rng.integers(5, 10)))


def _reversed_from(rng: np.random.Generator) -> NDArray[np.int64]:
    turn = int(rng.integers(6, 11))
    return turn - np.abs(np.arange(LENGTH) - turn).clip(max=turn)


def _skips(rng: np.random.Generator) -> NDArray[np.int64]:
    at, by = int(rng.integers(4, 10)), int(rng.integers(3, 6))
    frames = np.arange(LENGTH)
    return np.where(frames < at, frames, np.minimum(frames + by, LENGTH - 1))


# Which frame of the right clip stands at each place: failures of time that no law of the world names.
WARPS: Final[Mapping[str, Warp]] = {
    "frozen first frame": lambda rng: np.zeros(LENGTH, np.int64),
    "frozen last frame": lambda rng: np.full(LENGTH, LENGTH - 1),
    "shuffled": lambda rng: rng.permutation(LENGTH),
    "reversed": lambda rng: np.arange(LENGTH)[::-1].copy(),
    "half speed": lambda rng: np.arange(LENGTH) // 2,
    "double speed": lambda rng: np.minimum(2 * np.arange(LENGTH), LENGTH - 1),
    "stops": _stops,
    "there and back": _reversed_from,
    "skips": _skips,
}


def rendered(
    count: int,
    seed: int,
    frames: int,
    size: int,
    device: str,
    pool: Executor | None,
    without: Sequence[str] = (),
    judged: bool = True,
) -> JudgeClips:
    """`count` rendered clips: 40% right, 40% breaking a law, 20% with their time tampered with.

    Args:
        count, seed: the same give the same clips.
        frames: frames that the judge sees of the 17.
        size: side of a frame, pixels.
        device: where the frames are drawn and stay.
        pool: processes for scenes and verdicts; None: this one.
        without: violations and tampering that do not occur.
        judged: have the oracle answer all questions (a fiftieth of a second a clip and core). Else nothing is
            tampered with, and labels are what follows from how a clip was made: right ones are right in all,
            broken ones are wrong over all, and of the rest nothing is known.
    """
    scenes = sample_corpus(count, 0.4 if judged else 0.5, seed, pool, without=without)
    captions = [scene.caption for scene in scenes]
    rng = np.random.default_rng(seed + 1)
    names = [name for name in WARPS if name not in without]
    kinds: list[str] = []
    labels = np.full((count, len(KINDS)), np.nan, np.float32)
    kept: list[torch.Tensor] = []
    seen = frame_indices(LENGTH, frames)
    for start in range(0, count, 512):
        end = min(start + 512, count)
        video = render(scenes[start:end], size=size, device=device)
        orders = np.tile(np.arange(LENGTH), (end - start, 1))
        for row in range(start, end):
            kinds.append(scenes[row].violation or RIGHT)
            if judged and scenes[row].violation is None and rng.random() < 1 / 3:
                kinds[row] = names[int(rng.integers(len(names)))]
                orders[row - start] = WARPS[kinds[row]](rng)
        order = torch.from_numpy(orders).to(video.device)
        video = video[torch.arange(len(video), device=video.device)[:, None], order]
        if judged:
            found = verdicts(video.cpu().numpy(), captions[start:end], pool)
            labels[start:end] = [answers(one) for one in found]
        else:
            right = np.array([kind == RIGHT for kind in kinds[start:end]])
            labels[start:end][right] = 1.0
            labels[start:end, -1] = right
        kept.append(video[:, seen])
    return JudgeClips(torch.cat(kept), captions, labels, kinds)


def samples(folder: Path, part: str, frames: int, device: str) -> JudgeClips:
    """Clips of the base model that `python -m miniature.train.judge_samples` wrote.

    Args:
        folder: what --samples names.
        part: "train" or "measure".
        frames: frames that the judge sees.
        device: where they are held.

    Raises:
        DataError: the files are not there, or do not belong together.
    """
    try:
        video = load_file(folder / f"{part}.safetensors")["frames"]
        lines = (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, KeyError) as error:
        raise DataError(f"--samples {folder}: {error}; miniature.train.judge_samples writes them") from error
    rows = [json.loads(line) for line in lines]
    if len(rows) != len(video):
        raise DataError(f"--samples {folder}: {len(video)} clips and {len(rows)} lines in part {part}")
    labels = np.array(
        [answers(Verdict(r["passed"], 0.0, r["identity"], r["motion"], r["law"], "")) for r in rows],
        np.float32,
    )
    seen = torch.tensor(frame_indices(video.shape[1], frames))
    return JudgeClips(video[:, seen].to(device), [r["caption"] for r in rows], labels, ["sample"] * len(rows))


def joined(parts: Sequence[JudgeClips]) -> JudgeClips:
    """Several as one, in order."""
    return JudgeClips(
        torch.cat([part.frames for part in parts]),
        [caption for part in parts for caption in part.captions],
        np.concatenate([part.labels for part in parts]),
        [kind for part in parts for kind in part.kinds],
    )
