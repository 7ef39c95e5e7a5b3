"""A round's report in the browser: by its own key, from one store, and with no way back into the UI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from data.store import Store
from flows.reporting.artifacts.card import card
from flows.reporting.read import find_summary, read_facts
from flows.reporting.report_link import AUTH_VARIABLE, REPORTS, link
from flows.rounds import prefect_hooks
from flows.serving import reports

AUTH = "vidloop:not a real secret"
ROUND = "20260101T000000Z-abc123"


@pytest.fixture
def browser(store: Store) -> TestClient:
    return TestClient(Starlette(routes=[reports.route(store.url, AUTH)]))


@pytest.fixture
def linked(store: Store, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a worker of the server that shows `store` writes into a card."""
    monkeypatch.setenv(REPORTS, str(store.root))
    monkeypatch.setenv(AUTH_VARIABLE, AUTH)
    found = link(store.url, ROUND)
    assert found is not None
    return found


def test_a_link_opens_the_report_and_nothing_else(
    store: Store, make_round: Callable[..., None], browser: TestClient, linked: str
) -> None:
    make_round(store)
    store.write_file(f"rounds/{ROUND}/report.html", b"<html>whole</html>")
    page = browser.get(linked)
    assert (page.status_code, page.text) == (200, "<html>whole</html>")
    assert page.headers["content-type"].startswith("text/html")
    # its scripts run without an origin: the UI's storage, with the auth string in it, is not theirs
    assert page.headers["content-security-policy"] == "sandbox allow-scripts"
    assert page.headers["cache-control"] == "no-store"
    other = linked.replace(ROUND, "20260102T000000Z-abc123")
    for wrong in (other, linked.split("?")[0], linked[:-1], f"{linked.split('?')[0]}?key=\N{SNOWMAN}"):
        refused = browser.get(wrong)
        assert (refused.status_code, "whole" in refused.text) == (403, False)
    assert browser.post(linked).status_code == 405


@pytest.mark.parametrize("round_id", ["20260102T000000Z-abc123", "..", "%2e%2e%2frounds", "a/b/"])
def test_a_round_that_is_not_there_is_said(store: Store, browser: TestClient, round_id: str) -> None:
    (store.root / "summary.json").write_text("{}")
    answer = browser.get(f"/reports/{round_id}", params={"key": reports.key_of(AUTH, unquote(round_id))})
    assert answer.status_code == 404
    assert "summary" not in answer.text


def test_a_report_that_was_not_written_yet_is_written_then(
    store: Store, make_round: Callable[..., None], browser: TestClient, linked: str
) -> None:
    """A round that came whole from the cache writes none by itself."""
    make_round(store)
    page = browser.get(linked)
    assert page.status_code == 200
    assert "Not promoted: diversity is broken" in page.text
    assert (store.root / "rounds" / ROUND / "report.html").is_file()


def test_a_report_that_cannot_be_written_is_said(
    store: Store, make_round: Callable[..., None], browser: TestClient, linked: str
) -> None:
    make_round(store)
    (store.root / "rounds" / ROUND / "summary.json").write_text("{")
    answer = browser.get(linked)
    assert answer.status_code == 500
    assert "could not be written" in answer.text
    assert "summary.json" in answer.text


def test_the_card_links_only_to_a_server_that_shows_its_store(
    store: Store,
    make_round: Callable[..., None],
    linked: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_round(store)
    facts = read_facts(store, find_summary(store, None))
    assert f"[open it]({linked})" in card(store, facts)
    assert AUTH not in card(store, facts)
    monkeypatch.setenv(REPORTS, str(tmp_path / "another"))
    assert "open it" not in card(store, facts)
    monkeypatch.setenv(REPORTS, str(store.root))
    monkeypatch.delenv(AUTH_VARIABLE)
    assert "open it" not in card(store, facts)


def test_it_comes_before_the_page_that_takes_every_path(
    store: Store, make_round: Callable[..., None], linked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect's whole application, as `prefect server start` makes it."""
    import prefect.server.api.server as server

    make_round(store)
    store.write_file(f"rounds/{ROUND}/report.html", b"<html>whole</html>")
    monkeypatch.setattr(server, "create_app", server.create_app)
    prefect_hooks.add_route(lambda: reports.route(store.url, AUTH))
    browser = TestClient(server.create_app(webserver_only=True, ignore_cache=True))
    assert browser.get(linked).text == "<html>whole</html>"
    assert browser.get("/").status_code == 200
    assert "whole" not in browser.get("/reports").text
