"""A person in a browser: logs in, fills in the form of the round, watches it, and opens its card."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import PATIENCE_MS, Tab, browsing
from tests.served import Served, newest_summary, serving

pytestmark = pytest.mark.slow

# Prefect's page asks there for its settings, whatever the server's own settings say; here nobody answers.
ANALYTICS = "sr-client-cfg.amplitude.com"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), tiny_model) as one:
        yield one


@pytest.fixture
def tab(served: Served, tmp_path: Path) -> Iterator[Tab]:
    with browsing(served.config.ui, tmp_path / "shots") as one:
        yield one


def log_in(tab: Tab, auth: str) -> None:
    tab.open("/")
    tab.page.get_by_placeholder("admin:pass").fill(auth)
    tab.page.get_by_role("button", name="Login").click()
    tab.page.get_by_role("link", name="Deployments").wait_for()


def send_form(tab: Tab, recipe: str) -> str:
    """Fill in the round's form and send it; the run's id."""
    page = tab.page
    page.get_by_role("link", name="Deployments").click()
    page.get_by_role("link", name="round", exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    tab.shot("deployment")
    page.get_by_role("menuitem", name="Custom run").click()
    page.get_by_text("The stages before this one must be whole in the store.").wait_for()
    page.get_by_role("button", name="Select Recipe").click()
    tab.shot("recipes")
    page.get_by_role("option", name=recipe).click()
    page.get_by_label("Seed (Optional)").fill("3")
    page.get_by_label("Steps (Optional)", exact=True).fill("4")
    form = page.locator("form")
    for said in ("Generate", "Score", "Curate", "Finetune", "Evaluate", "Other settings", "Optimiser steps."):
        assert said in form.inner_text()
    assert "[object Object]" not in form.inner_text()
    tab.shot("form", whole=True)
    with page.expect_response(lambda one: one.url.endswith("/create_flow_run")) as answered:
        page.get_by_role("button", name="Submit").click()
    assert answered.value.ok
    return str(answered.value.json()["id"])


def test_from_the_form_to_the_card(served: Served, tab: Tab) -> None:
    page = tab.page
    log_in(tab, served.auth)
    tab.shot("dashboard")
    run = send_form(tab, str(served.tiny.recipe))

    tab.open(f"/v2/runs/flow-run/{run}")
    page.get_by_role("tab", name="Logs").wait_for()
    tab.shot("run-begins")
    page.get_by_text("Completed", exact=True).first.wait_for()
    summary = newest_summary(served.tiny.store)
    assert (summary["recipe"]["seed"], summary["recipe"]["finetune"]["steps"]) == (3, 4)
    page.get_by_text(f"tiny dpo-anchor seed 3, round {summary['round']}").first.wait_for()
    page.get_by_role("tab", name="Logs").click()
    # Only lines in sight are drawn, so the last ones first.
    page.get_by_text("Oldest to newest").click()
    page.get_by_role("option", name="Newest to oldest").click()
    page.get_by_text("Finished in state Completed()").first.wait_for()
    page.get_by_text(re.compile("^Not promoted")).first.wait_for()
    tab.shot("log")

    # The bar of the round is full, and its card two clicks away.
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("all 5 stages done").wait_for()
    tab.shot("artifacts")
    page.get_by_text("round-report-tiny").click()
    # The cards of all rounds of this recipe.
    page.get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).first.click()
    card_is_whole(tab, served, summary["round"])
    page.locator("svg[id^=mermaid]").first.wait_for()
    assert "Not promoted" in page.locator("svg[id^=mermaid]").first.inner_html()
    tab.shot("card", whole=True)

    # A click away: the whole report, which cannot reach what the UI keeps in the browser.
    page.get_by_role("link", name="open it").click()
    page.wait_for_url(f"**/reports/{summary['round']}?key=*", wait_until="load")
    page.get_by_role("heading", name=f"vidloop round {summary['round']}").wait_for()
    assert page.evaluate("() => origin") == "null"
    tab.shot("report")

    tab.open("/v2/artifacts/key/rewards-tiny")
    page.get_by_text(f"Training clips by category, round {summary['round']}").first.wait_for()
    assert tab.outside <= {ANALYTICS}


def test_no_form_needs_anything_filled_in(served: Served, tab: Tab) -> None:
    """What the page sends of every deployment's form that nobody touched is what the server takes."""
    page = tab.page
    log_in(tab, served.auth)
    held = {one["name"]: one for one in served.ask("/deployments/filter", {})}
    # Or ten runs would begin.
    page.route(
        "**/create_flow_run", lambda route: route.fulfill(status=418, json={"detail": "not in a test"})
    )
    for name, deployment in held.items():
        tab.open(f"/v2/deployments/deployment/{deployment['id']}/run")
        page.get_by_text("Store (Optional)").wait_for()
        # Until it is answered: a page that closes before lets the request through.
        with page.expect_response("**/create_flow_run") as answered:
            page.get_by_role("button", name="Submit").click()
        assert answered.value.status == 418
        values = answered.value.request.post_data_json["parameters"]
        assert values["store"] == str(served.tiny.store)
        form = {"schema": deployment["parameter_openapi_schema"], "values": values}
        assert served.ask("/ui/schemas/validate", form) == {"errors": [], "valid": True}, (name, values)
    begun = {"deployments": {"name": {"any_": ["study"]}}}
    assert served.ask("/flow_runs/filter", begun) == []


def card_is_whole(tab: Tab, served: Served, round_id: str) -> None:
    """Headings, figures and clips of the card on the page, each picture decoded."""
    page = tab.page
    page.get_by_role("heading", name="Not promoted: tiny, dpo-anchor").wait_for()
    for heading in ("Before and after", "Guards", "Clips", "Lineage", "Stages"):
        page.get_by_role("heading", name=heading, exact=True).wait_for()
    page.get_by_role("cell", name="motion", exact=True).wait_for()
    page.get_by_text(str(served.tiny.store / "rounds" / round_id / "report.html")).first.wait_for()
    clips = page.locator("img[src^='data:image']")
    clips.first.wait_for()
    assert clips.evaluate_all("all => all.every(one => one.complete && one.naturalWidth > 300)")


def test_the_older_page_shows_the_card_too(served: Served, tab: Tab) -> None:
    run = served.run("round", seed=4)
    served.until(run, "COMPLETED")
    summary = newest_summary(served.tiny.store)
    log_in(tab, served.auth)
    tab.open(f"/runs/flow-run/{run}")
    tab.page.get_by_text("Artifacts", exact=True).first.click()
    tab.page.get_by_text("round-report-tiny").first.click(timeout=PATIENCE_MS)
    card_is_whole(tab, served, summary["round"])
    tab.shot("older-card", whole=True)
    assert tab.outside <= {ANALYTICS}
