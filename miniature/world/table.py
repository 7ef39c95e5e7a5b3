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
from collections.abc import Sequence
from pathlib import Path

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


Tally = Counter[tuple[str, str, str, bool]]
"""Clips judged, by (template, kind, law broken or "", whether it passes)."""


def count(tally: Tally, *templates: str, kind: str, law: str | None = None) -> tuple[int, int]:
    """Clips of a kind (and with this law broken) of these templates: how many were judged, how many pass."""
    counts = [0, 0]
    for (template, its_kind, its_law, passed), clips in tally.items():
        if template in templates and its_kind == kind and law in (None, its_law):
            counts[passed] += clips
    return sum(counts), counts[True]


def share(tally: Tally, *templates: str, kind: str, law: str | None = None) -> float:
    """Share of those clips that pass; 0 of none."""
    judged, passed = count(tally, *templates, kind=kind, law=law)
    return passed / max(judged, 1)


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


def judge_some(template: str, first: int, clips: int, seed: int) -> Tally:
    """Judge `clips` clips of each kind; clip i of a template is the same whatever the chunk it is in."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    tally, entry = Tally(), TEMPLATES[template]
    number = tuple(TEMPLATES).index(template)
    rngs = [np.random.default_rng([seed, number, i]) for i in range(first, first + clips)]
    subjects = [random_subjects(template, rng) for rng in rngs]
    broken_by = [entry.violations[i % len(entry.violations)] for i in range(first, first + clips)]
    right = [sample_scene(template, s, rng) for s, rng in zip(subjects, rngs, strict=True)]
    broken = [sample_scene(template, *z) for z in zip(subjects, rngs, broken_by, strict=True)]
    frames = render([*right, *broken]).numpy()

    def passes(seen: Frames, text: str) -> bool:
        return judge(decode_mp4(encode_mp4(seen, fps=8))[0], text).passed

    for i, rng in enumerate(rngs):
        text = caption(template, subjects[i])
        tally[template, "right", "", passes(frames[i], text)] += 1
        tally[template, "softened", "", passes(soften(frames[i], rng), text)] += 1
        tally[template, "wrong", "", passes(frames[i], wrong_caption(template, subjects[i], rng))] += 1
        tally[template, "broken", broken_by[i], passes(frames[clips + i], text)] += 1
    return tally


def measure(clips: int, seed: int, workers: int) -> Tally:
    """At least `clips` clips of each kind, spread evenly over the templates."""
    each = -(-clips // len(TEMPLATES))
    jobs = [
        (name, first, min(_CHUNK, each - first), seed)
        for first in range(0, each, _CHUNK)
        for name in TEMPLATES
    ]
    tally = Tally()
    with processes(workers) as pool:
        for done, some in enumerate(pool.map(judge_some, *zip(*jobs, strict=True)), start=1):
            tally.update(some)
            if sys.stderr.isatty():
                print(f"\r{done}/{len(jobs)}", end="", file=sys.stderr)
    return tally


def markdown(tally: Tally) -> str:
    """Two tables: shares that pass by template, and by violation."""
    head = "| template | clips of each kind | right | softened | wrong caption | law broken |"
    lines = [head, "|---|---|---|---|---|---|"]

    def row(title: str, *templates: str) -> str:
        judged, _ = count(tally, *templates, kind="right")
        shares = " | ".join(f"{share(tally, *templates, kind=kind):.3f}" for kind in _KINDS)
        return f"| {title} | {judged} | {shares} |"

    for category in CATEGORIES:
        names = [name for name, template in TEMPLATES.items() if template.category == category]
        lines += [row(f"`{name}`{' (unseen)' if TEMPLATES[name].unseen else ''}", name) for name in names]
        lines.append(row(f"*{category}*", *names))
    lines.append(row("**all**", *TEMPLATES))
    lines += ["", "| law broken by | clips | pass |", "|---|---|---|"]
    for law in sorted({law for _, _, law, _ in tally if law}):
        judged, passed = count(tally, *TEMPLATES, kind="broken", law=law)
        lines.append(f"| {law} | {judged} | {passed / judged:.3f} |")
    return "\n".join(lines)


def write(text: str, command: str, path: Path = DOCS) -> None:
    """Put the tables between their marks in the page; raises ValueError if the page lacks the marks."""
    page = path.read_text(encoding="utf-8")
    if _BEGIN not in page or _END not in page:
        raise ValueError(f"{path} has no place for the tables: {_BEGIN} ... {_END}")
    before, after = page.split(_BEGIN)[0], page.split(_END)[1]
    path.write_text(f"{before}{_BEGIN}\n`{command}`\n\n{text}\n{_END}{after}", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
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
    tally = measure(args.clips, args.seed, args.workers)
    text = markdown(tally)
    print(text)
    if args.write:
        write(text, f"python -m miniature.world.table --clips {args.clips} --seed {args.seed} --write")
    return {kind: share(tally, *TEMPLATES, kind=kind) for kind in _KINDS}


if __name__ == "__main__":
    main()
