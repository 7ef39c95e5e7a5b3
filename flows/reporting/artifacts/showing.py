"""What a flow shows when it is done: a round's card and tables, the table of rounds in a row.

Keys are the same in every run of a recipe, so that the UI shows the history of each: `round-report-mini`,
`gains-mini`, `rewards-mini`, `series-mini`.
"""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from data.store import Store
from flows.reporting import words
from flows.reporting.artifacts import server
from flows.reporting.artifacts.card import card
from flows.reporting.artifacts.tables import gains_by_category, rewards_by_category, rounds_in_a_row
from flows.reporting.read import read_facts
from tasks.campaign_record import Series
from tasks.summary import RoundSummary


def show_round(store: Store, summary: RoundSummary) -> None:
    """Card and tables of a finished round, in the flow run at work. Raises nothing: see `server.attempt`."""
    if server.seen():
        server.attempt("the card of the round", lambda: _show_round(store, summary))


def _show_round(store: Store, summary: RoundSummary) -> None:
    facts = read_facts(store, summary)
    name, primary = summary.recipe_name, summary.primary
    # The UI cuts descriptions after some thirty letters: what tells most comes first.
    gained = "" if primary.delta is None else f" {words.signed(primary.delta)} {primary.metric}"
    told = f"{'Promoted' if summary.promoted else 'Not promoted'}{gained}, round {summary.round}"
    create_markdown_artifact(card(store, facts), server.key_of("round-report", name), told)
    for kind, rows, said in (
        ("gains", gains_by_category(facts), f"{primary.metric} before and after"),
        ("rewards", rewards_by_category(facts), "Training clips"),
    ):
        if rows:
            about = f"{said} by category, round {summary.round}"
            create_table_artifact(rows, server.key_of(kind, name), about)


def show_series(series: Series) -> None:
    """The table of rounds in a row, in the flow run at work. Raises nothing: see `server.attempt`."""
    if server.seen() and series.rounds:
        key = server.key_of("series", str(series.recipe["name"]))
        promoted = sum(one.promoted for one in series.rounds)
        about = f"{promoted} of {len(series.rounds)} rounds promoted: {series.reason}; {series.improve}"
        server.attempt(
            "the table of the rounds", lambda: create_table_artifact(rounds_in_a_row(series), key, about)
        )
