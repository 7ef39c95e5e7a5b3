"""What the guards catch, and how often they cry for nothing: hacks planted in cuts of real videos.

    python -m benchmarks.hacks                       measure a pool of cuts, and the tables of docs/guards.md
    python -m benchmarks.hacks --pool pool.npz       keep the measurements, or take them where the file is
    python -m benchmarks.hacks --prompts 8 --trials 20 --page /tmp/guards.md

Every cut is measured once, by the guards of a recipe that says nothing. A round is then drawn from the pool:
prompts with replacement, and of each prompt other cuts before than after; the gate's own functions judge it.
After are hacked cuts, of which the guards should catch at least 90% at 100 prompts x 4 clips, or cuts as they
are, of which at most 5% may break any guard. All rounds share three videos and one pool: the intervals are
over rounds drawn from it.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.gate import written_between
from benchmarks.real_video import BEFORE, BETWEEN, FPS, HACKS, NOTHING, Cut, Frames, Prompt
from flows.reporting.words import allowed
from models.gate.intervals import Floats
from models.gate.settings import DIVERSITY, DIVERSITY_WITHIN, GateSettings, Within
from models.gate.verdict import Guard, Paired, Shares, diversity, guard
from rewards import LoadedClip, build_reward, reward_kind
from tasks.settings import EvaluateSettings

PAGE: Final = Path(__file__).resolve().parents[1] / "docs/guards.md"
COMMAND: Final = "benchmarks.hacks"
GUARDS: Final = EvaluateSettings().guards
ONE_CLIP: Final = "one clip a prompt"
# Cuts of a prompt: as they are, for 8 before and 8 after; with each hack.
PLAIN: Final = 16
HACKED: Final = 4
LAYOUT: Final = (100, 4, 5)
PROMPTS: Final = (4, 10, 20, 50, 100, 200)
CLIPS: Final = (1, 2, 4, 8)
CATEGORIES: Final = (1, 5)


Run = Callable[..., Iterable[str]]
"""`map`, or one that shares the work out."""


def workers(count: int) -> ProcessPoolExecutor:
    """Processes; not forked, which OpenCV's threads do not survive."""
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))


@dataclass(frozen=True)
class Pool:
    """Measurements of cuts.

    Attributes:
        values: by hack, [prompts, cuts, guards that are rewards]; NaN where one failed.
        apart: by hack, [prompts, cuts, cuts]: how different the cuts of a prompt are.
    """

    values: Mapping[str, Floats]
    apart: Mapping[str, Floats]

    def save(self, path: Path) -> None:
        """Write it as npz."""
        arrays = {f"values {name}": one for name, one in self.values.items()}
        arrays |= {f"apart {name}": one for name, one in self.apart.items()}
        np.savez(path, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Pool:
        """Read what `save` wrote."""
        with np.load(path) as kept:
            found = {name: kept[name] for name in kept.files}
        return cls(
            *({n.split(" ", 1)[1]: a for n, a in found.items() if n.startswith(k)} for k in ("v", "a"))
        )


def measure(prompts: int, processes: int = 2, hacks: Sequence[str] = tuple(HACKS)) -> Pool:
    """Cut, hack and measure; the same hacks give the same pool."""
    with workers(processes) as shared:
        found = list(shared.map(_of_prompt, range(prompts), [hacks] * prompts))
    return Pool(*({name: np.stack([one[part][name] for one in found]) for name in hacks} for part in (0, 1)))


def _of_prompt(index: int, hacks: Sequence[str]) -> tuple[dict[str, Floats], dict[str, Floats]]:
    import cv2

    cv2.setNumThreads(1)
    rng = np.random.default_rng([index])
    prompt = Prompt.draw(rng)
    values, apart = {}, {}
    for name in hacks:
        count = PLAIN if name == NOTHING else HACKED
        clips = [HACKS[name](Cut.draw(prompt, rng), rng) for _ in range(count)]
        values[name] = np.array([_values(clip) for clip in clips])
        apart[name] = _apart(clips)
    return values, apart


def _values(frames: Frames) -> list[float]:
    clip = LoadedClip("cut", "", frames, FPS)
    judged = (build_reward(name).score([clip])[0].value for name in GUARDS if name != DIVERSITY)
    return [np.nan if value is None else value for value in judged]


def _apart(clips: Sequence[Frames]) -> Floats:
    """As the gate's diversity, of means over 8 x 8 places of 4 frames: latents without a model."""
    import cv2

    def small(clip: Frames) -> Floats:
        picked = clip[np.linspace(0, len(clip) - 1, 4).round().astype(int)]
        return np.stack([cv2.resize(one, (8, 8), interpolation=cv2.INTER_AREA) for one in picked]) / 255.0

    seen = np.stack([small(clip) for clip in clips])
    found = np.zeros((len(seen), len(seen)))
    for i, j in zip(*np.triu_indices(len(seen), 1), strict=True):
        value = diversity(seen[[i, j]], ["pair", "pair"])["pair"]
        found[i, j] = found[j, i] = np.nan if value is None else value
    return found


def played(pool: Pool, hack: str, layout: tuple[int, int, int], rng: np.random.Generator) -> list[Guard]:
    """What the guards say of a round: cuts as they are before (or of `BEFORE`), hacked ones after.

    Args:
        pool: measurements.
        hack: its name; NOTHING: other cuts as they are.
        layout: prompts, clips a prompt, categories.
        rng: draws prompts and cuts.
    """
    prompts, clips, categories = layout
    after = NOTHING if hack == ONE_CLIP else hack
    rows = rng.integers(len(pool.values[after]), size=prompts)
    sides = (BEFORE.get(after, NOTHING), after)
    drawn = [rng.permuted(np.tile(np.arange(pool.values[of].shape[1]), (prompts, 1)), axis=1) for of in sides]
    first, second = drawn[0][:, :clips], drawn[1][:, :clips]
    if sides[0] == sides[1]:
        second = drawn[0][:, clips : 2 * clips]
    if hack == ONE_CLIP:
        second = np.repeat(second[:, :1], clips, axis=1)
    pairs = list(_pairs(pool, sides, rows, (first, second), categories))
    settings = GateSettings()
    shares = Shares.of(pairs)
    return [guard(one, settings, within(one.metric), shares) for one in pairs]


def within(name: str) -> Within:
    """The limits of a guard of a recipe that says nothing."""
    return DIVERSITY_WITHIN if name == DIVERSITY else reward_kind(name).within


def _pairs(
    pool: Pool,
    sides: tuple[str, str],
    rows: np.ndarray,
    cuts: tuple[np.ndarray, np.ndarray],
    categories: int,
) -> Iterator[Paired]:
    prompts, clips = cuts[0].shape
    names = tuple(f"{index:03d}" for index in range(prompts))
    kinds = tuple(f"category {index * categories // prompts}" for index in range(prompts))
    before, after = (pool.values[of][rows[:, None], chosen] for of, chosen in zip(sides, cuts, strict=True))
    measured = iter(range(before.shape[-1]))
    for name in GUARDS:
        if name != DIVERSITY:
            one = next(measured)
            each = [tuple(text for text in texts for _ in range(clips)) for texts in (names, kinds)]
            yield Paired(name, before[..., one].ravel(), after[..., one].ravel(), each[0], each[1])
        elif clips > 1:
            upper = np.triu_indices(clips, 1)
            apart = [
                pool.apart[of][rows[:, None], chosen[:, upper[0]], chosen[:, upper[1]]].mean(axis=1)
                for of, chosen in zip(sides, cuts, strict=True)
            ]
            yield Paired(name, apart[0], apart[1], names, kinds)


def limit_table() -> Iterator[str]:
    """Markdown: the limits of every guard of a recipe that says nothing."""
    yield "**Limits** of after / before.\n"
    yield f"| {' | '.join(GUARDS)} |"
    yield "|---" * len(GUARDS) + "|"
    limits = [allowed(*within(name)) for name in GUARDS]
    yield f"| {' | '.join(limits)} |"


def hack_table(pool: Pool, trials: int, run: Run) -> Iterator[str]:
    """Markdown: how often each hack is caught, by which guards, and what it does to them."""
    prompts, clips, categories = LAYOUT
    yield f"**Hacks**, {prompts} prompts x {clips} clips in {categories} categories, {trials} rounds each:"
    yield "how often any guard breaks, with its 95% interval; the guards that break most often; in"
    yield "brackets, the middle of their ratios after / before.\n"
    yield "| after | caught | 95% interval | by |"
    yield "|---|---|---|---|"
    hacks = [*(name for name in pool.values if name not in (NOTHING, BETWEEN)), ONE_CLIP]
    yield from run(partial(_hack_row, pool, trials), hacks)


def _hack_row(pool: Pool, trials: int, hack: str) -> str:
    rng = np.random.default_rng(list(hack.encode()))
    rounds = [played(pool, hack, LAYOUT, rng) for _ in range(trials)]
    caught = sum(any(one.ok is False for one in found) for found in rounds)
    count = Counter(one.name for found in rounds for one in found if one.ok is False)
    told = [f"{name} {hits / trials:.0%} ({_middle(rounds, name)})" for name, hits in count.most_common(4)]
    low, high = _ends(caught, trials)
    return f"| {hack} | {caught / trials:.1%} | {low:.1%} to {high:.1%} | {', '.join(told) or '-'} |"


def _middle(rounds: Sequence[Sequence[Guard]], name: str) -> str:
    ratios = [one.ratio for found in rounds for one in found if one.name == name and one.ratio is not None]
    return f"{np.median(ratios):.2f}"


def false_alarms(pool: Pool, trials: int, run: Run) -> Iterator[str]:
    """Markdown: layouts; how often any guard breaks where nothing changed."""
    yield f"**False alarms** ({trials} rounds a cell): how often any guard breaks where nothing changed, with"
    yield "the upper end of its 95% interval.\n"
    heads = [f"{clips} clip{'s' * (clips > 1)}" for clips in CLIPS]
    yield f"| prompts | categories | {' | '.join(heads)} |"
    yield "|---" * (len(CLIPS) + 2) + "|"
    yield from run(partial(_alarm_row, pool, trials), list(product(PROMPTS, CATEGORIES)))


def _alarm_row(pool: Pool, trials: int, layout: tuple[int, int]) -> str:
    cells = [_alarms(pool, (layout[0], clips, layout[1]), trials) for clips in CLIPS]
    return f"| {layout[0]} | {layout[1]} | {' | '.join(cells)} |"


def _alarms(pool: Pool, layout: tuple[int, int, int], trials: int) -> str:
    rng = np.random.default_rng(layout)
    broken = sum(any(one.ok is False for one in played(pool, NOTHING, layout, rng)) for _ in range(trials))
    return f"{broken / trials:.1%} (to {_ends(broken, trials)[1]:.1%})"


def _ends(hits: int, trials: int) -> tuple[float, float]:
    """The 95% interval of a share (Clopper and Pearson, 1934)."""
    from scipy.special import betaincinv

    low = float(betaincinv(hits, trials - hits + 1, 0.025)) if hits else 0.0
    return low, float(betaincinv(hits + 1, trials - hits, 0.975)) if hits < trials else 1.0


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pool", type=Path)
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args(arguments)
    if asked.pool and asked.pool.exists():
        pool = Pool.load(asked.pool)
    else:
        pool = measure(asked.prompts, asked.workers)
        if asked.pool:
            pool.save(asked.pool)
    with workers(asked.workers) as shared:
        tables = (hack_table(pool, asked.trials, shared.map), false_alarms(pool, asked.trials, shared.map))
        told = "\n".join([*limit_table(), "", *tables[0], "", *tables[1]])
    written_between(asked.page, COMMAND, told)


if __name__ == "__main__":
    main()
