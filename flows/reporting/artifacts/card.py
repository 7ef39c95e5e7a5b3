"""The card of a round: its verdict, its figures and its clips on one page of markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from data.store import Store
from flows.reporting import words
from flows.reporting.artifacts.lineage import mermaid
from flows.reporting.artifacts.markdown import plain
from flows.reporting.artifacts.sheets import EACH, LIMIT, groups_markdown
from flows.reporting.facts import Facts
from flows.reporting.report_link import link
from tasks.summary import Change, GuardFinding, StageSummary

_OUTCOME: Final = {True: "holds", False: "**broken**", None: "not measured"}


def card(store: Store, facts: Facts, each: int = EACH, limit: int = LIMIT) -> str:
    """What a round came to, for someone who has a minute.

    Args:
        store: holds the clips and the report.
        facts: of the round.
        each: clips of each kind that are shown at most.
        limit: bytes that the clips may take.
    """
    summary = facts.summary
    title = "Promoted" if summary.promoted else "Not promoted"
    parts = [
        f"# {title}: {plain(summary.recipe_name)}, {plain(summary.objective)}",
        plain(words.sentence(facts)),
        plain(words.verdict(facts)),
        f"Round `{summary.round}`, taught by `{summary.feedback}`. "
        f"Whole report: {_report(store, summary.round)}.",
    ]
    if facts.comparisons:
        parts += ["## Before and after", _compared(facts)]
    if summary.guards:
        parts += ["## Guards", guards_table(summary.guards)]
    if facts.findings:
        told = [
            f"- {f'**{plain(one.name)}**: ' if one.name else ''}{plain(one.text)}" for one in facts.findings
        ]
        parts += ["## What the training shows", "\n".join(told)]
    if facts.clips:
        parts += ["## Clips", groups_markdown(store, facts.clips, each, limit).rstrip()]
    parts += ["## Lineage", mermaid(store, facts), "## Stages", _stages(summary.stages)]
    return "\n\n".join(parts) + "\n"


def _report(store: Store, round_id: str) -> str:
    page = store.path(f"rounds/{round_id}/report.html")
    address = link(store.root, round_id)
    if address is not None:
        return f"[open it]({address}), the file `{page}`"
    if page.is_file():
        return f"`{page}`"
    return f"`vidloop report {round_id} --store {store.root}` writes it"


def _compared(facts: Facts) -> str:
    rate = words.is_rate(facts.summary)
    show, change = (words.percent, words.points) if rate else (words.number, words.signed)
    gain = "gain in points" if rate else "gain"
    rows = []
    for one in facts.comparisons:
        known = one.low is not None and one.high is not None
        interval = f"{change(one.low)} to {change(one.high)}" if known else words.NOT_MEASURED
        clips = f"{one.after.clips}" + (f" ({one.after.failed} failed)" if one.after.failed else "")
        values = (show(one.before.value), show(one.after.value), change(one.delta), interval, clips)
        rows.append((plain(one.label), *values))
    head = (plain(facts.summary.primary.metric), "before", "after", gain, "95% interval", "clips")
    return table(head, rows)


def changes_table(changes: Mapping[str, Change]) -> str:
    """Metrics before and after, by what they were measured on; nothing but the summary is needed."""
    rows = []
    for name, one in changes.items():
        known = one.ci_low is not None and one.ci_high is not None
        interval = f" ({words.signed(one.ci_low)} to {words.signed(one.ci_high)})" if known else ""
        gained = words.signed(one.delta) + interval
        rows.append((plain(name), words.number(one.before), words.number(one.after), gained))
    metric = next(iter(changes.values())).metric
    return table((plain(metric), "before", "after", "change (interval)"), rows)


def guards_table(guards: Mapping[str, GuardFinding]) -> str:
    """Guards before and after, and under the table why one is broken or was not measured."""
    rows = [
        (
            plain(name),
            words.number(one.before),
            words.number(one.after),
            words.ratio(one.before, one.after),
            _OUTCOME[one.ok],
        )
        for name, one in guards.items()
    ]
    # Reasons are long, and a cell of the V1 UI never breaks its line.
    reasons = [f"- {plain(name)}: {plain(one.reason)}" for name, one in guards.items() if one.reason]
    shown = table(("guard", "before", "after", "after / before", "verdict"), rows, text=(0, 4))
    return "\n\n".join([shown, *(["\n".join(reasons)] if reasons else [])])


def _stages(stages: Mapping[str, StageSummary]) -> str:
    rows = [
        (name, words.duration(one.seconds), str(one.shards), str(one.cached_shards), str(one.failed))
        for name, one in stages.items()
    ]
    return table(("stage", "took", "units", "from the cache", "failed"), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int] = (0,)) -> str:
    """A table in markdown. Cells are markdown already; columns of `text` are flush left, the others right."""
    marks = [":--" if column in text else "--:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, marks, *rows))
