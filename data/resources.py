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
    if here.is_absolute() or here.exists():
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

    Raises ConfigError: two packages bring a file of one name, or a plug-in names no package.
    """
    places = [(package, below) for known, (package, below) in _OURS.items() if known == kind]
    places += [(plugin.target, kind) for plugin in plugins("vidloop.resources").values()]
    found: dict[str, Path] = {}
    for package, below in places:
        try:
            inside = folder(package)
        except ModuleNotFoundError as error:
            raise ConfigError(f"plug-in of vidloop.resources: {error}") from None
        for file in sorted((inside / below).glob("*.*")):
            if file.suffix not in (".yaml", ".json"):
                continue
            if file.name in found:
                raise ConfigError(f"{kind} of one name: {found[file.name]} and {file}. Rename one of them")
            found[file.name] = file
    return found


def python_path() -> str:
    """PYTHONPATH of a child process that starts in another folder: with it, it finds our packages too."""
    own = [os.path.abspath(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    libraries = {Path(place).resolve() for place in (*site.getsitepackages(), sys.prefix)}
    # Installed packages are found anyway; named here they would stand before the standard library.
    ours = [] if INSTALLED in libraries else [str(INSTALLED)]
    return os.pathsep.join(dict.fromkeys([*ours, *own]))
