"""Every query that docs/store.md and the report suggest is answered."""

import html
import re
from pathlib import Path

import pytest

from data.queries import run_query
from data.store import Store
from flows.reporting import build_report

ROOT = Path(__file__).resolve().parents[3]


def documented() -> list[str]:
    text = (ROOT / "docs" / "store.md").read_text("utf-8")
    block = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)[0]
    return [sql.strip() for sql in re.split(r"\n\n", block)]


@pytest.mark.parametrize("sql", documented())
def test_queries_of_the_page_on_the_store_are_answered(sql: str, reported: Store) -> None:
    names, _ = run_query(reported, sql)
    assert names


def test_queries_of_the_report_lead_to_its_numbers(reported: Store) -> None:
    page = build_report(reported).read_text("utf-8")
    queries = re.findall(r"vidloop query &#34;(.*?)&#34;|vidloop query \"(.*?)\"</pre>", page, re.DOTALL)
    answers = [run_query(reported, html.unescape(a or b)) for a, b in queries]
    assert len(answers) == 3
    names, rows = answers[0]
    assert names == ["policy_id", "split", "category", "success", "clips"]
    assert [row[3:] for row in rows if row[1] == "heldout"] == [(5 / 12, 12)] * 5 + [(8 / 12, 12)] * 5
