"""`docs/study.json`: the rows that scripts read. An entry's first keys are a contract; more may follow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from data.records import Studied
from studies.grid import IN_A_ROW, MAIN, TUNING

VARIANTS: Final = ("main", "noise", "pairs", "reference", "category-heldout", "draws")
KEYS: Final = (
    "variant", "feedback", "objective", "seed", "rounds", "noise", "before", "after", "ci_low", "ci_high",
    "n", "clips", "steps",
)  # fmt: skip


def entries(rows: Sequence[Studied]) -> list[dict[str, Any]]:
    """An entry for each row but those of tuning, which chose settings and showed nothing.

    Of several rows of rounds the study's own is here; the others are in the store and in the report.

    Rounds in a row are of variant "main", with `rounds` above 1 from their second round on; their first is
    the main grid's own cell, and so is left out where that one is there.
    """
    shown = [row for row in rows if row.variant != TUNING and not (row.variant == IN_A_ROW and row.value)]
    main = {
        (row.feedback, row.objective, row.seed) for row in shown if row.variant == MAIN and row.best_of == 1
    }
    return [
        _entry(row)
        for row in shown
        if not (
            row.variant == IN_A_ROW and row.rounds == 1 and (row.feedback, row.objective, row.seed) in main
        )
    ]


def text(rows: Sequence[Studied]) -> str:
    """The file."""
    lines = ",\n".join(" " + json.dumps(entry, allow_nan=False) for entry in entries(rows))
    return f"[\n{lines}\n]\n"


def _entry(row: Studied) -> dict[str, Any]:
    found = {name: getattr(row, name) for name in KEYS}
    found["variant"] = MAIN if row.variant == IN_A_ROW else row.variant
    return found | {
        "value": row.value,
        "best_of": row.best_of,
        "metric": row.metric,
        "split": row.split,
        "labels": row.labels,
        "accepted": row.accepted,
        "pairs": row.pairs,
        "batch": row.batch,
        "outcome": row.outcome,
        "settings": json.loads(row.settings),
        "categories": {
            name: [one["before"], one["after"], one["ci_low"], one["ci_high"]]
            for name, one in json.loads(row.categories).items()
        },
        "motion": _motion(row),
        "cell": row.cell,
        "policy_before": row.policy_before,
        "policy_after": row.policy_after,
        "evaluate_key": row.evaluate_key,
    }


def _motion(row: Studied) -> list[float | None] | None:
    found = json.loads(row.guards).get("motion")
    return None if found is None else [found["before"], found["after"]]
