"""What a flow shows when it is done: a round's card and tables, the table of rounds in a row.

Keys are the same in every run of a recipe, so that the UI shows the history of each: `round-report-mini`,
`gains-mini`, `rewards-mini`, `series-mini`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.store import Manifest, Store
from flows.reporting import words
from flows.reporting.artifacts import server
from flows.reporting.artifacts.card import card
from flows.reporting.artifacts.tables import gains_by_category, rewards_by_category, rounds_in_a_row
from flows.reporting.read import read_facts
from tasks.campaign_record import Series
from tasks.summary import RoundSummary


class ReadOnce(Store):
    """A store that keeps what it has read. Only for looking at what is not being changed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._rows: dict[tuple[str, str], list[Any]] = {}
        self._manifests: dict[str | None, list[Manifest]] = {}
        self._held: dict[str, Manifest | None] = {}

    def manifest(self, key: str) -> Manifest | None:
        if key not in self._held:
            self._held[key] = super().manifest(key)
        return self._held[key]

    def read(self, key: str, table: str) -> list[Any]:
        if (key, table) not in self._rows:
            self._rows[key, table] = super().read(key, table)
        return self._rows[key, table]

    def manifests(self, stage: str | None = None) -> list[Manifest]:
        if stage not in self._manifests:
            self._manifests[stage] = super().manifests(stage)
            self._held |= {manifest.key: manifest for manifest in self._manifests[stage]}
        return self._manifests[stage]


def show_round(store: Store, summary: RoundSummary) -> None:
    """Card and tables of a finished round, in the flow run at work. Raises nothing: see `server.attempt`."""
    if server.seen():
        server.attempt("the card of the round", lambda: _show_round(store, summary))


def _show_round(store: Store, summary: RoundSummary) -> None:
    store = ReadOnce(store.root)  # the report's readers ask for the same rows several times
    facts = read_facts(store, summary)
    name, primary = summary.recipe_name, summary.primary
    # The UI cuts descriptions after some thirty letters: what tells most comes first.
    gained = "" if primary.delta is None else f" {words.signed(primary.delta)} {primary.metric}"
    told = f"{'Promoted' if summary.promoted else 'Not promoted'}{gained}, round {summary.round}"
    server.markdown(server.key_of("round-report", name), card(store, facts), told)
    for kind, rows, said in (
        ("gains", gains_by_category(facts), f"{primary.metric} before and after"),
        ("rewards", rewards_by_category(store, facts), "Training clips"),
    ):
        if rows:
            about = f"{said} by category, round {summary.round}"
            server.table(server.key_of(kind, name), rows, about)


def show_series(series: Series) -> None:
    """The table of rounds in a row, in the flow run at work. Raises nothing: see `server.attempt`."""
    if server.seen() and series.rounds:
        key = server.key_of("series", str(series.recipe["name"]))
        promoted = sum(one.promoted for one in series.rounds)
        about = f"{promoted} of {len(series.rounds)} rounds promoted: {series.reason}; {series.improve}"
        server.attempt("the table of the rounds", lambda: server.table(key, rounds_in_a_row(series), about))
