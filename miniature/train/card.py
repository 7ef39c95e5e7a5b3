"""Writes the card that travels with a set of weights: what made them and how good they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def _table(figures: Mapping[str, float]) -> str:
    return "\n".join(f"| {name} | {value:.3f} |" for name, value in figures.items())


def write_card(
    folder: Path,
    title: str,
    command: str,
    facts: Mapping[str, Any],
    measured: Mapping[str, Mapping[str, float]],
) -> None:
    """CARD.md for people and card.json for programs, beside the weights in `folder`.

    `facts` are settings and sizes; `measured` maps the name of a measurement to its figures.
    """
    facts = dict(facts) | {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }
    lines = [f"# {title}", "", "```", command, "```", "", "| setting | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    for name, figures in measured.items():
        lines += ["", f"## {name}", "", "| | share |", "|---|---|", _table(figures)]
    (folder / "CARD.md").write_text("\n".join(lines) + "\n")
    card = {"title": title, "command": command, "facts": facts, "measured": measured}
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")
