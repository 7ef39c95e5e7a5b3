"""What guards come to over many promotions: small changes, each within the gate, multiply."""

from __future__ import annotations

from collections.abc import Mapping

from models.gate.settings import GateSettings, Within


def beyond(value: float, within: Within, settings: GateSettings) -> str:
    """How what a guard has come to leaves what a series of rounds allows, in words; "" where it does not.

    A series may move a guard as far as a single round may, and at least as far as `min_drift` and `max_drift`
    say; a guard that may rise in a round may rise in a series.

    Args:
        value: after / before of all promotions, multiplied.
        within: the guard's limits in a single round.
        settings: `min_drift` and `max_drift`.
    """
    low, high = min(within[0], settings.min_drift), within[1]
    if value < low:
        return f"below {low:g}"
    if high is not None and value > max(high, settings.max_drift):
        return f"above {max(high, settings.max_drift):g}"
    return ""


def drifted(
    ratios: Mapping[str, float | None], settings: GateSettings, within: Mapping[str, Within]
) -> list[str]:
    """Why this candidate would take a guard beyond what a series of rounds allows; empty if it would not.

    Args:
        ratios: after / before of each guard in this round; None where it was not measured.
        settings: `drift`, what the promotions before came to, and the limits.
        within: limits of each guard in a single round.

    Returns:
        A reason for each guard, in words.
    """
    found = []
    for name, ratio in ratios.items():
        earlier = settings.drift.get(name)
        if earlier is None or ratio is None:
            continue
        limit = beyond(earlier * ratio, within[name], settings)
        if limit:
            value = earlier * ratio
            found.append(f"{name} would come to {value:.2f} times what it was as the series began: {limit}")
    return found
