"""People as a reward: agreement, too few raters, pairs; and that a version is of labels."""

import numpy as np
import pytest

from data import labels
from data.errors import ConfigError
from data.labels import Question, Vote
from rewards import LoadedClip, build_reward, reward_ref
from rewards.people import PeopleSettings

GOOD = Question("good", "Is the clip good?")
GRADE = Question("good", "How good is it?", "grade", 1, 5)
BETTER = Question("good", "Which is better?", "pair")


def keep(store, question, *votes):
    """Votes (clip or (clip, other), rater, answer) in the store."""
    rows = []
    for clips, rater, answer, *repeat in votes:
        one, other = clips if isinstance(clips, tuple) else (clips, None)
        vote = Vote(clip_id=one, other_clip_id=other, rater=rater, answer=answer, repeat=sum(repeat))
        rows.append(labels.label(question, vote, "s"))
    labels.commit(store, rows)


def ask(store, *clips, **settings):
    """Judgements of clips by their ids."""
    ref = reward_ref("people", "people", settings, store=store)
    reward = build_reward(ref.kind, ref.settings)
    assert reward.version == ref.version
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    judged = reward.score([LoadedClip(clip, "a ball falls", frames, 8.0) for clip in clips])
    return dict(zip(clips, judged, strict=True))


def version(store, **settings):
    return reward_ref("people", "people", settings, store=store).version


def test_the_majority_says_what_share_of_raters_found_it_good(store):
    keep(store, GOOD, ("c1", "ann", "yes"), ("c1", "bob", "yes"), ("c1", "eve", "no"), ("c2", "ann", "skip"),
         ("c3", "ann", "no"), ("c3", "ann", "yes", 1))  # fmt: skip
    found = ask(store, "c1", "c2", "c3", "c4")
    assert found["c1"].value == pytest.approx(2 / 3)
    assert found["c1"].detail == {
        "raters": 3,
        "shares": {"0": pytest.approx(1 / 3), "1": pytest.approx(2 / 3)},
    }
    assert (found["c2"].value, found["c2"].error) == (None, "0 of 1 raters answered")
    assert found["c3"].value == 0.0  # what was asked again tells of the rater, not of the clip
    assert (found["c4"].value, found["c4"].error) == (None, "nobody answered question 'good' of this clip")


def test_too_few_raters_are_no_value_but_a_reason(store):
    keep(store, GOOD, ("c1", "ann", "yes"), ("c1", "bob", "yes"), ("c2", "ann", "yes"), ("c2", "bob", "skip"))
    found = ask(store, "c1", "c2", raters=2)
    assert found["c1"].value == 1.0
    assert (found["c2"].value, found["c2"].error) == (None, "1 of 2 raters answered")


def test_grades_go_from_0_to_1(store):
    keep(store, GRADE, ("c1", "ann", "5"), ("c1", "bob", "3"), ("c2", "ann", "1"))
    found = ask(store, "c1", "c2")
    assert (found["c1"].value, found["c2"].value) == (0.75, 0.0)


@pytest.mark.parametrize("agreement", ["majority", "dawid-skene"])
def test_dawid_and_skene_tell_careful_raters_from_one_who_says_anything(store, agreement):
    """Three raters who err one time in ten and four who toss a coin: who is who follows from the votes."""
    rng = np.random.default_rng(0)
    truth = {f"c{i:03}": bool(rng.integers(2)) for i in range(200)}
    votes = []
    for clip, good in truth.items():
        for rater in ("ann", "bob", "cy"):
            votes.append((clip, rater, "yes" if good ^ (rng.random() < 0.1) else "no"))
        votes += [(clip, f"coin{i}", str(rng.choice(["yes", "no"]))) for i in range(4)]
    keep(store, GOOD, *votes)
    found = ask(store, *truth, agreement=agreement)
    right = np.mean([(found[clip].value > 0.5) == good for clip, good in truth.items()])
    assert right > 0.95 if agreement == "dawid-skene" else right < 0.9


def test_pairs_are_margins_and_a_tie_is_none(store):
    keep(
        store, BETTER,
        (("c1", "c2"), "ann", "first"), (("c2", "c1"), "bob", "second"), (("c1", "c2"), "eve", "tie"),
        (("c3", "c1"), "ann", "tie"), (("c4", "c1"), "ann", "skip"),
    )  # fmt: skip
    found = ask(store, "c1", "c2", "c3", "c4")
    assert found["c1"].detail == {"compared": [["c2", pytest.approx(2 / 3)], ["c3", 0.0]]}
    assert found["c2"].detail == {"compared": [["c1", pytest.approx(-2 / 3)]]}
    assert found["c1"].value == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert (found["c3"].value, found["c4"].value) == (0.5, None)
    assert found["c4"].error == "of none of its pairs 1 raters said which is better"


def test_new_votes_and_exclusions_are_new_versions_and_an_old_one_still_answers(store):
    keep(store, GOOD, ("c1", "ann", "yes"))
    before = reward_ref("people", "people", {}, store=store)
    assert version(store) == before.version
    keep(store, Question("other"), ("c1", "ann", "no"))
    assert version(store) == before.version
    keep(store, GOOD, ("c1", "bob", "no"))
    both = version(store)
    labels.exclude(store, "bob", "asleep")
    assert version(store) == before.version != both
    assert len({version(store, **more) for more in ({}, {"raters": 2}, {"agreement": "dawid-skene"})}) == 3
    assert version(store, question="other") != before.version
    assert version(store, question_version=GOOD.version) == before.version
    keep(store, GOOD, ("c1", "eve", "no"))
    old = build_reward(before.kind, before.settings)
    assert old.version == before.version
    assert ask(store, "c1")["c1"].value == 0.5
    clip = LoadedClip("c1", "", np.zeros((2, 8, 8, 3), np.uint8), 8.0)
    assert old.score([clip])[0].value == 1.0


def test_what_was_not_asked_is_said_before_anything_is_scored(store):
    with pytest.raises(
        ConfigError, match=r"holds no label of question 'good'; known: none\. `vidloop import labels"
    ):
        version(store)
    keep(store, GOOD, ("c1", "ann", "yes"))
    with pytest.raises(ConfigError, match="'goood'; did you mean 'good'"):
        version(store, question="goood")
    keep(store, Question("good", "Other words?"), ("c1", "ann", "no"))
    with pytest.raises(ConfigError, match=r"say one in people\.question_version"):
        version(store)
    assert ask(store, "c1", question_version=GOOD.version)["c1"].value == 1.0
    with pytest.raises(ConfigError, match="say one"):
        version(store, question_version="0" * 16)
    with pytest.raises(ConfigError, match="lies in a store, and none was named"):
        reward_ref("people", "people", PeopleSettings())
