"""Pairs as people compared them: they teach, and no others are formed."""

import dataclasses
import json

import pytest

from data.curation import CurateSettings, curate
from data.errors import ConfigError


@pytest.fixture
def judged(commit, make_clip, make_score):
    """Commit clips and what each was compared with: {clip: [[other, margin], ...]}; (clip keys, score keys)."""

    def make(clips, prompts=None):
        rows, made = [], []
        for clip, compared in clips.items():
            score = make_score(clip, 0.5, "people")
            rows.append(dataclasses.replace(score, detail=json.dumps({"compared": compared})))
            made.append(make_clip(clip, prompt_id=(prompts or {}).get(clip, "p")))
        return [commit("generate", "", clips=made).key], [commit("score", "", scores=rows).key]

    return make


def run(store, keys, **fields):
    return curate(store, *keys, CurateSettings(**{"feedback": "people", "margin": 0.0} | fields))


def both(pairs):
    """What the score of each clip says of pairs (one, other, margin)."""
    said = {}
    for one, other, margin in pairs:
        said.setdefault(one, []).append([other, margin])
        said.setdefault(other, []).append([one, -margin])
    return said


def taught(result):
    return [(row.chosen, row.rejected, round(row.margin, 6)) for row in result.pairs]


def test_pairs_are_those_that_were_compared_with_the_margins_of_the_votes(store, judged) -> None:
    result = run(store, judged(both([("a", "b", 1.0), ("c", "a", 1 / 3), ("b", "c", 0.0), ("d", "a", -0.6)])))
    # The values of all clips are alike: of them no pair would be made.
    assert taught(result) == [("a", "b", 1.0), ("a", "d", 0.6), ("c", "a", 0.333333)]
    assert result.report["pairs"] == {"formed": 3, "possible": 3, "dropped_ties": 1, "dropped_limit": 0}


def test_small_margins_do_not_teach_and_the_largest_stay(store, judged) -> None:
    keys = judged(both([("a", "b", 1.0), ("c", "a", 1 / 3), ("b", "c", 0.2), ("d", "a", 0.6)]))
    result = run(store, keys, margin=0.25, pairs_per_prompt=2)
    assert taught(result) == [("a", "b", 1.0), ("d", "a", 0.6)]
    assert result.report["pairs"] == {"formed": 2, "possible": 3, "dropped_ties": 1, "dropped_limit": 1}
    assert run(store, keys, margin=0.25, segments="ignore").pairs != []


def test_clips_of_two_prompts_make_no_pair_nor_do_clips_that_may_not_teach(store, judged) -> None:
    keys = judged(both([("a", "b", 1.0), ("a", "c", 1.0), ("a", "gone", 1.0)]) | {"gone": []}, {"c": "q"})
    assert taught(run(store, keys)) == [("a", "b", 1.0), ("a", "gone", 1.0)]
    assert taught(run(store, judged({"a": [["b", 1.0], ["x", 1.0]], "b": [["a", -1.0]]}))) == [
        ("a", "b", 1.0)
    ]
    assert run(store, keys, exclude_categories=["falling down"]).pairs == []


def test_nothing_but_ties_is_no_pair(store, judged) -> None:
    result = run(store, judged(both([("a", "b", 0.0)])))
    assert result.pairs == []
    assert result.report["pairs"]["dropped_ties"] == 1


def test_an_experiment_that_turns_labels_is_refused(store, judged) -> None:
    with pytest.raises(ConfigError, match="label_noise"):
        run(store, judged(both([("a", "b", 1.0)])), label_noise=0.1)
