"""docs/cards.md, made from the measured rows of `benchmarks.memory_cards`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

# Sold as so many GB; in 1e9 bytes, which is less than what the cards show.
CARDS: Final = (24, 80, 141)
# Of a card: the driver, the libraries' own memory and the holes between tensors take the rest.
USABLE: Final = 0.94
# More than so many clips at once gain nothing at video sizes.
_MOST: Final = 16

_HEAD: Final = """# Which model on which card

Made by `python -m benchmarks.memory_cards --page` from `benchmarks/results/memory-cards.json`; not \
written by hand.
"""
_EMPTY: Final = """
Nothing has been measured yet. `python -m benchmarks.memory_cards` measures it on a GPU, in minutes and \
without a download.
"""
_MEANING: Final = """
GB are 1e9 bytes of tensors at the peak, measured{where}, models of the published sizes with random \
weights, eager. A card counts as large enough where the peak is below {usable:.0%} of what it is sold as: \
the driver and the holes between tensors take the rest.

- **encoding**: the text encoder, which comes to the GPU for the prompts of a stage and leaves again, \
and the network beside it (the sum of two measurements).
- **denoising**, **decoding**: one clip of the recipe's size, the network and the VAE on the GPU.
- **training**: a step of one pair with every block recomputed, the least there is, with the reference \
beside the policy; the network and its adapter alone on the GPU.
"""
_LINES: Final = """
## What to say on each card

What is not said here is the recipe's. `finetune.gradient_checkpointing: auto` keeps as much as the card \
has room for, by itself. The batch is what one clip's peak leaves room for, not what was run; a batch \
that does not fit after all is refused at the first one, with the number that does.
"""


def write_page(content: Mapping[str, Any], folder: Path) -> Path:
    """Write `folder`/cards.md from the content of memory-cards.json."""
    path = folder / "cards.md"
    path.write_text(page(content["rows"]), encoding="utf-8")
    return path


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page, without rows that lack figures (of a CPU, or failed) or are of weights no recipe asks for."""
    known = [row for row in rows if _peaks(row) is not None and row["quantise"] == "none"]
    if not known:
        return _HEAD + _EMPTY
    machines = ", ".join(dict.fromkeys(row["device"] for row in known))
    parts = [_HEAD, _MEANING.format(where=f" on {machines}", usable=USABLE), "\n", *_measured(known)]
    parts += [_LINES, "\n", *_said(known)]
    return "".join(parts)


def fits(row: Mapping[str, Any], card: int) -> bool:
    """Whether both a clip and a training step of `row` stay below what a card of `card` GB has."""
    peaks = _peaks(row)
    return peaks is not None and max(peaks) <= USABLE * card


def clips(row: Mapping[str, Any], card: int) -> int:
    """How many clips can be denoised at once, by one clip's peak; 0 where a single one does not fit."""
    found = row["generation"]
    room, one = USABLE * card - found["weights"], found["denoising"] - found["weights"]
    return 0 if _generation(row) > USABLE * card else min(_MOST, int(room / one))


def _generation(row: Mapping[str, Any]) -> float:
    """GB at the peak of generation: the text encoder comes while the network is there."""
    found = row["generation"]
    most: float = max(found["weights"] + found["encoding"], found["denoising"], found["decoding"])
    return most


def _peaks(row: Mapping[str, Any]) -> tuple[float, float] | None:
    generation, training = row["generation"], row["training"]
    if not generation or not training or generation["peak"] is None or training["peak"] is None:
        return None
    return _generation(row), training["peak"]


def _measured(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    named = " | ".join(f"{card} GB" for card in CARDS)
    lines = [
        f"| recipe | weights | clip | encoding | denoising | decoding | training | {named} |\n",
        "|---" * (7 + len(CARDS)) + "|\n",
    ]
    for row in rows:
        found = row["generation"]
        beside = found["weights"] + found["encoding"]
        figures = [beside, found["denoising"], found["decoding"], row["training"]["peak"]]
        cells = [
            f"`{row['recipe']}`", row["dtype"], row["clip"], *(f"{value:.1f}" for value in figures),
            *(_verdict(row, card) for card in CARDS),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |\n")
    return lines


def _verdict(row: Mapping[str, Any], card: int) -> str:
    generation, training = (peak <= USABLE * card for peak in _peaks(row) or (0.0, 0.0))
    if generation and training:
        return "yes"
    return "clips only" if generation else "training only" if training else "no"


def _said(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| recipe | " + " | ".join(f"{card} GB" for card in CARDS) + " |\n"]
    lines.append("|---" * (1 + len(CARDS)) + "|\n")
    for name in dict.fromkeys(row["recipe"] for row in rows):
        own = [row for row in rows if row["recipe"] == name]
        lines.append(f"| `{name}` | " + " | ".join(_line(own, card) for card in CARDS) + " |\n")
    return lines


def _line(rows: Sequence[Mapping[str, Any]], card: int) -> str:
    """The options with which the first of a recipe's rows that fits the card fits it."""
    for row in rows:
        if fits(row, card):
            return f"`--set generate.batch_size={clips(row, card)}`"
    least = min(max(_peaks(row) or (0.0,)) for row in rows)
    return f"does not fit: the least measured is {least:.1f} GB"
