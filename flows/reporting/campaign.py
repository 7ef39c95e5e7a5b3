"""Rounds in a row as one self-contained HTML page: success and guards over rounds, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from data.store import Store
from flows.reporting import charts, words
from flows.reporting.campaign_table import change, ratio, warnings
from flows.reporting.page import template
from tasks.campaign_record import FOLDER, Series


def build_page(store: Store, series: Series) -> Path:
    """Write the page beside the record, and return its path. Raises StoreError if it cannot be written."""
    return store.write_file(f"{FOLDER}/{series.improve}/report.html", render(series).encode("utf-8"))


def render(series: Series) -> str:
    """The page; no request leaves it."""
    guards = list(dict.fromkeys(name for one in series.rounds for name in one.guards))
    points = [
        charts.RoundPoint(
            one.number,
            one.primary.before,
            one.intervals["before"],
            one.primary.after,
            one.intervals["after"],
            one.promoted,
        )
        for one in series.rounds
        if one.primary.before is not None
    ]
    metric = series.rounds[0].primary.metric if points else "the metric"
    return template(
        "series.html.j2",
        series=series,
        guards=guards,
        metric=metric,
        chart=charts.rounds_chart(points, metric) if points else "",
        warnings=warnings(series),
        change=change,
        ratio=ratio,
        number=words.number,
        duration=words.duration,
        how=_HOW[series.recipe["improve"]["data"]],
    )


_HOW: Final = {
    "fresh": "its own clips only",
    "aggregated": "its own clips and those of all rounds before",
    "windowed": "its own clips and those of the rounds just before",
}
