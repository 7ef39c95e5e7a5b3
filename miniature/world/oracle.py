"""The oracle: does this clip show what its caption says, as the laws allow? Pixels and caption only.

`judge` tracks the caption's subjects (`sight`), asks whether they are and stay what they are (identity, here)
and whether they did what the caption says as its law demands (motion and law, `criteria`). Each part is
graded by its worst finding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError
from miniature.world.catalog import SHAPES, TEMPLATES, Template, parse
from miniature.world.checks import CRITERIA
from miniature.world.checks.finding import FEWEST, Finding, unmeasured
from miniature.world.curve_fit import within
from miniature.world.tracking import Bools, Sight, Track, look

PASS = 0.5  # a part passes from this grade on
_MISSING = 0.10  # share of frames that may be wrong: one of 17 passes, two do not
# How far the area may stray, as the logarithm of its ratio to the usual one. A small generator draws a rigid
# body with a wavering outline: bad drawing, not bad physics; a body that breaks its law by growing strays by
# 0.33 and more. Where keeping the area is the law itself, less is forgiven.
_UNSTEADY = 0.27
_KEPT = 0.2
_BENT = 0.18  # how far a rigid body's proportions may stray from those at rest, as a strain
_MISSHAPEN = 0.28  # share of frames in which the outline may resemble another shape
_WOOD = {"lift_from_box": 0.012, "lower_into_box": 0.05, "off_table": 0.012}  # least area of box or table
_NO_FLOOR = ("multiple objects", "directional movement")


@dataclass(frozen=True)
class Verdict:
    """passed: every part is at least PASS; score: geometric mean of the parts; all grades in [0, 1].

    reason: what is wrong, in words, of the first part that fails; "as it should be" for a pass.
    """

    passed: bool
    score: float
    identity: float
    motion: float
    law: float
    reason: str


def judge(frames: NDArray[np.uint8], caption: str) -> Verdict:
    """Judge a clip by its caption.

    frames: uint8 [T, H, W, 3], RGB, any size and any T >= 5. Raises DataError for frames of another shape or
    type, and for a text that is not a caption of the world.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise DataError(
            f"the oracle needs uint8 frames [T, H, W, 3], not {frames.dtype} {list(frames.shape)}"
        )
    if len(frames) < 5:
        raise DataError(f"the oracle needs at least 5 frames, not {len(frames)}")
    parsed = parse(caption)
    if parsed is None:
        raise DataError(f"not a caption of the world: {caption!r}")
    template = TEMPLATES[parsed.template]
    sight = look(frames, parsed.subjects)
    findings = _identity(sight, template)
    if all(track.seen.sum() >= FEWEST for track in sight.tracks):
        findings += CRITERIA[template.name](sight)
    else:
        findings += unmeasured("too little is seen to measure anything")
    return _verdict(findings)


def _verdict(findings: list[Finding]) -> Verdict:
    grades = []
    reason = ""
    for part in ("identity", "motion", "law"):
        worst = min((f for f in findings if f.part == part), key=lambda f: f.grade)
        grades.append(float(worst.grade))
        if worst.grade < PASS and not reason:
            reason = worst.reason
    identity, motion, law = grades
    score = float(np.prod(grades) ** (1 / 3))
    return Verdict(min(grades) >= PASS, score, identity, motion, law, reason or "as it should be")


def _identity(sight: Sight, template: Template) -> list[Finding]:
    """Each subject is there, alone, of its shape and size; so are the props, and nothing else."""
    findings = []
    for index, track in enumerate(sight.tracks):
        leaves = template.category == "object removal" and index == 0
        clear = track.whole
        if template.name == "lower_into_box":  # not yet behind the rim
            clear = clear & (track.bottom < sight.wood.top - 0.03)
        soft = template.category == "deformable objects"
        steady = _KEPT if soft else _UNSTEADY
        findings += [_presence(sight, track, leaves), _shape(track, clear), _size(track, clear, steady)]
        if not soft:
            findings.append(_rigid(track, clear))
    findings += [_strangers(sight), *_props(sight, template)]
    return findings


def _presence(sight: Sight, track: Track, leaves: bool) -> Finding:
    """Seen from the first frame to the last, or without a gap for as long as it has not left."""
    frames = np.nonzero(track.seen)[0]
    if len(frames) == 0:
        return Finding("identity", 0.0, f"there is no {track.subject}")
    end = int(frames[-1]) + 1 if leaves else len(track.seen)
    absent = np.nonzero(~track.seen[:end])[0]
    grade = within(len(absent) / len(track.seen), _MISSING) if len(frames) >= FEWEST else 0.0
    gap = int(absent[0]) if len(absent) else end
    instead = [s.colour for s in sight.strangers if s.frame == gap and not s.twin]
    if instead:
        return Finding("identity", grade, f"{track} turns {instead[0]} at frame {gap}")
    return Finding("identity", grade, f"{track} vanished at frame {gap}")


def _strangers(sight: Sight) -> Finding:
    frames = {stranger.frame for stranger in sight.strangers}
    if not frames:
        return Finding("identity", 1.0, "")
    first = min(sight.strangers, key=lambda s: (s.frame, -s.area))
    which = "second" if first.twin else "strange"
    reason = f"a {which} {first.colour} blob appeared in frame {first.frame}"
    return Finding("identity", within(len(frames) / len(sight.t), _MISSING), reason)


def _shape(track: Track, clear: Bools) -> Finding:
    """The silhouette is nearer to the caption's shape than to any other, and near to it."""
    if not clear.any():
        return Finding("identity", 0.0, f"{track} is never wholly in the picture")
    own = SHAPES.index(track.subject.shape)
    best = track.misfit[clear].argmin(axis=1)
    wrong = best != own
    if not wrong.any():
        off = float(np.median(track.misfit[clear, own]))
        return Finding("identity", within(off, 0.3), f"{track} is out of shape")
    other = SHAPES[int(np.bincount(best[wrong]).argmax())]
    verb = "is" if wrong.mean() > 0.7 else "becomes"
    frame = int(np.nonzero(clear)[0][wrong.argmax()])
    reason = f"{track} {verb} a {other} in frame {frame}"
    return Finding("identity", within(float(wrong.mean()), _MISSHAPEN), reason)


def _size(track: Track, clear: Bools, tolerance: float) -> Finding:
    """The area stays what it is, and is that of an object."""
    if not clear.any():
        return Finding("identity", 0.0, f"{track} is never wholly in the picture")
    area = track.area[clear]
    usual = float(np.median(area))
    change = float(np.quantile(np.abs(np.log(np.maximum(area, 1e-6) / usual)), 0.9))
    grown = area[-1] > area[0]
    radius = float(np.sqrt(usual / np.pi))
    if not 0.06 < radius < 0.19:
        return Finding("identity", 0.0, f"{track} is far too {'small' if radius < 0.1 else 'large'}")
    return Finding("identity", within(change, tolerance), f"{track} {'grows' if grown else 'shrinks'}")


def _rigid(track: Track, clear: Bools) -> Finding:
    """The silhouette keeps the proportions that a shape has at rest."""
    strain = np.abs(0.5 * np.log(track.rx[clear] / track.ry[clear]))
    bent = float(np.quantile(strain, 0.9)) if len(strain) else 1.0
    return Finding("identity", within(bent, _BENT), f"{track} changes its proportions")


def _props(sight: Sight, template: Template) -> list[Finding]:
    findings = []
    has_hand = "hand" in template.caption.split()
    hand = sight.hand.area
    if has_hand:
        findings.append(_want(float(np.median(hand[:4])), 0.004, "there is no hand"))
    else:
        findings.append(_avoid(float(np.median(hand)), 0.01, "there is a hand that nobody named"))
    has_floor = template.category not in _NO_FLOOR or template.name == "slide"
    if has_floor:
        findings.append(_want(sight.floor, 0.5, "there is no floor"))
    else:
        findings.append(_avoid(sight.floor, 0.5, "there is a floor that nobody named"))
    if template.name in _WOOD:
        least = _WOOD[template.name]
        what = "table" if template.name == "off_table" else "box"
        findings.append(_want(sight.wood.area, least, f"there is no {what}"))
    return findings


def _want(value: float, least: float, reason: str) -> Finding:
    return Finding("identity", float(np.clip(0.5 * value / least, 0.0, 1.0)), reason)


def _avoid(value: float, most: float, reason: str) -> Finding:
    return Finding("identity", within(value, most), reason)
