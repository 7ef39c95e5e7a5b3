"""What guards come to over many promotions: small losses, each within the gate, multiply."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from models.gate.settings import GateSettings


def drifted(
    ratios: Mapping[str, float | None], settings: GateSettings, rising: Collection[str] = ()
) -> list[str]:
    """Why this candidate would take a guard beyond what a series of rounds allows; empty if it would not.

    Args:
        ratios: after / before of each guard in this round; None where it was not measured.
        settings: `drift`, what the promotions before came to, and the limits.
        rising: names of the guards that break by rising; all others break by falling.

    Returns:
        A reason for each guard, in words.
    """
    found = []
    for name, ratio in ratios.items():
        earlier = settings.drift.get(name)
        if earlier is None or ratio is None:
            continue
        up, value = name in rising, earlier * ratio
        if value > settings.max_drift if up else value < settings.min_drift:
            limit = f"above {settings.max_drift:g}" if up else f"below {settings.min_drift:g}"
            found.append(f"{name} would come to {value:.2f} times what it was as the series began: {limit}")
    return found
