"""Every query that the report suggests is answered, with its numbers."""

import html
import re

from data.queries import run_query
from data.store import Store
from flows.reporting import build_report


def test_queries_of_the_report_lead_to_its_numbers(reported: Store) -> None:
    page = build_report(reported).read_text("utf-8")
    queries = re.findall(r"vidloop query &#34;(.*?)&#34;|vidloop query \"(.*?)\"</pre>", page, re.DOTALL)
    answers = [run_query(reported, html.unescape(a or b)) for a, b in queries]
    assert len(answers) == 3
    names, rows = answers[0]
    assert names == ["policy_id", "split", "category", "success", "clips"]
    assert [row[3:] for row in rows if row[1] == "heldout"] == [(5 / 12, 12)] * 5 + [(8 / 12, 12)] * 5
