"""Files that come with a package: weights, recipes, rubrics, prompts. Found alike in every installation."""

from __future__ import annotations

import importlib.util
import os
import site
import sys
from pathlib import Path
from typing import Final

from data.errors import ConfigError
from data.plugins import plugins

# What our packages lie in: a checkout, an image's folder, or site-packages.
INSTALLED: Final = Path(__file__).resolve().parents[1]
RECIPES: Final = "recipes"
# Ours; those of plug-ins are named by entry points. (package, its folder for a kind of file)
_OURS: Final = {RECIPES: ("recipes", ""), "rubrics": ("rewards.judge", "rubrics")}


def find(path: str | Path) -> Path:
    """A path that a person wrote: absolute, or from the current folder, or else inside an installed package.

    `miniature/weights/wan` is the folder `weights/wan` of the package `miniature`, wherever that is
    installed; `recipes/NAME` is a recipe of ours or of any plug-in. What is nowhere comes back as it was
    written, for the error of whoever opens it.
    """
    here = Path(path).expanduser()
    if here.is_absolute() or os.path.exists(here):  # False where a name is too long
        return here
    package, *rest = here.parts
    if not package.isidentifier() or importlib.util.find_spec(package) is None:
        return here
    inside = folder(package).joinpath(*rest)
    if not inside.exists() and package == RECIPES and len(rest) == 1:
        return shipped(RECIPES).get(rest[0], here)
    return inside if inside.exists() else here


def folder(package: str) -> Path:
    """Where the files of a package lie.

    Raises ModuleNotFoundError: there is no such package, or it is a module without a folder.
    """
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise ModuleNotFoundError(f"no package {package} is installed", name=package)
    return Path(places[0])


def shipped(kind: str) -> dict[str, Path]:
    """YAML and JSON files of one kind ("recipes", "rubrics", "calibrations"), ours and plug-ins', by name.

    Ours take the place of a plug-in's, as in `find`: a folder of an operator's own recipes stands where
    ours are (docker-compose.yml), and may hold his copy of a plug-in's.

    Raises ConfigError: two plug-ins bring a file of one name, or one names no package.
    """
    found: dict[str, Path] = {}
    for plugin in plugins("vidloop.resources").values():
        try:
            inside = folder(plugin.target)
        except ModuleNotFoundError as error:
            raise ConfigError(f"plug-in of vidloop.resources: {error}") from None
        for name, file in _files(inside / kind).items():
            if name in found:
                raise ConfigError(f"{kind} of one name: {found[name]} and {file}. Rename one of them")
            found[name] = file
    if kind in _OURS:
        package, below = _OURS[kind]
        found |= _files(folder(package) / below)
    return found


def _files(place: Path) -> dict[str, Path]:
    return {file.name: file for file in sorted(place.glob("*.*")) if file.suffix in (".yaml", ".json")}


def python_path() -> str:
    """PYTHONPATH of a child process that starts in another folder: with it, it finds our packages too."""
    own = [os.path.abspath(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    libraries = {Path(place).resolve() for place in (*site.getsitepackages(), sys.prefix)}
    # Installed packages are found anyway; named here they would stand before the standard library.
    ours = [] if INSTALLED in libraries else [str(INSTALLED)]
    return os.pathsep.join(dict.fromkeys([*ours, *own]))
