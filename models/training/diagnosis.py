"""What ails a training run, by name: rules over the numbers that it left, and the finding in a sentence.

Plain numbers in, sentences out; no torch. Each name has a row in docs/symptoms.md that says what to do. The
thresholds are rules of thumb, stated here and nowhere else; they flag, they decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the numbers say.

    Attributes:
        name: the symptom, as in docs/symptoms.md; "" for what is neither good nor bad.
        text: a sentence with its numbers.
    """

    name: str
    text: str


def diagnose(run: Mapping[str, Any]) -> tuple[Finding, ...]:
    """What a run's diagnostics say, worst first.

    Args:
        run: as `models.training.trainer.TrainResult.diagnostics`; what is not in it is passed over.
    """
    late: Mapping[str, float] = run.get("last_quarter", {})
    shares = [
        Finding(name, sentence.format(late[key]))
        for key, name, ails, sentence in _SHARES
        if key in late and ails(late[key])
    ]
    found = (_displacement(late), *shares, _weights(run), _by_heart(run), _drift(run))
    return (*filter(None, found), *(Finding("", text) for text in _facts(run, late)))


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


def _displacement(late: Mapping[str, float]) -> Finding | None:
    gap, error = late.get("gap/chosen"), late.get("error/chosen")
    if gap is None or error is None or gap <= _NOTABLE * (error - gap):
        return None
    share = f", in {late['displaced']:.0%} of the pairs" if "displaced" in late else ""
    others = late.get("gap/rejected")
    beside = "" if others is None else f" (the rejected clips' by {_percent(others, late, 'rejected')})"
    return Finding(
        "likelihood displacement",
        f"The chosen clips became less likely: their error lies {gap / (error - gap):.1%} above the "
        f"reference's{beside}{share}. The policy leaves both kinds of clip, the rejected ones faster.",
    )


def _weights(run: Mapping[str, Any]) -> Finding | None:
    size, units = run.get("effective_sample_size"), run.get("units", 0)
    if size is None or not units or size >= _FEW * units:
        return None
    return Finding(
        "effective sample size collapse",
        f"The weights are worth {size:.1f} clips of {units}: a few clips carry the training.",
    )


def _by_heart(run: Mapping[str, Any]) -> Finding | None:
    measured = run.get("probe") or {}
    taught, left = _change(measured, "taught"), _change(measured, "held out")
    if taught is not None and left is not None and taught < 0 and left > _NOTABLE:
        rises = [
            (after / before - 1, sigma)
            for sigma, before, after in zip(
                measured["sigmas"],
                measured["reference"]["held out"],
                measured["policy"]["held out"],
                strict=True,
            )
        ]
        rise, worst = max(rises)
        return Finding(
            "learned by heart",
            f"At fixed noise the taught clips' error fell by {-taught:.1%}, that of clips left out rose by "
            f"{left:.1%}, most at noise level {worst:g} ({rise:+.1%}): the clips were learned, not what they "
            "have in common.",
        )
    epochs = run.get("epochs", 0.0)
    if epochs > _MANY_EPOCHS:
        return Finding("learned by heart", f"Every unit was seen {epochs:.0f} times.")
    return None


def _drift(run: Mapping[str, Any]) -> Finding | None:
    far = _distance(run.get("probe") or {})
    if far is None or far <= _FAR:
        return None
    return Finding(
        "drift from the reference",
        f"The prediction moved by {far:.0%} of the reference's own error: the policy is no longer near what "
        "it started from, and with it whatever no reward asks for.",
    )


def _facts(run: Mapping[str, Any], late: Mapping[str, float]) -> list[str]:
    said = []
    if "gap/chosen" in late and "gap/rejected" in late:
        said.append(
            f"Over the last quarter of the steps the chosen clips' error differs from the reference's by "
            f"{_percent(late['gap/chosen'], late, 'chosen')}, the rejected clips' by "
            f"{_percent(late['gap/rejected'], late, 'rejected')}."
        )
    measured = run.get("probe") or {}
    changes = {kind: _change(measured, kind) for kind in measured.get("clips", {})}
    if changes:
        told = ", ".join(
            f"{kind} {change:+.1%} ({measured['clips'][kind]} clips)"
            for kind, change in changes.items()
            if change is not None
        )
        far = _distance(measured)
        said.append(
            f"Error at fixed noise against the reference's: {told}; the prediction moved by {far:.2%} of the "
            f"reference's error. By noise level: {_by_level(measured)}."
        )
    if "calibration" in run:
        one = run["calibration"]
        said.append(
            f"Beta {one['beta']:.3g} was measured for a spread of the logit of {one['target_spread']:g}: the "
            f"reference's errors differ by {one['error_spread']:.2g} between clips. The logit reached "
            f"{late.get('logit/rms', 0.0):.2g}."
        )
    return said


def _percent(gap: float, late: Mapping[str, float], kind: str) -> str:
    behind = late.get(f"error/{kind}", 0.0) - gap
    return f"{gap / behind:+.2%}" if behind > 0 else f"{gap:+.2g}"


def _change(measured: Mapping[str, Any], kind: str) -> float | None:
    """Change of the mean error over all noise levels, as a share."""
    if kind not in measured.get("clips", {}):
        return None
    before, after = sum(measured["reference"][kind]), sum(measured["policy"][kind])
    return float(after / before - 1) if before > 0 else None


def _by_level(measured: Mapping[str, Any]) -> str:
    """Change of the error at each noise level, kind by kind."""
    return "; ".join(
        f"{kind} "
        + ", ".join(
            f"{after / before - 1:+.1%} at {sigma:g}"
            for sigma, before, after in zip(
                measured["sigmas"], measured["reference"][kind], measured["policy"][kind], strict=True
            )
            if before > 0
        )
        for kind in measured["clips"]
    )


def _distance(measured: Mapping[str, Any]) -> float | None:
    """Mean squared distance of the predictions over the reference's error, both over all that was probed."""
    total = sum(map(sum, measured.get("reference", {}).values()))
    return sum(map(sum, measured["drift"].values())) / total if total > 0 else None
