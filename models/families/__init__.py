"""Model families: one file each, about six functions over diffusers' own pipeline (see `base.Family`).

To add one: write `families/<name>.py` with a class that satisfies `Family`, add its line below, and run the
contract tests in tests/models/families over it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final

from data.errors import ConfigError
from models.families.settings import Expert

if TYPE_CHECKING:
    from models.families.base import Family

# name -> module and class; imported on use, so that naming a family costs no torch import
_FAMILIES: Final = {
    "cogvideox": ("models.families.cogvideox", "CogVideoX"),
    "ltx": ("models.families.ltx", "LTX"),
    "wan": ("models.families.wan", "Wan"),
    "wan-experts": ("models.families.wan_experts", "WanExperts"),
}
# Families of two networks, by name: a plan must know them without torch.
EXPERTS: Final[Mapping[str, tuple[Expert, ...]]] = {"wan-experts": ("high", "low")}


def get_family(name: str) -> Family:
    """The family called `name`. Raises ConfigError, naming the nearest, if there is none."""
    if name not in _FAMILIES:
        near = difflib.get_close_matches(name, _FAMILIES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"model.family {name!r} is unknown{hint} (known: {', '.join(sorted(_FAMILIES))})")
    module, attribute = _FAMILIES[name]
    family: Family = getattr(import_module(module), attribute)()
    return family
