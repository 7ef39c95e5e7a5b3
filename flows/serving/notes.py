"""What the bootstrap has to say to a person: lines of its log, which `vidloop serve` shows on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

BEGINS: Final = "bootstrap begins"
NOTE: Final = "note: "


def notes(log: Path) -> list[str]:
    """Those of the last bootstrap; one log holds those of many starts."""
    last = log.read_text(encoding="utf-8", errors="replace").rpartition(f"{BEGINS}\n")[2]
    return [line.removeprefix(NOTE) for line in last.splitlines() if line.startswith(NOTE)]
