"""docs/cards.md, made from the measured rows of `benchmarks.memory_cards`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from models.sampling.offload import STAYING

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

- **encoding**: the text encoder, which comes to the GPU for the prompts of a stage and leaves again; the \
network stays beside it where there is room, and else waits on the host.
- **denoising**, **decoding**: one clip of the recipe's size, the network and the VAE on the GPU.
- **training**: a step of one pair with every block recomputed, the least there is, with the reference \
beside the policy; the network and its adapter alone on the GPU.
- **fp8 storage**: `model.quantise: fp8-storage`, the network's layers in 8 bits; other clips, and \
nothing is compiled ([run your own model](run-your-own-model.md)).
{two}"""
_TWO: Final = """- **Two experts** (`wan2.2-t2v-a14b`): measured with one on the GPU, and the other in \
the host's memory ({host}). Where both take less than {staying:.0%} of a card they stay, and the \
card's column and its batch count both; elsewhere they change places twice a batch \
({seconds} each time, on this machine).
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
    """The page, without rows that lack figures (of a CPU, or failed)."""
    known = [row for row in rows if _known(row)]
    if not known:
        return _HEAD + _EMPTY
    machines = ", ".join(dict.fromkeys(row["device"] for row in known))
    meaning = _MEANING.format(where=f" on {machines}", usable=USABLE, two=_of_two(known))
    return "".join([_HEAD, meaning, "\n", *_measured(known), _LINES, "\n", *_said(known)])


def fits(row: Mapping[str, Any], card: int) -> bool:
    """Whether both a clip and a training step of `row` stay below what a card of `card` GB has."""
    return _known(row) and max(_peaks(row, card)) <= USABLE * card


def clips(row: Mapping[str, Any], card: int) -> int:
    """How many clips can be denoised at once, by one clip's peak; 0 where a single one does not fit."""
    found = row["generation"]
    one = found["denoising"] - found["weights"]
    room = USABLE * card - found["weights"] - _beside(row, card)
    return 0 if _peaks(row, card)[0] > USABLE * card else min(_MOST, int(room / one))


def _peaks(row: Mapping[str, Any], card: int) -> tuple[float, float]:
    """GB at the peaks of generation and of training."""
    found = row["generation"]
    beside = _beside(row, card)
    # The text encoder needs no room beside the networks: they leave for it.
    made: float = max(found["encoding"], found["denoising"] + beside, found["decoding"] + beside)
    return made, row["training"]["peak"]


def _beside(row: Mapping[str, Any], card: int) -> float:
    """GB of the other expert on a card that keeps both, as `models.sampling.offload` decides it."""
    other: float = row["generation"].get("waiting on the host") or 0.0
    return other if 2 * other <= STAYING * card else 0.0


def _known(row: Mapping[str, Any]) -> bool:
    generation, training = row["generation"], row["training"]
    return bool(generation and training) and None not in (generation["peak"], training["peak"])


def _of_two(rows: Sequence[Mapping[str, Any]]) -> str:
    found = [row["generation"] for row in rows if "waiting on the host" in row["generation"]]
    if not found:
        return ""

    def both(name: str, unit: str) -> str:
        return " and ".join(f"{one[name]:.1f} {unit}" for one in found)

    host, seconds = both("waiting on the host", "GB"), both("seconds to the GPU", "s")
    return _TWO.format(host=host, seconds=seconds, staying=STAYING)


def _measured(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    named = " | ".join(f"{card} GB" for card in CARDS)
    lines = [
        f"| recipe | weights | clip | encoding | denoising | decoding | training | {named} |\n",
        "|---" * (7 + len(CARDS)) + "|\n",
    ]
    for row in rows:
        found = row["generation"]
        figures = [found["encoding"], found["denoising"], found["decoding"], row["training"]["peak"]]
        held = "" if row["quantise"] == "none" else f", {row['quantise'].replace('-', ' ')}"
        cells = [
            f"`{row['recipe']}`", row["dtype"] + held, row["clip"], *(f"{value:.1f}" for value in figures),
            *(_verdict(row, card) for card in CARDS),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |\n")
    return lines


def _verdict(row: Mapping[str, Any], card: int) -> str:
    generation, training = (peak <= USABLE * card for peak in _peaks(row, card))
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
            return f"`{options(row, card)}`"
    least = min(max(_peaks(row, card)) for row in rows)
    return f"does not fit: the least measured is {least:.1f} GB"


def options(row: Mapping[str, Any], card: int) -> str:
    """What to say on the command line, so that the row's model fits the card as it was measured."""
    chosen = [f"generate.batch_size={clips(row, card)}"]
    if row["quantise"] != "none":
        # Such weights cannot be compiled; recipes compile their training.
        chosen += [f"model.quantise={row['quantise']}", "finetune.compile=false"]
    return " ".join(f"--set {setting}" for setting in chosen)
