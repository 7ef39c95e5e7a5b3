"""What a round was computed with, as its runs and its rows say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from data.json_text import parse_json
from data.records import Clip
from data.store import Store
from tasks.summary import RoundSummary

_NOT_NOTED: Final = (
    "no run noted versions: the stage takes no device, or its run was of an earlier release or cut short"
)
_PARTS: Final = ("dtype", "precision", "backend", "quantise", "compile", "attention")


def made_with(store: Store, summary: RoundSummary, clips: Sequence[Clip]) -> dict[str, Any]:
    """Versions by stage, device and code of each kind of clip, and the settings that choose kernels.

    Args:
        store: holds the facts of its runs.
        summary: of the round.
        clips: rows of all its clips.
    """
    computed = {stage: list(_computed(store, one.key)) for stage, one in summary.stages.items() if one.key}
    kinds = Counter((one.device_kind, one.code_version, one.codec) for one in clips)
    return {
        "clips": [
            {"device": device, "made_by": code, "codec": codec, "clips": count}
            for (device, code, codec), count in sorted(kinds.items())
        ],
        "settings": _settings(summary.recipe),
        "stages": {
            stage: found or [{"versions": None, "reason": _NOT_NOTED}] for stage, found in computed.items()
        },
    }


def _computed(store: Store, key: str | None) -> Iterator[dict[str, Any]]:
    """What each run that computed a part of a stage noted of versions, the oldest first."""
    for run, text in store.run_logs():
        for line in text.splitlines():
            if key and key in line and '"versions"' in line:
                fact = _fact(line)
                if fact.get("key") == key:
                    yield {"run": run, "versions": fact["versions"]}


def _fact(line: str) -> dict[str, Any]:
    try:
        found = parse_json(line)
    except ValueError:  # a crash tore it
        return {}
    return found if isinstance(found, dict) else {}


def _settings(said: Any, where: str = "") -> dict[str, Any]:
    """Precision, compilation and kernels that the recipe names, by the path of the setting."""
    found: dict[str, Any] = {}
    for name, value in said.items():
        if isinstance(value, Mapping):
            found |= _settings(value, f"{where}{name}.")
        elif name in _PARTS:
            found[f"{where}{name}"] = value
    return found
