"""Size and place of an adapter, and the header in which its file says them. No torch here: opening a round
reads no tensors.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, Final

from data.errors import ConfigError, ModelError
from data.json_text import parse_json

PREFIX: Final = "transformer."


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """Size and place of an adapter; the update of a layer is alpha / rank * B A."""

    rank: int
    alpha: float
    targets: tuple[str, ...]


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and what follows it. Raises struct.error or ValueError."""
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header: dict[str, Any] = parse_json(data[8:end])
    return header, data[end:]


def read_header(data: bytes) -> tuple[LoraSpec, dict[str, Any]]:
    """What an adapter file is, and the facts that we wrote beside it.

    Raises:
        ModelError: the bytes are no adapter in diffusers layout with its rank and alpha.
    """
    try:
        metadata = header_of(data)[0]["__metadata__"]
        said = parse_json(metadata["lora_adapter_metadata"])
        config = {name.removeprefix(PREFIX): value for name, value in said.items()}
        rank, alpha, targets = config["r"], float(config["lora_alpha"]), config["target_modules"]
        facts = parse_json(metadata.get("vidloop", "{}"))
        if type(rank) is not int or rank < 1 or not math.isfinite(alpha):
            raise ValueError(f"rank {rank!r} and alpha {alpha}")
        if not isinstance(targets, list) or not isinstance(facts, dict):
            raise ValueError("its targets are no list, or its facts no object")
        return LoraSpec(rank, alpha, tuple(sorted(targets))), facts
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, struct.error) as failure:
        raise ModelError(
            f"not a LoRA adapter in diffusers layout with its rank and alpha: {failure!r}"
        ) from failure


def require_same(held: LoraSpec, asked: LoraSpec) -> None:
    """Training goes on with the adapter that it starts from, whatever its size: another cannot be asked for.

    Args:
        held: the adapter that training starts from.
        asked: what the recipe's `finetune` says, the family's targets where it names none.

    Raises:
        ConfigError: they differ.
    """
    both: dict[str, tuple[float | list[str], float | list[str]]] = {
        "rank": (held.rank, asked.rank),
        "alpha": (held.alpha, asked.alpha),
        "targets": (sorted(held.targets), sorted(asked.targets)),
    }
    other = {name: pair for name, pair in both.items() if pair[0] != pair[1]}
    if other:
        said = ", ".join(f"finetune.{name} is {_shown(asks)}" for name, (_, asks) in other.items())
        same = ", ".join(f"finetune.{name}: {_shown(has)}" for name, (has, _) in other.items())
        raise ConfigError(
            f"{said}, but training goes on with the policy's own adapter, of rank {held.rank} and alpha "
            f"{held.alpha:g}: say {same}, or start from the base model (policy: base; rounds in a row start "
            "from the champion: in another store)"
        )


def _shown(value: float | list[str]) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, list) else f"{value:g}"
