"""How well the oracle judges.

    python -m miniature.world.table [--clips N] [--seed S] [--workers W] [--write]


Of every template, clips that are right, the same clips under a wrong caption, and clips with one law broken
are rendered, encoded and decoded as the pipeline does it, and judged. Right clips are judged once more
softened, as a video decoder would leave them. Prints the shares that pass; `--write` puts the tables into
docs/oracle.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data.video import decode_mp4, encode_mp4
from miniature.world.catalog import CATEGORIES, COLOURS, SHAPES, TEMPLATES, Subject, allows, caption
from miniature.world.corpus import processes
from miniature.world.oracle import judge
from miniature.world.render import render
from miniature.world.scene import random_subjects, sample_scene

DOCS = Path("docs/oracle.md")
_BEGIN, _END = "<!-- the tables -->", "<!-- end of the tables -->"
_KINDS = ("right", "softened", "wrong", "broken")
_CHUNK = 20  # clips of one kind that a worker renders at once

Frames = NDArray[np.uint8]


@dataclass
class Tally:
    """Clips judged and passed, of one template. broken_by, passed_by: the same by violation."""

    judged: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    broken_by: Counter[str] = field(default_factory=Counter)
    passed_by: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Take in the counts of another tally."""
        for name in ("judged", "passed", "broken_by", "passed_by"):
            getattr(self, name).update(getattr(other, name))

    def share(self, kind: str) -> float:
        """Share of the clips of a kind that pass."""
        return self.passed[kind] / max(self.judged[kind], 1)


def wrong_caption(template: str, subjects: Sequence[Subject], rng: np.random.Generator) -> str:
    """A caption that is not true of a clip of this template and these subjects.

    It names another template, or one other colour or shape, or has two subjects exchanged.
    """
    entry, names = TEMPLATES[template], tuple(TEMPLATES)
    while True:
        other, changed = template, list(subjects)
        kind, at = rng.integers(4), int(rng.integers(len(subjects)))
        if kind == 0:
            other = names[rng.integers(len(names))]
            changed = _fit(other, subjects, rng)
        elif kind == 1:
            changed[at] = Subject(tuple(COLOURS)[rng.integers(len(COLOURS))], changed[at].shape)
        elif kind == 2:
            changed[at] = Subject(changed[at].colour, SHAPES[rng.integers(len(SHAPES))])
        elif len(subjects) > 1 and not entry.symmetric:
            changed[0], changed[-1] = changed[-1], changed[0]
        if (other, changed) != (template, list(subjects)) and allows(TEMPLATES[other], changed):
            return caption(other, changed)


def _fit(template: str, subjects: Sequence[Subject], rng: np.random.Generator) -> list[Subject]:
    """The subjects as far as the template has room and allows their shapes, else others."""
    fitted: list[Subject] = []
    for i, spare in enumerate(random_subjects(template, rng)):
        subject = subjects[i] if i < len(subjects) else spare
        shape = subject.shape if subject.shape in TEMPLATES[template].shapes[i] else spare.shape
        taken = {other.colour for other in (*fitted, *subjects[i + 1 :])}
        free = [colour for colour in COLOURS if colour not in taken]
        colour = subject.colour if subject.colour in free else free[int(rng.integers(len(free)))]
        fitted.append(Subject(colour, shape))
    return fitted


def soften(frames: Frames, rng: np.random.Generator) -> Frames:
    """What a video autoencoder leaves of a clip, roughly: a blur of 0.7 pixels of 64 and noise of 0.03."""
    sigma = 0.7 * min(frames.shape[1:3]) / 64
    blurred = np.stack([cv2.GaussianBlur(frame.astype(np.float32), (0, 0), sigma) for frame in frames])
    noise = rng.normal(0.0, 0.03 * 255, frames.shape)
    return np.clip(blurred + noise + 0.5, 0, 255).astype(np.uint8)


def judge_some(template: str, first: int, count: int, seed: int) -> Tally:
    """Judge `count` clips of each kind; clip i of a template is the same whatever the chunk it is in."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    tally, entry = Tally(), TEMPLATES[template]
    number = tuple(TEMPLATES).index(template)
    rngs = [np.random.default_rng([seed, number, i]) for i in range(first, first + count)]
    subjects = [random_subjects(template, rng) for rng in rngs]
    broken_by = [entry.violations[i % len(entry.violations)] for i in range(first, first + count)]
    right = [sample_scene(template, s, rng) for s, rng in zip(subjects, rngs, strict=True)]
    broken = [sample_scene(template, *z) for z in zip(subjects, rngs, broken_by, strict=True)]
    clips = render([*right, *broken]).numpy()

    def passes(frames: Frames, text: str) -> bool:
        return judge(decode_mp4(encode_mp4(frames, fps=8))[0], text).passed

    for i, rng in enumerate(rngs):
        text = caption(template, subjects[i])
        outcomes = {
            "right": passes(clips[i], text),
            "softened": passes(soften(clips[i], rng), text),
            "wrong": passes(clips[i], wrong_caption(template, subjects[i], rng)),
            "broken": passes(clips[count + i], text),
        }
        tally.judged.update(outcomes.keys())
        tally.passed.update({kind: int(passed) for kind, passed in outcomes.items()})
        tally.broken_by[broken_by[i]] += 1
        tally.passed_by[broken_by[i]] += outcomes["broken"]
    return tally


def measure(clips: int, seed: int, workers: int) -> dict[str, Tally]:
    """Tallies by template of at least `clips` clips of each kind, spread evenly over the templates."""
    each = -(-clips // len(TEMPLATES))
    jobs = [
        (name, first, min(_CHUNK, each - first), seed)
        for first in range(0, each, _CHUNK)
        for name in TEMPLATES
    ]
    tallies = {name: Tally() for name in TEMPLATES}
    with processes(workers) as pool:
        results = pool.map(judge_some, *zip(*jobs, strict=True))
        for done, ((name, *_), tally) in enumerate(zip(jobs, results, strict=True), start=1):
            tallies[name].add(tally)
            if sys.stderr.isatty():
                print(f"\r{done}/{len(jobs)}", end="", file=sys.stderr)
    return tallies


def total(tallies: Iterable[Tally]) -> Tally:
    """All counts together."""
    everything = Tally()
    for tally in tallies:
        everything.add(tally)
    return everything


def markdown(tallies: dict[str, Tally]) -> str:
    """Two tables: shares that pass by template, and by violation."""
    head = "| template | clips of each kind | right | softened | wrong caption | law broken |"
    lines = [head, "|---|---|---|---|---|---|"]

    def row(name: str, tally: Tally) -> str:
        shares = " | ".join(f"{tally.share(kind):.3f}" for kind in _KINDS)
        return f"| {name} | {tally.judged['right']} | {shares} |"

    for category in CATEGORIES:
        names = [name for name, template in TEMPLATES.items() if template.category == category]
        lines += [
            row(f"`{name}`{' (unseen)' if TEMPLATES[name].unseen else ''}", tallies[name]) for name in names
        ]
        lines.append(row(f"*{category}*", total(tallies[name] for name in names)))
    everything = total(tallies.values())
    lines.append(row("**all**", everything))
    lines += ["", "| law broken by | clips | pass |", "|---|---|---|"]
    for name, count in sorted(everything.broken_by.items()):
        lines.append(f"| {name} | {count} | {everything.passed_by[name] / count:.3f} |")
    return "\n".join(lines)


def write(text: str, command: str, path: Path = DOCS) -> None:
    """Put the tables between their marks in the page; raises ValueError if the page lacks the marks."""
    page = path.read_text(encoding="utf-8")
    if _BEGIN not in page or _END not in page:
        raise ValueError(f"{path} has no place for the tables: {_BEGIN} ... {_END}")
    before, after = page.split(_BEGIN)[0], page.split(_END)[1]
    path.write_text(f"{before}{_BEGIN}\n`{command}`\n\n{text}\n{_END}{after}", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The command. Returns the shares over all templates."""
    parser = argparse.ArgumentParser(
        prog="python -m miniature.world.table", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--clips", type=int, default=2500, help="clips of each kind, over all templates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--write", action="store_true", help="put the tables into docs/oracle.md of this folder"
    )
    args = parser.parse_args(argv)
    if args.clips < 1 or args.workers < 1:
        parser.error("--clips and --workers must be at least 1")
    tallies = measure(args.clips, args.seed, args.workers)
    text = markdown(tallies)
    print(text)
    if args.write:
        write(text, f"python -m miniature.world.table --clips {args.clips} --seed {args.seed} --write")
    everything = total(tallies.values())
    return {kind: everything.share(kind) for kind in _KINDS}


if __name__ == "__main__":
    main()
