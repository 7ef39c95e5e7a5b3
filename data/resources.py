"""Files that come with a package: weights, recipes, rubrics, prompts. Found alike in every installation."""

from __future__ import annotations

import importlib.util
import os
import site
import sys
from pathlib import Path
from typing import Final

# What our packages lie in: a checkout, an image's folder, or site-packages.
INSTALLED: Final = Path(__file__).resolve().parents[1]


def find(path: str | Path) -> Path:
    """A path that a person wrote: absolute, or from the current folder, or else inside an installed package.

    `miniature/weights/wan` is the folder `weights/wan` of the package `miniature`, wherever that is
    installed. What is nowhere comes back as it was written, for the error of whoever opens it.
    """
    here = Path(path).expanduser()
    if here.is_absolute() or here.exists():
        return here
    package, *rest = here.parts
    if not package.isidentifier() or importlib.util.find_spec(package) is None:
        return here
    inside = folder(package).joinpath(*rest)
    return inside if inside.exists() else here


def folder(package: str) -> Path:
    """Where the files of a package lie.

    Raises:
        ModuleNotFoundError: there is no such package, or it is a module without a folder.
    """
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise ModuleNotFoundError(f"no package {package} is installed", name=package)
    return Path(places[0])


def python_path() -> str:
    """PYTHONPATH of a child process that starts in another folder: with it, it finds our packages too."""
    own = [os.path.abspath(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    libraries = {Path(place).resolve() for place in (*site.getsitepackages(), sys.prefix)}
    # Installed packages are found anyway; named here they would stand before the standard library.
    ours = [] if INSTALLED in libraries else [str(INSTALLED)]
    return os.pathsep.join(dict.fromkeys([*ours, *own]))
