"""Writes the card that travels with a set of weights: what made them and how good they are."""

import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch


def write_card(
    folder: Path,
    title: str,
    command: str,
    facts: Iterable[str],
    measured: Mapping[str, Mapping[str, float]],
    meaning: Mapping[str, str],
) -> None:
    """CARD.md beside the weights in `folder`.

    Args:
        title, command: heading, and what made the weights.
        facts: lines on architecture, data and the run.
        measured: figures by the name of a measurement.
        meaning: what each figure says, where its name does not.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {platform.machine()}"
    facts = [*facts, f"Command: `{command}`", f"torch {torch.__version__}, {device}"]
    lines = [f"# {title}", "", *(f"- {fact}" for fact in facts)]
    for name, figures in measured.items():
        lines += ["", f"## {name}", "", "| figure | value | meaning |", "|---|---|---|"]
        lines += [f"| {key} | {value:.4g} | {meaning.get(key, '')} |" for key, value in figures.items()]
    (folder / "CARD.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
