"""The page of `vidloop rate` over HTTP: what is voted is what the store holds, whatever happens in between."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from data import labels
from data.keys import digest
from data.store import Store
from tests.flows.rating.conftest import PAIRS, Page


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows", "rate", *map(str, words)], capture_output=True, text=True
    )


def say(client: httpx.Client, state: dict, answer: str, plays: int = 1) -> httpx.Response:
    asked = next(one for one in state["questions"] if one["answer"] is None)
    return client.post("vote", json={
        "number": state["number"], "question": asked["name"], "answer": answer, "seconds": 1.5, "plays": plays,
    })  # fmt: skip


def through(
    client: httpx.Client, answers=("left", "right", "tie", "both_bad"), most: int = 10_000
) -> list[tuple]:
    """Answer to the end, or `most` votes; what was sent: (number, question, answer)."""
    sent, state, shown = [], client.get("state").json(), 0
    while "questions" in state and len(sent) < most:
        if state["number"] != shown:
            shown = state["number"]
            time.sleep(0.3)  # the clips' length
        question = next(one["name"] for one in state["questions"] if one["answer"] is None)
        answer = answers[len(sent) % len(answers)]
        answer = answer(shown) if callable(answer) else answer
        answered = say(client, state, answer)
        assert answered.status_code == 200, answered.text
        sent.append((state["number"], question, answer))
        state = answered.json()
    return sent


def kept(store: Store, page: Page) -> Counter:
    """What the store holds, in the page's words: the side is the clip that stood there."""
    numbers = sqlite3.connect(page.state / f"{page.session}.rating").execute(
        "SELECT rater, number, item, repeat FROM shows"
    )
    place = {(rater, item, repeat): number for rater, number, item, repeat in numbers}
    found = Counter()
    for row in labels.every(store):
        answer = row.answer
        if answer in ("first", "second"):
            chosen = row.clip_id if answer == "first" else row.other_clip_id
            answer = "left" if chosen == row.shown_left else "right"
        item = digest(sorted([row.clip_id, row.other_clip_id]))[:16]
        found[row.rater, (place[row.rater, item, row.repeat], row.question, answer)] += 1
    return found


def test_votes_of_several_raters_are_in_the_store_as_they_were_sent(rated, serve):
    store = rated(8)
    page = serve(
        store, ["--clips", PAIRS, "--pairs", "8", "--rater", "ann", "--rater", "bob", "--repeats", "0.25"]
    )
    with ThreadPoolExecutor(2) as threads:
        sent = {name: threads.submit(through, page.client(name)) for name in ("ann", "bob")}
    sent = {name: votes.result() for name, votes in sent.items()}
    assert [len(votes) for votes in sent.values()] == [
        20,
        20,
    ]  # 8 items and 2 repetitions, two questions each
    assert page.client("ann").get("state").json() == {
        "done": 10, "total": 10, "undo": True, "seconds_left": 0.0, "finished": True,
    }  # fmt: skip
    assert "votes more are in" in page.end()
    assert kept(store, page) == Counter((name, vote) for name, votes in sent.items() for vote in votes)
    rows = labels.every(store)
    assert {(row.session, row.seconds, row.plays, row.repeat) for row in rows} == {
        (page.session, 1.5, 1, repeat) for repeat in (0, 1)
    }
    # Sides are drawn anew for each rater: neither policy is always on the left.
    assert {row.shown_left[:3] for row in rows} == {"aft", "bef"}
    told = json.loads(command("status", "--state", page.state, "-f", "json").stdout)
    assert told["complete"]
    assert told["votes"] == told["in_store"] == 40
    assert [one["repeats"] for one in told["raters"]] == [4, 4]
    assert all(-1 <= one["alpha"] <= 1 for one in told["agreement"])
    # The same command goes on with the same session; its links are as they were.
    again = serve(store, ["--clips", PAIRS, "--pairs", "8", "--rater", "ann", "--rater", "bob", "--repeats", "0.25"],
                  links=page.links)  # fmt: skip
    assert again.session == page.session
    assert again.client("bob").get("state").json()["finished"]
    assert "0 votes more" in again.end()
    assert len(labels.every(store)) == 40


def test_no_vote_is_lost_when_the_server_is_killed(rated, serve):
    store, words = rated(5), ["--pairs", "5", "--rater", "ann", "--repeats", "0", "--question", "prompt"]
    page, sent = serve(store, ["--clips", PAIRS, *words]), []
    for _ in range(3):
        sent += through(page.client("ann"), most=1)
        page.end(signal.SIGKILL)
        page = serve(store, ["--session", page.session], links=page.links)
        assert page.client("ann").get("state").json()["done"] == len(sent)
    sent += through(page.client("ann"))
    assert len(sent) == 5
    page.end(signal.SIGKILL)
    assert labels.every(store) == []
    assert command("commit", "--store", store.root, "--state", page.state).stdout.startswith("5 votes more")
    assert kept(store, page) == Counter(("ann", vote) for vote in sent)


def test_what_is_no_vote_is_refused_and_changes_nothing(rated, serve):
    store = rated(3, fps=4.5)  # two seconds each
    page = serve(
        store, ["--clips", PAIRS, "--pairs", "3", "--rater", "ann", "--rater", "bob", "--question", "prompt"]
    )
    client = page.client("ann")
    state = client.get("state").json()
    assert say(client, state, "left").json() == {"why": "Watch to the end first."}
    time.sleep(2)
    assert say(client, state, "left", plays=0).status_code == 422
    for answer in ("first", "yes", "", "x" * 65):
        assert say(client, state, answer).status_code == 422
    assert say(client, {**state, "number": 2}, "left").status_code == 409
    assert client.post("vote", content=b"{" + b" " * 3000 + b"}").status_code == 415
    assert (
        client.post("vote", content=b" " * 3000, headers={"Content-Type": "application/json"}).status_code
        == 413
    )
    assert client.post("vote", json={"number": 1, "question": "prompt", "answer": "left"}).status_code == 422
    assert client.get("state").json()["done"] == 0
    assert client.post("undo", json={}).status_code == 409

    # A vote that is sent again, for its answer did not come through, is one vote; another answer is none.
    assert say(client, state, "left").json()["done"] == 1
    assert say(client, state, "left").json()["done"] == 1
    assert say(client, state, "right").status_code == 409
    assert client.post("undo", json={}).json()["done"] == 0
    assert say(client, state, "right").json()["done"] == 1
    page.end()
    assert list(kept(store, page)) == [("ann", (1, "prompt", "right"))]
    again = serve(store, ["--session", page.session], links=page.links)
    assert again.client("ann").post("undo", json={}).status_code == 409  # the store forgets nothing


def test_a_forged_link_and_a_foreign_store_open_nothing(rated, serve, tmp_path):
    store = rated(3)
    page = serve(store, ["--clips", PAIRS, "--pairs", "3", "--rater", "ann", "--rater", "bob"])
    ann, bob = page.links["ann"], page.links["bob"]
    for path in ("/", "/r/", "/r/x/", "/r/x/state", f"{ann[len(page.address):-2]}x/", "/static/rate.html",
                 "/static/..%2fserver.py", "/docs", "/openapi.json"):  # fmt: skip
        refused = httpx.get(page.address + path)
        assert (refused.status_code, refused.text) == (404, "Not found\n")
    assert httpx.post(f"{page.address}/r/x/vote", json={}).status_code == 404
    opened = httpx.get(ann)
    assert opened.headers["content-security-policy"].startswith("default-src 'self'")
    assert opened.headers["referrer-policy"] == "no-referrer"
    assert "http" not in opened.text.replace("http-equiv", "")  # nothing from elsewhere

    # What one is shown the other cannot see before he is shown something himself; ranges are answered.
    assert page.client("ann").get("state").status_code == 200
    assert httpx.get(f"{bob}video/1/left").status_code == 404
    whole = httpx.get(f"{ann}video/1/left")
    part = httpx.get(f"{ann}video/1/left", headers={"Range": "bytes=4-7"})
    assert (whole.status_code, part.status_code, part.content) == (200, 206, b"ftyp")
    assert whole.headers["last-modified"] == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert whole.content != httpx.get(f"{ann}video/1/right").content
    for path in ("2/left", "0/left", "-1/left", "1/up", "1/" + "9" * 400, "9" * 400 + "/left"):
        assert httpx.get(f"{ann}video/{path}").status_code == 404

    # A new link voids the old one; the tokens themselves are nowhere.
    link = command("link", page.session, "ann", "--state", page.state)
    assert httpx.get(ann).status_code == 404
    assert httpx.get(page.address + link.stdout.split()[1]).status_code == 200
    assert bob.split("/")[-2].encode() not in (page.state / f"{page.session}.rating").read_bytes()
    other = Store.open(tmp_path / "other", create=True)
    for words in (["--session", page.session], ["commit"], ["exclude", page.session, "ann", "--reason", "x"]):
        refused = command(*words, "--state", page.state, "--store", other.root)
        assert refused.returncode == 2
        assert f"is of the store {store.url}, and not of {other.url}" in refused.stderr


def test_a_rater_can_be_left_out(rated, serve):
    store = rated(4)
    page = serve(store, ["--clips", PAIRS, "--pairs", "4", "--rater", "ann", "--rater", "bob", "--votes", "1",
                         "--question", "prompt", "--repeats", "0"])  # fmt: skip
    assert len(through(page.client("bob"))) == 4
    assert page.client("ann").get("state").json()["finished"]  # each item has the vote that it wants
    out = command("exclude", page.session, "bob", "--reason", "did not look", "--store", store.root, "--state",
                  page.state)  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert page.client("bob").get("state").json() == {"closed": True}
    assert page.client("bob").post("undo", json={}).status_code == 410
    assert httpx.get(page.links["bob"] + "video/1/left").status_code == 404
    assert len(through(page.client("ann"))) == 4  # bob's cover nothing any more
    page.end()
    assert {row.rater for row in labels.counted(store)} == {"ann"}
    assert len(labels.every(store)) == 8
    told = command("status", "--state", page.state).stdout
    assert "excluded: did not look" in told


@pytest.mark.parametrize(("pairs", "raters"), [
    pytest.param(12, 6, id="144 votes"),
    pytest.param(250, 20, id="10,000 votes", marks=[pytest.mark.slow]),
])  # fmt: skip
def test_many_raters_at_once_lose_nothing_under_kill(rated, serve, pairs: int, raters: int):
    store, names = rated(pairs), [f"r{n}" for n in range(raters)]
    words = ["--repeats", "0", "--pairs", str(pairs), *(word for name in names for word in ("--rater", name))]
    page = serve(store, ["--clips", PAIRS, *words])
    sent: Counter = Counter()
    for part in (pairs // 2, 2 * pairs):
        with ThreadPoolExecutor(raters) as threads:
            votes = {name: threads.submit(through, page.client(name), most=part) for name in names}
        sent.update((name, vote) for name, found in votes.items() for vote in found.result())
        page.end(signal.SIGKILL)
        page = serve(store, ["--session", page.session], links=page.links)
    page.end()
    assert sent.total() == 2 * pairs * raters
    assert kept(store, page) == sent


def test_known_answers_and_agreement_tell_the_lazy_rater(rated, serve, commit, make_score):
    store, better = rated(12), {n: "after" if n % 3 else "before" for n in range(12)}
    commit("score", scores=[make_score(f"{side}{n:04}", float(side == better[n])) for n in range(12)
                            for side in ("before", "after")])  # fmt: skip
    page = serve(store, [
        "--clips", PAIRS, "--pairs", "8", "--golds", "4", "--gold-reward", "prompt=physics", "--rater", "ann",
        "--rater", "bob", "--rater", "lazy", "--question", "prompt", "--repeats", "0.25",
    ])  # fmt: skip

    def careful(rater: str, number: int) -> str:
        shown = "SELECT shown_left FROM shows WHERE rater = ? AND number = ?"
        with sqlite3.connect(page.state / f"{page.session}.rating") as session:
            ((left,),) = session.execute(shown, [rater, number])
        return "left" if left == f"{better[int(left[-4:])]}{left[-4:]}" else "right"

    with ThreadPoolExecutor(3) as threads:
        sent = [
            threads.submit(through, page.client(name), answers=(lambda n, name=name: careful(name, n),))
            for name in ("ann", "bob")
        ]
        sent.append(threads.submit(through, page.client("lazy"), answers=("left",)))
    assert [len(votes.result()) for votes in sent] == [14, 14, 14]  # 8, 4 that are known, 2 again
    page.end()
    known = [row for row in labels.every(store) if row.gold is not None and row.rater == "ann"]
    assert len(known) == 4
    assert all(row.answer == row.gold for row in known)
    told = json.loads(command("status", "--state", page.state, "-f", "json").stdout)
    found = {one["name"]: (one["gold"], one["golds"], one["again"], one["repeats"]) for one in told["raters"]}
    assert found["ann"] == found["bob"] == (1.0, 4, 1.0, 2)
    assert found["lazy"][0] < 1
    assert told["agreement"][0]["alpha"] < 0.7
    assert command("exclude", page.session, "lazy", "--reason", "always left", "--store", store.root,
                   "--state", page.state).returncode == 0  # fmt: skip
    again = json.loads(command("status", "--state", page.state, "-f", "json").stdout)
    assert again["agreement"][0]["alpha"] == 1.0
