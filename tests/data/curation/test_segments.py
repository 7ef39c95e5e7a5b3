"""Pairs told apart segment by segment, by made-up scores."""

import dataclasses
import json

import pytest
from pydantic import ValidationError

from data.curation import CurateSettings, curate

HALVES = ((0.0, 1.0), (1.0, 2.125))


@pytest.fixture
def judged(commit, make_clip, make_score):
    """Commit clips of one prompt: {clip: (value, values of its segments)}; (clip keys, score keys)."""

    def make(clips, spans=None):
        rows = []
        for clip, (value, values) in clips.items():
            cut = (spans or {}).get(clip, HALVES)
            told = [[*span, one] for span, one in zip(cut, values, strict=True)] if values else []
            detail = json.dumps({"segments": told} if told else {"questions": {"task": value}})
            rows.append(dataclasses.replace(make_score(clip, value, "judge"), detail=detail))
        made = [make_clip(clip, prompt_id="p", category="falling down") for clip in clips]
        return [commit("generate", "", clips=made).key], [commit("score", "", scores=rows).key]

    return make


def run(store, keys, **fields):
    return curate(store, *keys, CurateSettings(**{"feedback": "judge", "pairs_per_prompt": 100} | fields))


def kept(result):
    return [(row.chosen, row.rejected, row.start_s, row.end_s) for row in result.pair_segments]


def test_a_pair_keeps_the_segments_in_which_the_chosen_clip_is_better(store, judged) -> None:
    clips = {"a": (0.7, [0.9, 0.7]), "b": (0.2, [0.8, 0.2]), "c": (0.1, [0.1, 0.3])}
    result = run(store, judged(clips))
    assert kept(result) == [("a", "b", 1.0, 2.125), ("a", "c", 0.0, 1.0), ("a", "c", 1.0, 2.125)]
    assert {row.curation_id for row in result.pair_segments} == {result.curation_id}
    assert result.report["pairs"] == {
        "formed": 2, "possible": 2, "dropped_ties": 1, "dropped_limit": 0, "dropped_segments": 0,
    }  # fmt: skip


def test_segments_are_shaped_as_the_clips_are(store, judged) -> None:
    # eta 2, gamma 0.25: 0.9 and 0.8 are both 1, 0.2 and 0.1 both 0
    clips = {"a": (0.6, [0.9, 0.2, 0.6]), "b": (0.4, [0.8, 0.1, 0.5])}
    cut = ((0.0, 1.0), (1.0, 2.0), (2.0, 3.0))
    graded = {"kind": "graded", "eta": 2.0, "gamma": 0.25, "accept_fraction": 0.5}
    assert kept(run(store, judged(clips, dict.fromkeys(clips, cut)), **graded)) == [("a", "b", 2.0, 3.0)]


@pytest.mark.parametrize(
    "segments",
    [([0.1, 1.0], [0.6, 0.3]), ([0.4, 0.9], [0.3, 0.8])],
    ids=["one each", "alike"],
)
def test_what_the_whole_clip_says_and_the_segments_say(store, judged, segments) -> None:
    """Mean over segments: a passes at 0.5, b does not; by segments they are even, or as good."""
    first, second = segments
    result = run(store, judged({"a": (0.55, first), "b": (0.45, second)}))
    if first[0] == 0.1:  # b is better in the first segment, a in the second: the second teaches
        assert kept(result) == [("a", "b", 1.0, 2.125)]
        assert len(result.pairs) == 1
    else:
        assert (result.pairs, result.pair_segments) == ([], [])
        assert result.report["pairs"]["dropped_segments"] == 1
        assert result.report["pairs"]["dropped_ties"] == 0


def test_a_pair_whose_rejected_clip_alone_is_better_somewhere_is_dropped(store, judged) -> None:
    clips = {"a": (0.6, [0.1, 0.9]), "b": (0.4, [0.6, 0.9]), "c": (0.0, [0.0, 0.0])}
    result = run(store, judged(clips), pairs_per_prompt=1)
    # The limit counts pairs that can teach: a over c takes the place of the contrary a over b.
    assert [(pair.chosen, pair.rejected) for pair in result.pairs] == [("a", "c")]
    assert result.report["pairs"] == {
        "formed": 1, "possible": 1, "dropped_ties": 1, "dropped_limit": 0, "dropped_segments": 1,
    }  # fmt: skip


def test_clips_without_segments_or_cut_differently_are_compared_whole(store, judged) -> None:
    clips = {"a": (0.9, [0.9, 0.9]), "b": (0.1, [0.1, 0.9]), "c": (0.2, [0.2, 0.9]), "d": (0.0, [])}
    result = run(store, judged(clips, {"b": ((0.0, 1.0), (1.0, 2.0))}))
    assert [(pair.chosen, pair.rejected) for pair in result.pairs] == [("a", "b"), ("a", "c"), ("a", "d")]
    assert kept(result) == [("a", "c", 0.0, 1.0)]


def test_labels_taught_the_other_way_round_turn_their_segments_too(store, judged) -> None:
    """a and d pass in both halves, b and c in the first; one of the four is turned round."""
    passing, failing = (0.9, [0.9, 0.9]), (0.1, [0.9, 0.1])
    keys = judged({"a": passing, "b": failing, "c": failing, "d": passing})
    first, last = HALVES
    expected = {
        "a": [("d", "a", *first), ("d", "a", *last), ("d", "b", *last), ("d", "c", *last)],
        "b": [("a", "c", *last), ("b", "c", *last), ("d", "c", *last)],
        "c": [("a", "b", *last), ("c", "b", *last), ("d", "b", *last)],
        "d": [("a", "b", *last), ("a", "c", *last), ("a", "d", *first), ("a", "d", *last)],
    }
    seen = set()
    for seed in range(8):
        found = run(store, keys, label_noise=0.25, seed=seed)
        (flipped,) = [row.clip_id for row in found.examples if row.reward != (row.clip_id in "ad")]
        assert kept(found) == expected[flipped]
        seen.add(flipped)
    assert len(seen) > 1


def test_segments_can_be_ignored(store, judged) -> None:
    keys = judged({"a": (0.6, [0.1, 0.9]), "b": (0.4, [0.6, 0.9])})
    assert run(store, keys).pairs == []
    result = run(store, keys, segments="ignore")
    assert (len(result.pairs), result.pair_segments) == (1, [])
    assert "dropped_segments" not in result.report["pairs"]
    with pytest.raises(ValidationError, match="segments"):
        CurateSettings(feedback="judge", segments="some")  # type: ignore[arg-type]


def test_without_segments_the_fingerprint_and_the_answer_are_what_they_were(store, judged) -> None:
    plain = CurateSettings(feedback="judge")
    assert plain.fingerprint() == {}
    assert plain.changed(segments="ignore").fingerprint() == {"segments": "ignore"}
    keys = judged({"a": (0.9, []), "b": (0.1, [])})
    one, other = run(store, keys), run(store, keys, segments="ignore")
    assert one.report == other.report
    assert [(row.chosen, row.rejected, row.margin) for row in one.pairs] == [("a", "b", 1.0)]
    assert one.pair_segments == []
