"""Reporting: a finished round as one HTML file that opens anywhere.

    summary.json + views of the store -> facts -> charts, clips -> page -> STORE/rounds/<round id>/report.html

What comes in: a store and a round id. What goes out: the path of a self-contained page (no request leaves
it), and contact sheets for people in a hurry. Who calls: the round, and `vidloop report`.

Open first: `facts` (what a report says), then `read` (where each number comes from). After that

    measures        rewards that did not teach, and how often the candidate wins
    seeds           rounds that differ in the seed alone
    paired_clips    which clips are shown, and how they are packed
    charts          inline SVG, made by svg
    words           numbers and findings in words
    page            the one maker of pages; page/ holds templates, style and script
    sheet           contact sheets
    bundle/         all that an outsider needs to check a round, as a folder
"""

from __future__ import annotations

from pathlib import Path

from data.store import Store
from flows.reporting.sheet import sheet

__all__ = ["build_report", "sheet"]


def build_report(store: Store, round_id: str | None = None) -> Path:
    """Write the report of a round, or of the newest one. An earlier report is replaced.

    Returns:
        Its path on this machine: of a store that is no folder, of a copy.

    Raises:
        StoreError: no such round.
        StoreError: rows the report needs were changed or are missing, or the store is read-only.
    """
    from flows.reporting.page import render
    from flows.reporting.paired_clips import pack
    from flows.reporting.read import find_summary, read_facts

    facts = read_facts(store, find_summary(store, round_id))
    page = render(facts, pack(store, facts.clips))
    path = f"rounds/{facts.summary.round}/report.html"
    store.write_file(path, page.encode("utf-8"))
    return store.local(path)
