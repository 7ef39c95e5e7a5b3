"""Curation picks its pairs without building all of them: the rows are those of the plain way, which builds them.

The plain way is `benchmarks.curation_sides.plain`, as curation was before.
"""

import dataclasses
import itertools
import json

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import curation_sides
from data.curation import CurateSettings, curate, pairs
from data.curation.pairs import Cuts, pick
from data.records import to_table

VALUES = st.none() | st.sampled_from([0.0, 0.1, 0.2, 0.30000000000000004, 0.5, 0.9, 1.0]) | st.floats(-1, 2)
CUTS = (
    ((0.0, 1.0), (1.0, 2.125)),
    ((0.0, 1.0), (1.0, 2.0)),
    ((0.0, 2.0),),
    ((0.5, 1.0), (0.5, 2.0), (2.0, 3.0)),
)
PARTS = st.none() | st.sampled_from([0.0, 0.2, 0.5, 0.6, 1.0])


@st.composite
def judged(draw):
    """Rows (prompt, category, value, detail, how often the clip is there) of some clips."""
    told = draw(st.booleans())
    found = []
    for prompt in draw(st.lists(st.sampled_from("abcdef"), max_size=4, unique=True)):
        for _ in range(draw(st.integers(1, 9))):
            segments = {}
            if told and draw(st.booleans()):
                cut = draw(st.sampled_from(CUTS))
                segments = {"segments": [[*span, draw(PARTS)] for span in cut]}
            category = draw(st.sampled_from(["falling down", "object removal"]))
            found.append((prompt, category, draw(VALUES), json.dumps(segments), draw(st.integers(1, 2))))
    return found


@st.composite
def rules(draw):
    """Settings of any kind; what a pair turns on most often of all."""
    graded = draw(st.booleans())
    return CurateSettings(
        feedback="physics",
        kind="graded" if graded else "binary",
        threshold=draw(st.sampled_from([0.2, 0.5])),
        eta=draw(st.sampled_from([None, 0.5, 1.0, 3.0])),
        gamma=draw(st.sampled_from([None, 0.0, 0.1])),
        accept_fraction=draw(st.sampled_from([None, 0.3, 1.0])),
        max_per_prompt=draw(st.none() | st.integers(1, 3)),
        weight=draw(st.sampled_from(["uniform", "reward", "exp"])),
        beta=draw(st.sampled_from([0.1, 1.0])),
        margin=draw(st.sampled_from([0.0, 0.1, 0.3, 0.8])),
        pairs_per_prompt=draw(st.sampled_from([0, 1, 2, 4, 7, 100])),
        label_noise=draw(st.sampled_from([0.0, 0.0, 0.3])),
        segments=draw(st.sampled_from(["differing", "differing", "ignore"])),
        exclude_categories=draw(st.sampled_from([(), (), ("object removal",)])),
        seed=draw(st.integers(0, 3)),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=judged(), how=rules(), blocks=st.sampled_from([(1, 1), (8, 4), (1 << 16, 1 << 20)]))
def test_the_rows_are_those_of_the_plain_way(
    store, commit, make_clip, make_score, monkeypatch, rows, how, blocks
):
    monkeypatch.setattr(pairs, "_CLIPS", blocks[0])
    monkeypatch.setattr(pairs, "_PAIRS", blocks[1])
    halves = {"clips": ([], []), "scores": ([], [])}
    for number, (prompt, category, value, detail, often) in enumerate(rows):
        name = f"{prompt}-{number}"
        one = dataclasses.replace(make_score(name, value), detail=detail)
        for half in range(number % 2, number % 2 + often):
            halves["clips"][half % 2].append(make_clip(name, prompt_id=prompt, category=category))
            halves["scores"][half % 2].append(one)
        halves["scores"][0].append(make_score(name, 0.7, version="v2"))
        halves["scores"][0].append(make_score(name, 0.3, "clip"))
    keys = [
        [commit(stage, **{table: half}).key for half in halves[table]]
        for stage, table in (("generate", "clips"), ("score", "scores"))
    ]
    if not rows:
        keys = [[], []]
    result = curate(store, *keys, how, "v1")
    examples, pairs_, spans, report = curation_sides.plain(store, *keys, how, "v1")
    assert result.report == report
    assert result.tables["examples"].equals(to_table("examples", examples), check_metadata=True)
    assert result.tables["pairs"].equals(to_table("pairs", pairs_), check_metadata=True)
    # Two segments that begin together have no order of their own.
    assert sorted(map(dataclasses.astuple, result.pair_segments)) == sorted(map(dataclasses.astuple, spans))
    assert bool(spans) == ("pair_segments" in result.tables)


def in_full(r, sizes, margin, limit, cuts):
    """All pairs of every prompt, and then the first of each: (winner, loser) rows, possible, forbidden."""
    found, possible, forbidden, start = [], 0, 0, 0
    for size in sizes:
        own = r[start : start + size]
        every = [
            pair for pair in itertools.permutations(range(size), 2) if own[pair[0]] - own[pair[1]] > margin
        ]
        kept = [pair for pair in every if not contrary(cuts, start + pair[0], start + pair[1])]
        winners, losers = (sorted({pair[side] for pair in kept}) for side in (0, 1))
        m = max(len(winners), len(losers), 1)
        places = {pair: (winners.index(pair[0]), losers.index(pair[1])) for pair in kept}
        turns = {pair: ((behind - ahead) % m, ahead) for pair, (ahead, behind) in places.items()}
        found += [(start + one, start + other) for one, other in sorted(kept, key=turns.__getitem__)[:limit]]
        possible, forbidden, start = possible + len(kept), forbidden + len(every) - len(kept), start + size
    return sorted(found), possible, forbidden


def contrary(cuts, winner, loser):
    if cuts is None or cuts.cut[winner] < 0 or cuts.cut[winner] != cuts.cut[loser]:
        return False
    span = cuts.first[winner + 1] - cuts.first[winner]
    one, other = (rows[cuts.first[at] :][:span] for rows, at in ((cuts.high, winner), (cuts.low, loser)))
    known = ~(np.isnan(one) | np.isnan(other))
    return known.any() and not (one > other)[known].any()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    levels=st.sampled_from([2, 3, 7, 1000]),
    margin=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    limit=st.sampled_from([0, 1, 4, 20, 1000]),
    kinds=st.sampled_from([None, 1, 2]),
    blocks=st.sampled_from([(1, 1), (40, 30), (1 << 16, 1 << 20)]),
)
def test_pairs_are_the_first_of_all_that_there_are(monkeypatch, seed, levels, margin, limit, kinds, blocks):
    monkeypatch.setattr(pairs, "_CLIPS", blocks[0])
    monkeypatch.setattr(pairs, "_PAIRS", blocks[1])
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 25, rng.integers(0, 6))
    clips = int(sizes.sum())
    r = rng.integers(0, levels, clips) / max(1, levels - 1)
    cuts = None
    if kinds is not None:
        cut = rng.integers(-1, kinds, clips)
        first = np.concatenate([[0], np.cumsum(cut + 1)])  # the second kind has two segments, the first one
        values = rng.choice([0.0, 0.2, 0.5, 1.0, np.nan], (2, int(first[-1])))
        cuts = Cuts(cut, first, values.max(0), values.min(0))
    found = pick(r, sizes, margin, limit, cuts)
    rows = sorted(zip(found.winners.tolist(), found.losers.tolist(), strict=True))
    assert (rows, found.possible, found.forbidden) == in_full(r, sizes, margin, limit, cuts)


def test_little_memory_gives_the_same_rows(store, commit, make_clip, make_score):
    rng = np.random.default_rng(0)
    names = [f"c{number:05}" for number in range(12_000)]
    clips = [make_clip(name, prompt_id=f"p{number % 700}") for number, name in enumerate(names)]
    scores = [make_score(name, value) for name, value in zip(names, rng.random(12_000).tolist(), strict=True)]
    keys = [[commit("generate", clips=clips).key], [commit("score", scores=scores).key]]
    how = CurateSettings(feedback="physics", kind="graded", weight="exp")
    assert curate(store, *keys, how, memory_mb=20) == curate(store, *keys, how)
