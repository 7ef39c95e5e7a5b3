"""Files that come with a package: weights, recipes, rubrics, prompts. Found alike in every installation."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def find(path: str | Path) -> Path:
    """A path that a person wrote: absolute, or from the current folder, or else inside an installed package.

    `miniature/weights/wan` is the folder `weights/wan` of the package `miniature`, wherever that is
    installed. What is nowhere comes back as it was written, for the error of whoever opens it.
    """
    here = Path(path).expanduser()
    if here.is_absolute() or here.exists():
        return here
    package, *rest = here.parts
    inside = folder(package)
    return inside.joinpath(*rest) if inside is not None and inside.joinpath(*rest).exists() else here


def folder(package: str) -> Path | None:
    """Where a top-level package lies as files; None if there is no such package."""
    if not package.isidentifier():
        return None
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None
