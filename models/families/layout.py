"""Whether a local model folder is whole, before hours are spent on it. No torch: a plan asks this too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from data.errors import ModelError
from data.json_text import parse_json

_INDEX: Final = "model_index.json"


def check_layout(path: str | Path) -> None:
    """Raise ModelError if a local folder lacks a part that its index names, or a shard of a part's weights.

    A hub id is not looked at: what it lacks is found when it is fetched.

    Raises:
        ModelError: also if the index is damaged, or `path` is a single file of weights.
    """
    folder = Path(path)
    if folder.is_file():
        raise ModelError(
            f"model.path {folder} is a file; it must be a folder in diffusers layout, or a hub id. Convert "
            "single-file weights once with from_single_file() and save_pretrained(): "
            "docs/run-your-own-model.md has the lines"
        )
    if not (folder / _INDEX).is_file():
        return  # no folder of a model: `models.policy.base_id` says so
    # What begins with an underscore is a fact of the pipeline; what is not a pair is a setting of it.
    parts = [
        part
        for part, named in sorted(_json(folder / _INDEX).items())
        if not part.startswith("_") and isinstance(named, list) and None not in named
    ]
    check_parts(folder, parts)
    for part in parts:
        for index in sorted((folder / part).glob("*.index.json")):
            shards = _json(index).get("weight_map")
            if not isinstance(shards, dict):
                raise ModelError(f"{index} has no weight_map: copy it again, or save the pipeline again")
            missing = sorted(
                {str(shard) for shard in shards.values()} - {f.name for f in index.parent.iterdir()}
            )
            if missing:
                raise ModelError(
                    f"model at {folder} lacks {part}/{missing[0]}"
                    + (f" and {len(missing) - 1} more shards" if len(missing) > 1 else "")
                    + f", which {index.name} names: copy it too"
                )


def check_parts(path: str | Path, needed: Sequence[str]) -> None:
    """Raise ModelError if a local folder is no model's, or lacks one of the `needed` parts."""
    folder = Path(path)
    if not folder.is_dir():
        return
    if not (folder / _INDEX).is_file():
        raise ModelError(f"{folder} holds no {_INDEX}: expected a model saved with save_pretrained()")
    named = _json(folder / _INDEX)
    for part in needed:
        if part not in named or not (folder / part).is_dir():
            why = f", which its {_INDEX} names" if part in named else ""
            raise ModelError(
                f"model at {folder} has no {part}{why}: copy that folder too, or save the pipeline again"
            )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as failure:
        raise ModelError(f"{path} is not JSON: {failure}") from failure
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object")
    return found
