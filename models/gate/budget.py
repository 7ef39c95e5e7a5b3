"""How sure must each of many rounds be, so that all of them together promote falsely as seldom as is said?

A gate that errs in 2.5% of rounds errs somewhere in 30 rounds with 53%. So a series of rounds has a budget,
the chance of any false promotion in all of it, and each round spends the same part (Bonferroni). A round is
examined in two stages: the gate, and where that says yes a confirmation on clips that nobody has seen. Of a
candidate that changes nothing both say yes by independent chance, so their levels multiply to the part.
`benchmarks/nights.py` measures what the whole comes to.
"""

from __future__ import annotations

from typing import Final

LARGEST: Final = 0.4
"""One-sided level of the most lenient confirmation: from 0.5 on there would be no interval to show."""


def part(error: float, horizon: int) -> float:
    """What one round may spend of the chance `error` of any false promotion in `horizon` rounds."""
    return error / horizon


def level(error: float, horizon: int, confidence: float) -> float | None:
    """One-sided level of a round's confirmation.

    Args:
        error: chance of any false promotion in the whole series, in (0, 1).
        horizon: rounds that it is spent over, at least 1.
        confidence: of the gate's two-sided interval, for example 0.95; its lower end errs half as often as
            the whole.

    Returns:
        In (0, `LARGEST`]; None where the gate alone spends no more than the round's part.
    """
    needed = part(error, horizon) / gate_level(confidence)
    return None if needed > 1 - 1e-9 else min(needed, LARGEST)


def gate_level(confidence: float) -> float:
    """One-sided level of the gate: how often it promotes a candidate that changes nothing."""
    return (1 - confidence) / 2
