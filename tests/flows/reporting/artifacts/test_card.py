"""The card of a round and its tables: what they say is what the store and the summary say."""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from markdown_it import MarkdownIt

from data.records import Policy
from data.store import Store
from flows.reporting.artifacts.card import card
from flows.reporting.artifacts.lineage import ancestors, mermaid
from flows.reporting.artifacts.tables import gains_by_category, rewards_by_category
from flows.reporting.facts import Facts
from flows.reporting.read import find_summary, read_facts
from flows.rounds.approval import question


@pytest.fixture(scope="module")
def facts(reported: Store) -> Facts:
    return read_facts(reported, find_summary(reported, None))


def cells(text: str, first: str) -> list[str]:
    """The row of a table that begins with `first`."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_card_says_verdict_gain_guards_and_where_the_report_is(reported: Store, facts: Facts) -> None:
    text = card(reported, facts)
    assert text.startswith("# Not promoted: mini, dpo-anchor\n")
    assert (
        "66.7% of held-out clips obey physics, 41.7% did before (+25.0 points, 95% interval +11.0 to +39.0)"
        in text
    )
    assert cells(text, "falling down")[1:5] == ["41.7%", "66.7%", "+25.0", "\N{MINUS SIGN}8.0 to +58.0"]
    assert cells(text, "motion") == ["motion", "1.31", "1.42", "1.08", "0.9 to 1.2", "holds"]
    assert cells(text, "diversity")[4:] == ["from 0.8", "**broken**"]
    assert cells(text, "flicker")[1:] == ["not measured", "not measured", "not measured", "-", "not measured"]
    # A reason is text, also where it looks like a tag.
    assert "- flicker: clips have \\<2 frames" in text
    assert f"`vidloop report {facts.summary.round} --store {reported.root}` writes it" in text
    assert len(text.encode()) < 400_000
    blocks = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    assert not [block for block in blocks if block.type == "html_block"]
    assert [block.info for block in blocks if block.type == "fence"] == ["mermaid"]


def test_the_report_is_named_once_it_is_there(store: Store, make_round: Callable[..., None]) -> None:
    make_round(store)
    page = "rounds/20260101T000000Z-abc123/report.html"
    store.write_file(page, b"<html>")
    assert f"Whole report: `{store.root / page}`" in card(store, read_facts(store, find_summary(store, None)))


def test_a_round_that_learned_nothing_has_a_card_too(store: Store, make_round: Callable[..., None]) -> None:
    nothing = {
        "metric": "physics",
        "before": None,
        "after": None,
        "delta": None,
        "ci_low": None,
        "ci_high": None,
        "n": 0,
    }
    make_round(
        store, policy_after=None, verdict="no training data", guards={}, categories={}, also={},
        primary=nothing | {"reason": "every prompt's clips all failed"},
    )  # fmt: skip
    facts = read_facts(store, find_summary(store, None))
    text = card(store, facts)
    assert "No comparison was made in this round: every prompt's clips all failed" in text
    assert "## Clips" not in text
    assert gains_by_category(facts) == []


def test_gains_are_the_gates_own(reported: Store, facts: Facts) -> None:
    rows = {row["category"]: row for row in gains_by_category(facts)}
    assert next(iter(rows)) == "all held-out"
    assert list(rows)[-1] == "all unseen"
    assert (rows["all held-out"]["gain"], rows["all held-out"]["low"], rows["all held-out"]["high"]) == (
        0.25,
        0.11,
        0.39,
    )
    assert rows["all unseen"]["failed"] == 2  # the same clip under both policies
    assert json.dumps(list(rows.values()), allow_nan=False)


def test_rewards_by_category_are_means_of_the_rows(reported: Store, facts: Facts) -> None:
    rows = {str(row["category"]): row for row in rewards_by_category(facts)}
    key = find_summary(reported, None).stages["generate"].key
    clips = {clip.clip_id: clip for clip in reported.read(key, "clips")}
    scores = reported.read(find_summary(reported, None).stages["score"].key, "scores")
    for name, row in rows.items():
        mine = [one for one in scores if name in ("all", clips[one.clip_id].category)]
        for reward in ("physics", "clip"):
            values = [one.value for one in mine if one.reward == reward and one.value is not None]
            assert row[reward] == pytest.approx(sum(values) / len(values), abs=5e-5)
        assert row["failed"] == sum(one.value is None for one in mine)
    assert rows["all"]["clips"] == 60
    assert sum(int(row["clips"] or 0) for row in rows.values()) == 120
    assert sum(int(row["failed"] or 0) for row in rows.values()) > 0


def policy(ident: str, parents: list[str], steps: int) -> Policy:
    return Policy(ident, "base", parents, "dpo", "d", "", "", 4, 4.0, ["to_q"], steps, "{}", "[]")


def edges(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^ +(\w+) --> (\w+)$", text, re.MULTILINE)


def test_the_lineage_goes_back_to_the_base_and_counts_what_is_not_drawn(
    store: Store, make_round: Callable[..., None]
) -> None:
    line = ["b" + "0" * 24, *(f"q{n}" + "x" * 23 for n in range(6))]
    for n, (parent, child) in enumerate(pairwise(line)):
        store.commit("finetune", {"stage": "finetune", "n": n}, {"policies": [policy(child, [parent], n)]})
    assert [told[1] for told in ancestors(store, line[-1])] == [one[:12] for one in line]
    make_round(store, policy_before=line[-1])
    drawn = mermaid(store, read_facts(store, find_summary(store, None)))
    assert drawn.startswith("```mermaid\ngraph TD\n")
    assert '    older["3 older policies"]' in drawn
    assert '    p3["Policy<br/>q5xxxxxxxxxx<br/>dpo, 5 steps"]' in drawn
    assert '    gate["Not promoted"]' in drawn
    assert edges(drawn) == [
        ("older", "p0"), ("p0", "p1"), ("p1", "p2"), ("p2", "p3"), ("p3", "clips"), ("clips", "scores"),
        ("scores", "data"), ("data", "after"), ("p3", "gate"), ("after", "gate"),
    ]  # fmt: skip


def test_no_label_ends_its_quote(store: Store, make_round: Callable[..., None]) -> None:
    odd: dict[str, Any] = {"policy_before": 'x"] --> hacked["<b>#;'}
    make_round(store, **odd)
    drawn = mermaid(store, read_facts(store, find_summary(store, None)))
    assert "<br/>x#34;#93; --#" in drawn
    assert all(line.count('"') in (0, 2) for line in drawn.splitlines())


def test_a_person_is_asked_with_verdict_tables_and_clips(reported: Store) -> None:
    summary = find_summary(reported, None)
    text = question(reported, summary, "2026-01-02T00:00:00+00:00")
    assert f"candidate of round {summary.round}?" in text
    assert "Not promoted: diversity is broken" in text
    assert "| physics | before | after | change (interval) |" in text
    assert "| all held-out clips | 0.417 | 0.667 | +0.25 (+0.11 to +0.39) |" in text
    assert "- diversity: overall 0.62 times what it was" in text
    assert "data:image/" in text
    damaged = summary.changed(
        stages={**summary.stages, "evaluate": summary.stages["evaluate"].changed(key="0" * 64)}
    )
    assert "all held-out clips" in question(reported, damaged, "2026-01-02T00:00:00+00:00")
