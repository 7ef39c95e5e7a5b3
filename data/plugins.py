"""Plug-ins: what installed packages add to the loop, found by entry points.

A package names what it brings under a group of `GROUPS` in its pyproject.toml:

    [project.entry-points."vidloop.rewards"]
    brightness = "my_package.brightness:REWARD"

Found are the entry points of installed distributions, and those in the pyproject.toml beside any folder of
`sys.path`: so a package that is on PYTHONPATH and not installed (an image, a GPU machine, a checkout) has the
same rights. Nothing is imported until it is asked for, and a recipe never names a module.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from data.errors import ConfigError

GROUPS: Final = {
    "vidloop.rewards": "a reward: `rewards.RewardKind`",
    "vidloop.objectives": "an objective: `models.training.objectives.Objective`",
    "vidloop.families": "a family of models: `models.families.base.Family`",
    "vidloop.prompts": "prompt sets: `data.prompts.PromptSets`",
    "vidloop.resources": "a package with folders `recipes`, `rubrics` or `calibrations`",
    "vidloop.commands": "a module that adds commands to `vidloop` when it is imported",
}


@dataclass(frozen=True)
class Plugin:
    """One entry point.

    Attributes:
        group: of `GROUPS`.
        name: what a recipe calls it.
        target: "module:attribute", or "module".
        source: the distribution and its version, or the folder it was found in.
    """

    group: str
    name: str
    target: str
    source: str

    def load(self) -> Any:
        """The object it names. Raises ConfigError if it cannot be imported."""
        entry = importlib.metadata.EntryPoint(self.name, self.target, self.group)
        try:
            return entry.load()
        except Exception as error:
            raise ConfigError(
                f"plug-in {self.name!r} of {self.source} ({self.target}) cannot be loaded: "
                f"{type(error).__name__}: {error}. Repair or uninstall it"
            ) from error


def plugins(group: str) -> dict[str, Plugin]:
    """The plug-ins of a group by name, in the order of their names.

    Raises ConfigError: two packages bring different things under one name.
    """
    found: dict[str, Plugin] = {}
    for plugin in _all(tuple(sys.path)):
        if plugin.group != group:
            continue
        other = found.setdefault(plugin.name, plugin)
        if other.target != plugin.target:
            raise ConfigError(
                f"two plug-ins of {group} are called {plugin.name!r}: {other.target} of {other.source} and "
                f"{plugin.target} of {plugin.source}. Uninstall one of them"
            )
    return dict(sorted(found.items()))


@functools.cache
def _all(path: tuple[str, ...]) -> tuple[Plugin, ...]:
    """Those of every distribution once: where it is both on the path and installed, as Python imports it."""
    distributions: dict[str, list[Plugin]] = {}
    for name, brought in (*_beside(path), *_installed()):
        distributions.setdefault(re.sub(r"[-_.]+", "-", name).lower(), brought)
    return tuple(plugin for brought in distributions.values() for plugin in brought)


def _installed() -> Iterator[tuple[str, list[Plugin]]]:
    for dist in importlib.metadata.distributions():
        brought = [one for one in dist.entry_points if one.group in GROUPS]
        source = f"{dist.name} {dist.version}"
        yield dist.name, [Plugin(one.group, one.name, one.value, source) for one in brought]


def _beside(path: tuple[str, ...]) -> Iterator[tuple[str, list[Plugin]]]:
    for folder in dict.fromkeys(Path(place or ".").resolve() for place in path):
        try:
            said = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            continue  # none, or somebody else's file, or one that pip would refuse too
        project = said.get("project", {})
        declared = project.get("entry-points", {})
        brought = [
            Plugin(group, name, target, str(folder))
            for group in GROUPS.keys() & declared.keys()
            for name, target in declared[group].items()
        ]
        yield project.get("name", str(folder)), brought
