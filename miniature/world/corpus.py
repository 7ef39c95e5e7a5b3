"""Captioned scenes of the physics world, a stated share of which break the law their caption names.

What the miniature's models and judges are trained on, and the oracle's verdicts on many clips at once; both
in processes of their own, because neither is a matter of a GPU.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from miniature.world.catalog import TEMPLATES
from miniature.world.oracle import Verdict, judge
from miniature.world.scene import Scene, random_subjects, sample_scene


def processes(workers: int) -> Executor:
    """Processes that sample scenes and judge clips. Starting them takes seconds: a command makes one pool.

    They are fresh ones: a forked one inherits torch's threads in an unknown state.
    """
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


def _draw(task: tuple[int, int, Mapping[str, float], Collection[str]]) -> list[Scene]:
    seed, count, broken_share, without = task
    rng = np.random.default_rng(seed)
    names = sorted(TEMPLATES)
    scenes = []
    for _ in range(count):
        template = TEMPLATES[names[int(rng.integers(len(names)))]]
        subjects = random_subjects(template.name, rng)
        violation = None
        if rng.random() < broken_share[template.name]:
            kinds = [kind for kind in template.violations if kind not in without]
            violation = kinds[int(rng.integers(len(kinds)))]
        scenes.append(sample_scene(template.name, subjects, rng, violation=violation))
    return scenes


def sample_corpus(
    count: int,
    broken_share: float | Mapping[str, float],
    seed: int,
    pool: Executor | None = None,
    block: int = 2048,
    without: Collection[str] = (),
) -> list[Scene]:
    """`count` scenes over all templates alike.

    `broken_share` is the share of scenes that break one law, one number or one per template; no scene breaks
    one of `without`. The same arguments give the same scenes whatever `pool` is.
    """
    shares = broken_share if isinstance(broken_share, Mapping) else dict.fromkeys(TEMPLATES, broken_share)
    sizes = [min(block, count - start) for start in range(0, count, block)]
    seeds = np.random.SeedSequence(seed).generate_state(len(sizes))
    tasks = [(int(s), size, dict(shares), tuple(without)) for s, size in zip(seeds, sizes, strict=True)]
    return list(chain.from_iterable(pool.map(_draw, tasks) if pool else map(_draw, tasks)))


def _judge(task: tuple[NDArray[np.uint8], str]) -> Verdict:
    frames, text = task
    return judge(frames, text)


def verdicts(
    clips: NDArray[np.uint8], captions: Sequence[str], pool: Executor | None = None
) -> list[Verdict]:
    """The oracle's verdict on each clip, uint8 [N, T, H, W, 3], by its caption."""
    tasks = list(zip(clips, captions, strict=True))
    return list(pool.map(_judge, tasks, chunksize=16) if pool else map(_judge, tasks))
