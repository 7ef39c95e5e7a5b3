"""The default of every setting that decides a result, by the component whose version answers for it.

    python -m flows.config.defaults tests/flows/config/defaults.json

A fingerprint leaves out settings at their default. A default that changes therefore needs a new version of
its stage or its reward: the command refuses to write the file without one, and a test holds the file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from data.errors import UserError
from data.explain import part_at
from data.settings import Settings, extra_of
from flows.config.recipe import Recipe
from rewards import reward_kind, reward_kinds
from rewards.composite import CompositeSettings
from tasks.fingerprints import VERSIONS

# Part of a recipe -> the stage that computes with it.
_STAGE: Final = {
    "model": "generate",
    "generate": "generate",
    "shaping": "curate",
    "curate": "curate",
    "finetune": "finetune",
    "gate": "evaluate",
}

Defaults = dict[str, dict[str, Any]]
"""Component -> its version and the default of each of its keys."""


def defaults() -> Defaults:
    """What the code says now."""
    found: Defaults = {
        stage: {"version": VERSIONS[stage], "defaults": {}} for stage in dict.fromkeys(_STAGE.values())
    }
    for part, stage in _STAGE.items():
        found[stage]["defaults"] |= dict(_of(part_at(Recipe, [part]), f"{part}."))
    for name in reward_kinds():
        kind = reward_kind(name)
        if issubclass(kind.settings, CompositeSettings) or kind.held is not None:
            continue  # its version is made of those of the rewards that it mixes, or of what a store holds
        try:
            version = kind.version(kind.settings())
        except (UserError, ValueError):
            continue  # it has no weights unless a recipe names them, and so no version of its own
        found[f"reward {name}"] = {"version": version, "defaults": dict(_of(kind.settings, ""))}
    return found


def forgotten(held: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Keys whose default changed though the version of their component did not."""
    return [
        key
        for component, before in held.items()
        if component in found and found[component]["version"] == before["version"]
        for key, value in before["defaults"].items()
        if found[component]["defaults"].get(key, value) != value
    ]


def _of(model: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        if field.is_required() or extra_of(extra, "cost_only"):
            continue
        value = field.get_default(call_default_factory=True)
        if isinstance(value, Settings):
            yield from _of(type(value), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.loads(json.dumps(value, default=str))


def _write(path: Path) -> None:
    found = defaults()
    lacking = forgotten(json.loads(path.read_text("utf-8")), found)
    if lacking:
        raise SystemExit(f"these defaults changed, raise their component's version: {', '.join(lacking)}")
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
