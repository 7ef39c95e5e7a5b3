"""Model families: one file each, over diffusers' own pipeline (see `base.Family`).

A family is found by what its file exports as `FAMILY`: ours by looking through this package, those of
installed packages by their entry points (`vidloop.families`). To name a family, and to ask which sizes it
takes, imports no PyTorch. docs/families.md has a whole one.
"""

from __future__ import annotations

import functools
import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from data.errors import ConfigError
from data.explain import nearest
from data.plugins import plugins

if TYPE_CHECKING:
    from models.families.base import Family

_GROUP = "vidloop.families"


def get_family(name: str) -> Family:
    """The family called `name`. Raises ConfigError, naming the nearest, if there is none."""
    family = _ours().get(name)
    if family is not None:
        return family
    brought = plugins(_GROUP).get(name)
    if brought is None:
        raise ConfigError(f"there is no model.family {name!r}{nearest(name, family_names())}")
    loaded: Family = brought.load()
    return loaded


def family_names() -> list[str]:
    """Every family there is, ours and those of plug-ins, in alphabetical order."""
    return sorted({*_ours(), *plugins(_GROUP)})


@functools.cache
def _ours() -> dict[str, Family]:
    modules = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {module.FAMILY.name: module.FAMILY for module in modules if hasattr(module, "FAMILY")}
