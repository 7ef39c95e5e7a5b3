"""What ails a training run, by name: rules over the numbers that it left, and the finding in a sentence.

Plain numbers in, sentences out; no torch. Each name has a row in docs/symptoms.md that says what to do. The
thresholds are rules of thumb, stated here and nowhere else; they flag, they decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

# A change of an error that is worth a word, as a share of the error.
_NOTABLE: Final = 0.002
# Share of pairs or clips from which on a state is the run's and not an exception's.
_MOST: Final = 0.5
# Effective sample size below this share of the clips.
_FEW: Final = 0.1
# Mean squared distance to the reference's prediction, as a share of the reference's own error. Twelve steps
# of dpo on the miniature at a learning rate of 3e-5, with a logit of 2, make 0.0004.
_FAR: Final = 0.02
# Passes over the same units.
_MANY_EPOCHS: Final = 100.0

# Of each kind of clip in the probe, the change of its error against the reference's, as a share: over all
# noise levels, and (change, level) at each.
_Changes = dict[str, tuple[float, list[tuple[float, float]]]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the numbers say.

    Attributes:
        name: the symptom, as in docs/symptoms.md; "" for what is neither good nor bad.
        text: a sentence with its numbers.
    """

    name: str
    text: str


# A share of the pairs or clips at the end: its name in the curve, the symptom, when it is one, the sentence.
_SHARES: Final[tuple[tuple[str, str, Callable[[float], bool], str], ...]] = (
    (
        "rewards/accuracies",
        "wrong order",
        lambda share: share <= _MOST,
        "Only {:.0%} of the pairs or clips are on the right side of the reference at the end: what was "
        "taught was not learned.",
    ),
    (
        "saturated",
        "saturation",
        lambda share: share > _MOST,
        "{:.0%} of the pairs or clips have a logit beyond 4.6: less than 1% of their pull is left, and what "
        "is left only drives the errors further apart.",
    ),
    (
        "dead",
        "dead pairs",
        lambda share: share > _MOST,
        "{:.0%} of the pairs or clips have a logit below 0.02 at the end: the policy tells them apart no "
        "better than the reference does.",
    ),
)


def diagnose(run: Mapping[str, Any]) -> tuple[Finding, ...]:
    """What a run's diagnostics say, worst first.

    Args:
        run: as `models.training.trainer.TrainResult.diagnostics`; what is not in it is passed over.
    """
    late: Mapping[str, float] = run.get("last_quarter", {})
    probe = run.get("probe") or {}
    changes = _changes(probe)
    total = sum(map(sum, probe.get("reference", {}).values()))
    # Mean squared distance of the predictions over the reference's error, both over all that was probed.
    far = sum(map(sum, probe["drift"].values())) / total if total > 0 else 0.0
    return (
        *_ailments(run, late, changes, far),
        *(Finding("", text) for text in _facts(run, late, probe, changes, far)),
    )


def _ailments(
    run: Mapping[str, Any], late: Mapping[str, float], changes: _Changes, far: float
) -> Iterator[Finding]:
    gap, error = late.get("gap/chosen", 0.0), late.get("error/chosen", 0.0)
    if "error/chosen" in late and gap > _NOTABLE * (error - gap):
        beside = f" (the rejected clips' by {_percent(late, 'rejected')})" if "gap/rejected" in late else ""
        share = f", in {late['displaced']:.0%} of the pairs" if "displaced" in late else ""
        yield Finding(
            "likelihood displacement",
            f"The chosen clips became less likely: their error lies {gap / (error - gap):.1%} above the "
            f"reference's{beside}{share}. The policy leaves both kinds of clip, the rejected ones faster.",
        )
    for key, name, ails, sentence in _SHARES:
        if key in late and ails(late[key]):
            yield Finding(name, sentence.format(late[key]))
    size, units = run.get("effective_sample_size"), run.get("units", 0)
    if size is not None and size < _FEW * units:
        yield Finding(
            "effective sample size collapse",
            f"The weights are worth {size:.1f} clips of {units}: a few clips carry the training.",
        )
    (taught, _), (left, levels) = (changes.get(kind, (0.0, [])) for kind in ("taught", "held out"))
    epochs = run.get("epochs", 0.0)
    if taught < 0 and left > _NOTABLE:
        rise, worst = max(levels)
        yield Finding(
            "learned by heart",
            f"At fixed noise the taught clips' error fell by {-taught:.1%}, that of clips left out rose by "
            f"{left:.1%}, most at noise level {worst:g} ({rise:+.1%}): the clips were learned, not what they "
            "have in common.",
        )
    elif epochs > _MANY_EPOCHS:
        yield Finding("learned by heart", f"Every unit was seen {epochs:.0f} times.")
    if far > _FAR:
        yield Finding(
            "drift from the reference",
            f"The prediction moved by {far:.0%} of the reference's own error: the policy is no longer near "
            "what it started from, and with it whatever no reward asks for.",
        )


def _facts(
    run: Mapping[str, Any],
    late: Mapping[str, float],
    probe: Mapping[str, Any],
    changes: _Changes,
    far: float,
) -> Iterator[str]:
    if "gap/chosen" in late and "gap/rejected" in late:
        yield (
            f"Over the last quarter of the steps the chosen clips' error differs from the reference's by "
            f"{_percent(late, 'chosen')}, the rejected clips' by {_percent(late, 'rejected')}."
        )
    if changes:
        clips = probe["clips"]
        told = ", ".join(f"{kind} {whole:+.1%} ({clips[kind]} clips)" for kind, (whole, _) in changes.items())
        by_level = "; ".join(
            f"{kind} " + ", ".join(f"{change:+.1%} at {sigma:g}" for change, sigma in levels)
            for kind, (_, levels) in changes.items()
        )
        yield (
            f"Error at fixed noise against the reference's: {told}; the prediction moved by {far:.2%} of the "
            f"reference's error. By noise level: {by_level}."
        )
    if "calibration" in run:
        one = run["calibration"]
        yield (
            f"Beta {one['beta']:.3g} was measured for a spread of the logit of {one['target_spread']:g}: the "
            f"reference's errors differ by {one['error_spread']:.2g} between clips. The logit reached "
            f"{late.get('logit/rms', 0.0):.2g}."
        )


def _percent(late: Mapping[str, float], kind: str) -> str:
    """The error of a kind of clip against the reference's."""
    gap = late[f"gap/{kind}"]
    behind = late.get(f"error/{kind}", 0.0) - gap
    return f"{gap / behind:+.2%}" if behind > 0 else f"{gap:+.2g}"


def _changes(probe: Mapping[str, Any]) -> _Changes:
    found: _Changes = {}
    for kind in probe.get("clips", {}):
        before, after = probe["reference"][kind], probe["policy"][kind]
        if sum(before) > 0:
            pairs = zip(probe["sigmas"], before, after, strict=True)
            levels = [(new / old - 1, sigma) for sigma, old, new in pairs if old > 0]
            found[kind] = sum(after) / sum(before) - 1, levels
    return found
