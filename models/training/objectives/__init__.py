"""The objectives, one file each: name, data, reference, weights, loss beside its equation, logs, checks.

Every module here but `base` is one objective and exports `OBJECTIVE`, under the name of the file with hyphens
(`rwr_exp.py` is "rwr-exp"). Installed packages add others by entry points of the group `vidloop.objectives`.
Nothing here imports torch before a loss is computed, so that a plan costs nothing.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any

from data.errors import ConfigError
from data.plugins import plugins
from models.training.objectives.base import Compared, Logs, LossSettings, Objective

__all__ = ["Compared", "Logs", "LossSettings", "Objective", "get_objective", "names"]

GROUP = "vidloop.objectives"


@functools.cache
def _ours() -> tuple[str, ...]:
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name.replace("_", "-") for name in found if name != "base"))


def names() -> list[str]:
    """Every objective that a recipe may name: ours, then the plug-ins'.

    Raises:
        ConfigError: a plug-in has the name of one of ours, or of another plug-in.
    """
    more = plugins(GROUP)
    for name in more.keys() & set(_ours()):
        raise ConfigError(
            f"plug-in {name!r} of {more[name].source} has the name of an objective of vidloop's"
        )
    return [*_ours(), *more]


def get_objective(name: str) -> Objective:
    """The objective called `name`, one of `names()`.

    Raises:
        ConfigError: there is none, or a plug-in is not what it should be.
    """
    known = names()
    if name not in known:
        raise ConfigError(f"there is no objective {name!r}; there are {', '.join(known)}")
    found: Any
    if name in _ours():
        found = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").OBJECTIVE
    else:
        found = plugins(GROUP)[name].load()
    if not isinstance(found, Objective) or found.name != name:
        raise ConfigError(f"objective {name!r} is {found!r}, not an `Objective` of that name")
    return found
