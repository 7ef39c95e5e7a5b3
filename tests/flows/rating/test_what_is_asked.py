"""What a session asks, of which clips, and in which order."""

from __future__ import annotations

import json

import pytest

from data.errors import ConfigError, DataError, StoreError
from data.store import Store
from flows.rating import choose, session
from flows.rating.make import Wish, check_store, make
from flows.rating.questions import read_questions
from flows.rating.session import Given
from rewards.judge.rubric import load_rubric
from tests.flows.rating.conftest import PAIRS

CLIPS = "SELECT clip_id FROM clips ORDER BY 1"


def answer(found, rater: str, say: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Answer all that a rater is asked of his next item; which it was."""
    number = session.state(found, rater)["number"]
    monkeypatch.setattr(session, "_SLACK_S", 60.0)  # nobody waits for the clips here
    while (told := session.state(found, rater)).get("number") == number:
        asked = next(one for one in told["questions"] if one["answer"] is None)
        session.vote(found, rater, Given(number, asked["name"], say, 2.0, 1))
    return found.rows("SELECT item FROM shows WHERE rater = ? AND number = ?", rater, number)[0][0]


def test_a_rubrics_words_are_asked_to_the_letter():
    rubric = load_rubric("rewards/judge/rubrics/general.yaml")
    words = {one.id: one.text for one in rubric.questions}
    (task,) = read_questions(["general:task"], pairs=False)
    assert (task.question.name, task.question.words, task.question.kind) == ("task", words["task"], "yes_no")
    (bad,) = read_questions(["general:inconsistencies"], pairs=True)
    assert bad.question.kind == "pair"
    assert bad.question.words == f'Which clip earns the answer "no" rather? {words["inconsistencies"]}'
    (own,) = read_questions(["smooth=Which moves more smoothly?"], pairs=True)
    assert (own.question.name, own.question.words) == ("smooth", "Which moves more smoothly?")
    for named, why in ((["promt"], "did you mean 'prompt'"), (["general:tusk"], "did you mean 'task'"),
                       (["prompt", "prompt=x"], "two questions are called prompt")):  # fmt: skip
        with pytest.raises(ConfigError, match=why):
            read_questions(named, pairs=True)


def test_a_law_is_asked_where_it_concerns_the_prompt(rated, tmp_path):
    store, texts = rated(4), [f"a red ball falls {n}" for n in range(4)]
    said = [
        {"text": text, "category": "x", "laws": ["support"] if n < 2 else []} for n, text in enumerate(texts)
    ]
    (tmp_path / "laws.jsonl").write_text("\n".join(map(json.dumps, said)))
    wish = Wish(
        ["ann"], clips=PAIRS, questions=["prompt", "physics:support"], laws=[str(tmp_path / "laws.jsonl")]
    )
    found, _ = make(store, tmp_path / "ratings", wish)
    asked = {item.clips[0].prompt: item.questions for item in found.items.values()}
    assert [len(asked[text]) for text in texts][2:] == [1, 1]
    assert all(asked[text][1].startswith("support") for text in texts[:2])
    with pytest.raises(ConfigError, match="--laws"):
        make(store, tmp_path / "ratings", Wish(["ann"], clips=PAIRS, questions=["physics:support"]))


def test_the_least_covered_comes_first_and_then_the_most_uncertain(rated, tmp_path, monkeypatch):
    wish = Wish(["ann", "bob", "cem"], clips=PAIRS, questions=["prompt"], votes=3, repeats=0)
    found, tokens = make(rated(4), tmp_path / "ratings", wish)
    assert session.rater_of(found, tokens["cem"]) == "cem"
    assert session.rater_of(found, tokens["cem"][:-1]) is None
    open_ones = [answer(found, "ann", "tie", monkeypatch), answer(found, "ann", "tie", monkeypatch)]
    assert set(choose.left(found, "bob").plain[2:]) == set(open_ones)  # those without a vote come before
    for rater in ("ann", "bob"):
        while "number" in session.state(found, rater):
            ((left,),) = found.rows(
                "SELECT shown_left FROM shows WHERE rater = ? ORDER BY number DESC LIMIT 1", rater
            )
            answer(found, rater, "left" if left.startswith("after") else "right", monkeypatch)
    # Two are answered alike by both; of the others one said that neither is better.
    assert set(choose.left(found, "cem").plain[:2]) == set(open_ones)
    session.exclude(found, "ann", "away")
    assert len(choose.left(found, "cem").plain) == 4


def test_single_clips_and_the_same_wish_again(rated, tmp_path):
    store = rated(2)
    found, tokens = make(store, tmp_path / "ratings", Wish(["ann"], clips=CLIPS))
    told = session.state(found, "ann")
    assert told["sides"] == ["left"]
    assert [(one["name"], one["kind"]) for one in told["questions"]] == [
        ("task", "yes_no"),
        ("physics", "yes_no"),
    ]
    assert told["prompt"] in told["questions"][0]["words"]
    again, none = make(store, tmp_path / "ratings", Wish(["ann"], clips=CLIPS))
    assert (again.plan, none, bool(tokens)) == (found.plan, {}, True)
    other, _ = make(store, tmp_path / "ratings", Wish(["ann"], clips=CLIPS, seed=1))
    assert other.plan.session != found.plan.session
    check_store(found, store)
    with pytest.raises(StoreError, match="and not of"):
        check_store(found, Store.open(tmp_path / "other", create=True))


@pytest.mark.parametrize(("wish", "why"), [
    ({"clips": "SELECT 1, 2, 3"}, "has 3 columns"),
    ({"clips": "SELECT 'c9'"}, "has no clip 'c9'"),
    ({"clips": "SELECT clip_id, clip_id FROM clips"}, "with itself"),
    ({"clips": "SELECT 'before0000', 'after0001'"}, "are of two prompts"),
    ({"clips": "SELECT clip_id FROM clips WHERE false"}, "nothing to rate"),
    ({"clips": PAIRS, "votes": 3}, "--votes 3: each item can have from 1 to 2"),
    ({"clips": PAIRS, "raters": ["ann", "ann"]}, "each has a name of his own"),
    ({"clips": PAIRS, "golds": 3}, "known of 0 of these items"),
    ({"clips": PAIRS, "golds": 1, "gold_rater": "eve"}, "has no label of his"),
    ({"clips": PAIRS, "golds": 1, "gold_reward": "prompt=physics"}, "has no score of 'physics'"),
    ({"clips": PAIRS, "golds": 1, "gold_reward": "looks=physics"}, "of a question that is asked"),
    ({}, "no finished round"),
])  # fmt: skip
def test_what_cannot_be_asked_is_said(rated, tmp_path, wish: dict, why: str):
    with pytest.raises((ConfigError, DataError, StoreError), match=why):
        make(rated(2), tmp_path / "ratings", Wish(**{"raters": ["ann", "bob"], **wish}))
    assert not (tmp_path / "ratings").exists()
