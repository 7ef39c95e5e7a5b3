"""Votes of people: what they say, that one is one row, and whose count."""

import dataclasses

import pytest

from data import labels
from data.errors import DataError
from data.labels import Question, Vote
from data.queries import run_query

GOOD = Question("good", "Is the clip good?")
BETTER = Question("better", "Which is better?", "pair")
GRADE = Question("physics", "How right is it?", "grade", 1, 5)


def vote(answer, clip="c1", rater="ann", **more):
    return Vote(clip_id=clip, answer=answer, rater=rater, **more)


@pytest.mark.parametrize(
    ("question", "answer", "value"),
    [
        (GOOD, "yes", 1.0),
        (GOOD, "no", 0.0),
        (GOOD, "skip", None),
        (GRADE, "4", 4.0),
        (GRADE, "skip", None),
        (BETTER, "first", 1.0),
        (BETTER, "second", 0.0),
        (BETTER, "tie", 0.5),
        (BETTER, "both_bad", 0.5),
        (BETTER, "skip", None),
    ],
)
def test_an_answer_is_a_number_in_the_range_of_its_question(question, answer, value):
    other = "c2" if question.kind == "pair" else None
    row = labels.label(question, vote(answer, other_clip_id=other), "s")
    assert (row.value, row.low, row.high) == (value, question.low, question.high)
    assert (row.answer, row.kind, row.question_version) == (answer, question.kind, question.version)


@pytest.mark.parametrize(
    ("question", "said", "told"),
    [
        (GOOD, vote("perhaps"), "'perhaps' is not one of no, yes, skip"),
        (GRADE, vote("6"), "no grade from 1 to 5"),
        (GRADE, vote("nan"), "no grade from 1 to 5"),
        (BETTER, vote("first"), "of two clips"),
        (BETTER, vote("first", other_clip_id="c1"), "of two clips"),
        (GOOD, vote("yes", other_clip_id="c2"), "of one clip"),
        (GOOD, vote("yes", rater=""), "no rater"),
        (GOOD, vote("yes", gold="often"), "'often' is not one of"),
        (GOOD, vote("yes", shown_left="c9"), "not of the vote"),
        (GOOD, vote("yes", seconds=float("inf")), "seconds"),
        (GOOD, vote("yes", plays=-1), "plays -1"),
        (GOOD, vote("yes", at="at noon"), "ISO 8601"),
    ],
)
def test_what_is_no_vote_is_refused_in_words(question, said, told):
    with pytest.raises(DataError, match=told):
        labels.label(question, said, "s")


@pytest.mark.parametrize(
    "asked", [("", ), ("x", "", "grade", 5, 1), ("x", "", "yes_no", 0, 3), ("x", "", "rank")]
)  # fmt: skip
def test_questions_that_nobody_can_answer_are_refused(asked):
    with pytest.raises(DataError):
        Question(*asked)


def test_other_words_are_another_version_of_a_question():
    assert GOOD.version != Question("good", "Is it good?").version
    assert GOOD.version == Question("fine", "Is the clip good?").version
    assert GRADE.version != Question("physics", GRADE.words, "grade", 1, 4).version


def test_a_vote_is_one_row_whichever_clip_stood_first_and_wherever_it_is_read():
    one = labels.label(BETTER, vote("first", other_clip_id="c2", shown_left="c2"), "a file")
    turned = labels.label(BETTER, vote("second", "c2", other_clip_id="c1"), "another file")
    again = labels.label(BETTER, vote("first", other_clip_id="c2", repeat=1), "a file")
    assert one.label_id == turned.label_id != again.label_id
    assert labels.said(one) == labels.said(turned) == 1.0


def test_votes_are_kept_with_all_that_is_known_and_once(store):
    row = labels.label(
        GOOD,
        vote("yes", session="s1", at="2026-11-30T20:00:00+01:00", seconds=2.5, plays=2, gold="yes", repeat=1),
        "s1",
    )
    bare = labels.label(GOOD, vote("no", "c2"), "0" * 64)
    first = labels.commit(store, [row, bare])
    assert labels.commit(store, [bare, row]) == first
    assert row.at == "2026-11-30T19:00:00.000000+00:00"
    assert labels.every(store) == sorted([row, bare], key=lambda one: one.label_id)
    # The same vote from another source is no second one, and the view says the same.
    labels.commit(store, [dataclasses.replace(bare, source="f" * 64)])
    names, rows = run_query(store, "SELECT * FROM labels ORDER BY label_id")
    assert [dict(zip(names, one, strict=True)) for one in rows] == [
        dataclasses.asdict(one) for one in labels.every(store)
    ]


def counted(store):
    """Whose votes count, which Python and the view say alike."""
    asked = "SELECT label_id FROM counted_labels ORDER BY label_id"
    found = labels.counted(store)
    assert [row.label_id for row in found] == [row[0] for row in run_query(store, asked)[1]]
    return sorted((row.rater, row.session) for row in found)


def test_a_rater_is_excluded_later_and_can_be_taken_back(store):
    labels.commit(
        store,
        [
            labels.label(GOOD, vote("yes", rater=rater, session=session), session)
            for rater in ("ann", "bob")
            for session in ("s1", "s2")
        ],
    )
    everyone = [("ann", "s1"), ("ann", "s2"), ("bob", "s1"), ("bob", "s2")]
    assert counted(store) == everyone
    labels.exclude(store, "bob", "too quick", at="2026-11-30T10:00:00")
    assert counted(store) == [("ann", "s1"), ("ann", "s2")]
    labels.exclude(store, "bob", "looked again", session="s1", excluded=False, at="2026-11-30T11:00:00")
    labels.exclude(store, "ann", "was asleep", session="s2", at="2026-11-30T11:00:00")
    assert counted(store) == [("ann", "s1"), ("bob", "s1")]
    for rater in ("ann", "bob"):
        labels.exclude(store, rater, "all is well", excluded=False, at="2026-11-30T12:00:00")
    assert counted(store) == everyone
    assert len(labels.every(store)) == 4
    with pytest.raises(DataError, match="no label of rater 'eve'"):
        labels.exclude(store, "eve", "who?")
