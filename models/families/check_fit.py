"""Whether a model takes what a recipe asks for, by the configurations on this machine. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.json_text import parse_json
from models.families import get_family
from models.families.fit import shift_key
from models.families.settings import ModelSettings, SampleSettings


def check_fit(model: ModelSettings, settings: SampleSettings, *, fetch: bool = False) -> None:
    """Whether a model takes these settings, by the configurations that are on this machine.

    Of a hub id those are in the hub's cache. What is not at hand is not asked: the family asks it again.

    Args:
        fetch: get the configurations of a hub id that are not in the cache.

    Raises:
        ConfigError: the model does not take them.
    """

    def read(part: str) -> dict[str, Any]:
        return _read(model, f"{part}/{'scheduler_config' if part == 'scheduler' else 'config'}.json", fetch)

    try:
        grid = get_family(model.family).grid(read)
    except (ArithmeticError, KeyError, TypeError, ValueError):
        grid = None  # another class's configuration: the family says so when it opens it
    if grid is not None:
        grid.check(settings)
    scheduler = read("scheduler")
    kind = scheduler.get("_class_name")
    if settings.flow_shift is not None and kind and isinstance(kind, str):
        # The file may leave out what the class has a default for, so only what it says counts.
        named = {"shift": None} if not kind.startswith("CogVideoX") else {}
        shift_key(kind, {**named, **scheduler})


def _read(model: ModelSettings, name: str, fetch: bool) -> dict[str, Any]:
    path = Path(model.path) / name if Path(model.path).is_dir() else _cached(model, name, fetch)
    try:
        found = parse_json(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError):
        return {}  # the family says what is wrong with it
    return found if isinstance(found, dict) else {}


def _cached(model: ModelSettings, name: str, fetch: bool) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model.path, name, revision=model.revision, local_files_only=not fetch))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None
