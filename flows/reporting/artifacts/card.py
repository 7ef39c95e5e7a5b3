"""The card of a round: its verdict, its figures and its clips on one page of markdown."""

from __future__ import annotations

from data.store import Store
from flows.reporting.artifacts.lineage import mermaid
from flows.reporting.artifacts.sheets import groups_markdown
from flows.reporting.facts import Facts
from flows.reporting.page import template
from flows.reporting.report_link import link


def card(store: Store, facts: Facts) -> str:
    """What a round came to, for someone who has a minute.

    Args:
        store: holds the clips and the report.
        facts: of the round.
    """
    return template(
        "card.md.j2",
        facts=facts,
        summary=facts.summary,
        report=_report(store, facts.summary.round),
        clips=groups_markdown(store, facts.clips).rstrip() if facts.clips else "",
        lineage=mermaid(store, facts),
    )


def _report(store: Store, round_id: str) -> str:
    page = f"rounds/{round_id}/report.html"
    address = link(store.url, round_id)
    if address is not None:
        return f"[open it]({address}), the file `{store.where(page)}`"
    if store.has(page):
        return f"`{store.where(page)}`"
    return f"`vidloop report {round_id} --store {store.url}` writes it"
