"""Numbers and findings in words. One rule everywhere: what was not measured says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.prompts import prompt_sets
from rewards import reward_kinds
from tasks.round_ids import hours_ahead
from tasks.settings import EvaluateSettings
from tasks.summary import BaselineFinding, Change, RoundSummary

if TYPE_CHECKING:
    from flows.reporting.facts import Facts, Measure
    from flows.reporting.seeds import Spread
    from models.gate import verdict as gate

NOT_MEASURED = "not measured"
MINUS = "\N{MINUS SIGN}"
HELD_OUT = "held-out"
_STILL = "Did not surely move (the interval of the change holds zero)"
_EQUAL = "Equal before and after"
_UNKNOWN = "Too little was measured to tell"
# Sets with a name of ours that share no prompt, and real-heldout no template, with the set that trains.
_HELD_OUT_SETS = ("heldout", "real-heldout")


def percent(value: float | None, digits: int = 1) -> str:
    """A rate in [0, 1] as "42.5%"."""
    return NOT_MEASURED if value is None else f"{100 * value:.{digits}f}%"


def points(value: float | None) -> str:
    """A difference of rates in percentage points, as "+12.3"."""
    return NOT_MEASURED if value is None else f"{100 * value:+.1f}".replace("-", MINUS)


def number(value: float | None) -> str:
    """Three significant digits."""
    return NOT_MEASURED if value is None else f"{value:.3g}".replace("-", MINUS)


def signed(value: float | None) -> str:
    """Three significant digits and the sign."""
    return NOT_MEASURED if value is None else f"{value:+.3g}".replace("-", MINUS)


def ratio(before: float | None, after: float | None) -> str:
    """after / before with two decimals; it has no meaning without a `before` above zero."""
    return NOT_MEASURED if before is None or after is None or before <= 0 else f"{after / before:.2f}"


def allowed(low: float | None, high: float | None) -> str:
    """Between what a guard's ratio must stay, as "0.8 to 1.25" or "from 0.8"; "-" where it is not known."""
    if low is None:
        return "-"
    return f"from {low:g}" if high is None else f"{low:g} to {high:g}"


def duration(seconds: float | None) -> str:
    """Seconds as "0.4 s", "38 s", "7 min 5 s" or "2 h 4 min"."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def ahead(round_id: str) -> tuple[str, ...]:
    """What must be said of an id whose time lies in the future; nothing where it does not."""
    hours = hours_ahead(round_id)
    if hours < 1:
        return ()
    return (
        f"the time in the id {round_id} lies {duration(hours * 3600)} in the future by this machine's clock: "
        "a clock was ahead when this round began, or an earlier one of this store. Ids keep the order of "
        f"rounds; runs/{round_id}.jsonl has the times",
    )


def is_rate(summary: RoundSummary) -> bool:
    """Whether the primary metric is a share of clips, to be read as a percentage."""
    kind = reward_kinds().get(summary.kind_of(summary.primary.metric))
    return kind is not None and kind.range == (0.0, 1.0)


def examined(summary: RoundSummary) -> str:
    """The clips that decide: "held-out clips", or what else they are of, see `set_name`."""
    label = set_name(summary)
    return f"{label} clips" if label == HELD_OUT else f"clips of {label}"


def set_name(summary: RoundSummary) -> str:
    """The set that decides: "held-out" where it is made to be so and nothing behind the policy is unknown,
    "training prompts" where the recipe allows them, else by its own name.
    """
    said = summary.recipe.get("evaluate", {})  # what is not said is at its default
    if said.get("allow_training_prompts"):  # rounds of an earlier release do not have it
        return "training prompts"
    name: str = said.get("prompts", EvaluateSettings().prompts)
    if name in _HELD_OUT_SETS and not summary.untraced:
        return HELD_OUT
    return Path(name).stem if name not in prompt_sets() else name


def about_prompts(summary: RoundSummary) -> str:
    """What the prompts of the comparison are to the training."""
    apart = "Other sets than the first are reported apart: they decide nothing."
    allowed = summary.recipe.get("evaluate", {}).get("allow_training_prompts")
    if allowed:
        return (
            "The recipe allows prompts here that the round trains on (evaluate.allow_training_prompts): what "
            f"was gained on them says nothing of other prompts. {apart}"
        )
    if allowed is None:
        return apart
    if summary.untraced:
        return (
            "No prompt here is one that this round trains on. What the store does not hold is what trained "
            f"{' and '.join(summary.untraced)}, where its policy comes from: whether a prompt here was among "
            f"it is not known. {apart}"
        )
    return f"No prompt here is one that this round, or one that its policy comes from, trains on. {apart}"


def unmoved(summary: RoundSummary, measures: Sequence[Measure]) -> str:
    """What did not move: everything whose interval of the change holds zero, and what has no interval.

    Empty where nothing was compared.
    """
    if not measures:
        return ""
    found: dict[str, Change | gate.Comparison] = {one.name: one.found for one in measures}
    found |= {f"{summary.primary.metric} of {place}": one for place, one in summary.compared.items()}
    names: dict[str, list[str]] = {}
    for name, one in found.items():
        names.setdefault(_moved(one), []).append(name)
    told = [f"{how}: {', '.join(names[how])}." for how in (_STILL, _EQUAL, _UNKNOWN) if how in names]
    return " ".join(told) or "All that was measured surely moved."


def _moved(change: Change | gate.Comparison) -> str:
    """How a change is to be read; "": it surely moved, or was not measured."""
    if change.delta is None:
        return ""
    if change.ci_low is None or change.ci_high is None:
        return _EQUAL if change.delta == 0 else _UNKNOWN
    return _STILL if change.ci_low <= 0 <= change.ci_high else ""


def chosen_by_metric(summary: RoundSummary, baseline: BaselineFinding) -> bool:
    """Whether the clips of a best-of-N policy were chosen by what they are measured with."""
    named = summary.rewards or {}
    by, metric = named.get(baseline.by), named.get(summary.primary.metric)
    return by == metric and by is not None


def cost(baseline: BaselineFinding) -> str:
    """What the choice took, in words."""
    spent = baseline.cost
    if spent is None:
        return NOT_MEASURED
    passes = spent.network_evaluations
    told = f"an unknown number of network passes ({spent.reason})" if passes is None else f"{passes:,} passes"
    return f"{spent.clips:,} clips sampled for {spent.kept:,}, {told}, {spent.judgements:,} judgements"


def over_seeds(found: Spread) -> str:
    """Mean and standard deviation of the gain over seeds, and of how many, in the metric's unit."""
    if found.mean is None:
        return f"The gain was {NOT_MEASURED} in any of these rounds."
    seeds = "1 seed" if found.n == 1 else f"{found.n} seeds"
    few = "" if found.n >= found.ENOUGH else f" Only {seeds}: {found.ENOUGH} say how much it varies."
    return (
        f"Gain of {found.metric} over {seeds}: mean {signed(found.mean)}, standard deviation "
        f"{number(found.deviation)}.{few}"
    )


def sentence(facts: Facts) -> str:
    """The round in one sentence: what changed, and how sure that is."""
    primary = facts.summary.primary
    if primary.before is None or primary.after is None or primary.delta is None:
        return f"No comparison was made in this round: {primary.reason or facts.summary.verdict}."
    if primary.ci_low is None or primary.ci_high is None:
        found = "No interval could be computed"
    elif primary.ci_low > 0:
        found = "The model got better"
    elif primary.ci_high < 0:
        found = "The model got worse"
    else:
        found = "No difference can be told from chance"
    clips = examined(facts.summary)
    show, change = (percent, points) if is_rate(facts.summary) else (number, signed)
    if facts.summary.kind_of(primary.metric) == "physics":
        numbers = f"{show(primary.after)} of {clips} obey physics, {show(primary.before)} did before"
    else:
        numbers = f"{primary.metric} on {clips} is {show(primary.after)}, was {show(primary.before)}"
    interval = ""
    if primary.ci_low is not None and primary.ci_high is not None:
        interval = f", 95% interval {change(primary.ci_low)} to {change(primary.ci_high)}"
    unit = " points" if is_rate(facts.summary) else ""
    return f"{found}: {numbers} ({change(primary.delta)}{unit}{interval})."


def verdict(facts: Facts) -> str:
    """The gate's own words, without the "Promoted:" that the page shows beside them."""
    text = facts.summary.verdict
    for opening in ("not promoted:", "promoted:"):
        if text.lower().startswith(opening):
            text = text[len(opening) :].lstrip()
    return text[:1].upper() + text[1:]
