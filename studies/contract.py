"""`docs/study.json`: the rows that scripts read. An entry's first keys are a contract; more may follow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from data.records import Studied
from studies.grid import IN_A_ROW, MAIN, TUNING

KEYS: Final = (
    "variant", "feedback", "objective", "seed", "rounds", "noise", "before", "after", "ci_low", "ci_high",
    "n", "clips", "steps",
)  # fmt: skip
_OUTCOME: Final = (
    "value", "best_of", "metric", "split", "labels", "accepted", "pairs", "batch", "outcome",
)  # fmt: skip
_KEPT_UNDER: Final = ("cell", "policy_before", "policy_after", "evaluate_key")
_LEVELS: Final = ("before", "after", "ci_low", "ci_high")


def entries(rows: Sequence[Studied]) -> list[dict[str, Any]]:
    """An entry for each row but those of tuning, which chose settings and showed nothing.

    Rounds in a row are of variant "main", with `rounds` above 1 from their second round on; their first is
    the main grid's own cell, and so is left out where that one is there. Of several rows of rounds the
    study's own is here; the others are in the store and in the report.
    """
    main = {_cell(row) for row in rows if row.variant == MAIN and row.best_of == 1}
    return [
        _entry(row)
        for row in rows
        if row.variant != TUNING
        and not (row.variant == IN_A_ROW and (row.value or (row.rounds == 1 and _cell(row) in main)))
    ]


def text(rows: Sequence[Studied]) -> str:
    """The file."""
    lines = ",\n".join(" " + json.dumps(entry, allow_nan=False) for entry in entries(rows))
    return f"[\n{lines}\n]\n"


def _cell(row: Studied) -> tuple[str, str, int]:
    return row.feedback, row.objective, row.seed


def _entry(row: Studied) -> dict[str, Any]:
    categories, motion = json.loads(row.categories), json.loads(row.guards).get("motion")
    return {
        **_fields(row, KEYS),
        "variant": MAIN if row.variant == IN_A_ROW else row.variant,
        **_fields(row, _OUTCOME),
        "settings": json.loads(row.settings),
        "categories": {name: [one[key] for key in _LEVELS] for name, one in categories.items()},
        "motion": None if motion is None else [motion["before"], motion["after"]],
        **_fields(row, _KEPT_UNDER),
    }


def _fields(row: Studied, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}
