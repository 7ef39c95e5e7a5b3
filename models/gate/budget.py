"""How sure must each of many rounds be, so that all of them together promote falsely as seldom as is said?

A gate that errs in 2.5% of rounds errs somewhere in 30 rounds with 53%. So a series of rounds has a budget,
the chance of any false promotion in all of it, and each round spends the same part (Bonferroni). A round is
examined in two stages: the gate, and where that says yes a confirmation. Its interval, of the gate's clips
and fresh ones together, has the round's part as its level, and keeps the promise alone; the gate spares its
cost. The two levels must not be multiplied: both stages ask the same prompts, so that a candidate which
happens to be better on these, and worse on others, has the same luck twice.
`benchmarks/nights.py` measures what the whole comes to.
"""

from __future__ import annotations

from typing import Final

from models.gate import intervals

WIDE: Final = 1.2
"""From how many times the width of very many prompts on an interval is worth a word: a year's, 21 prompts."""


def part(error: float, horizon: int) -> float:
    """What one round may spend of the chance `error` of any false promotion in `horizon` rounds."""
    return error / horizon


def level(error: float, horizon: int, confidence: float) -> float | None:
    """One-sided level of a round's confirmation.

    Args:
        error: chance of any false promotion in the whole series, in (0, 1].
        horizon: rounds that it is spent over, at least 1.
        confidence: of the gate's two-sided interval, for example 0.95; its lower end errs half as often as
            the whole.

    Returns:
        The round's part; None where the gate alone spends no more than that.
    """
    needed = part(error, horizon)
    return needed if needed < gate_level(confidence) * (1 - 1e-9) else None


def few(prompts: int, level: float) -> str:
    """What so few prompts do to a confirmation at this one-sided level, in words; "" if they are enough."""
    from scipy.special import ndtri

    if prompts < intervals.FEWEST:
        return f"there is no interval of fewer than {intervals.FEWEST} prompts, so that nobody is promoted"
    wider = intervals.quantile(prompts - 1, 1 - 2 * level) / -float(ndtri(level))
    many = f"its interval is {wider:.1f} times as wide as by the spread of many prompts"
    return f"{many}, so that a true gain is found late, or never" if wider > WIDE else ""


def gate_level(confidence: float) -> float:
    """One-sided level of the gate: how often it promotes a candidate that changes nothing."""
    return (1 - confidence) / 2
