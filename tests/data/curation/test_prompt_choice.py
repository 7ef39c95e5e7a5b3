from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from data.curation.prompt_choice import Known, choose, known
from data.records import Clip, Score
from data.store import Manifest, Store

PROMPTS = [f"p{number}" for number in range(10)]
# Two that always pass, two that always fail, three between, three of which nothing is known.
FACTS = {
    "p0": Known(8, 8), "p1": Known(4, 4), "p2": Known(8, 0), "p3": Known(2, 0),
    "p4": Known(8, 4), "p5": Known(8, 1), "p6": Known(8, 6),
}  # fmt: skip


def test_the_most_teachable_come_first_and_keep_the_order_of_the_set() -> None:
    one = choose(PROMPTS, FACTS, 2, explore=0.0, seed=0)
    assert one.prompts == ("p4", "p6")  # p (1 - p): 1/4 and 3/16, above p5's 7/64
    assert (one.teachable, one.unknown, one.for_teaching) == (3, 3, 2)


@pytest.mark.parametrize(("explore", "drawn"), [(0.0, 0), (0.2, 1), (0.5, 2), (1.0, 3)])
def test_the_stated_share_is_drawn_by_lot(explore: float, drawn: int) -> None:
    one = choose(PROMPTS, FACTS, 3, explore, seed=0)
    assert len(one.prompts) == 3
    assert one.for_teaching == 3 - drawn
    assert len(set(one.prompts) - {"p4", "p5", "p6"}) == drawn


def test_every_other_prompt_is_explored_by_some_seed() -> None:
    seen: set[str] = set()
    for seed in range(100):
        seen |= set(choose(PROMPTS, FACTS, 5, 0.2, seed).prompts)
    assert seen == set(PROMPTS)


def test_too_few_teachable_ones_are_filled_up_with_what_is_not_known() -> None:
    one = choose(PROMPTS, FACTS, 6, explore=0.0, seed=0)
    assert set(one.prompts) == {"p4", "p5", "p6", "p7", "p8", "p9"}
    everything = choose(PROMPTS, FACTS, 99, explore=0.2, seed=0)
    assert everything.prompts == tuple(PROMPTS)


def test_where_nothing_is_known_the_lot_decides_alone() -> None:
    chosen = {choose(PROMPTS, {}, 4, 0.2, seed).prompts for seed in range(20)}
    assert len(chosen) > 1
    assert choose(PROMPTS, {}, 4, 0.2, 7) == choose(PROMPTS, {}, 4, 0.2, 7)


def test_known_are_the_youngest_policys_clips_by_this_version_of_the_reward(
    store: Store,
    commit: Callable[..., Manifest],
    make_clip: Callable[..., Clip],
    make_score: Callable[..., Score],
) -> None:
    def clips(policy: str, prompt: str, values: list[float | None], **how: Any) -> None:
        ids = [f"{policy}-{prompt}-{number}{how.get('version', '')}" for number in range(len(values))]
        rows = [make_clip(one, policy_id=policy, prompt_id=prompt) for one in ids]
        scores = [make_score(one, value, **how) for one, value in zip(ids, values, strict=True)]
        commit("generate", ids[0], clips=rows)
        commit("score", ids[0], scores=scores)

    clips("base", "p1", [0.0, 0.0, 1.0])
    clips("young", "p1", [1.0, 1.0, None])  # a failed judgement is no clip that failed
    clips("base", "p2", [0.0, 1.0])
    clips("other", "p3", [0.0, 1.0])  # of no policy in this line
    clips("base", "p4", [1.0, 1.0], version="old")
    assert known(store, "physics", "v1", 0.5, ["young", "base"]) == {"p1": Known(2, 2), "p2": Known(2, 1)}
    assert known(store, "physics", "v1", 0.5, ["base"]) == {"p1": Known(3, 1), "p2": Known(2, 1)}


def test_without_a_threshold_the_median_is_the_line(
    store: Store,
    commit: Callable[..., Manifest],
    make_clip: Callable[..., Clip],
    make_score: Callable[..., Score],
) -> None:
    values = {"a": 10.0, "b": 20.0, "c": 30.0, "d": 40.0}
    commit("generate", clips=[make_clip(one, prompt_id=f"p{one > 'b'}") for one in values])
    commit("score", scores=[make_score(one, value) for one, value in values.items()])
    assert known(store, "physics", "v1", None, ["base"]) == {"pFalse": Known(2, 0), "pTrue": Known(2, 2)}


def test_an_empty_store_knows_nothing(store: Store) -> None:
    assert known(store, "physics", "v1", None, ["base"]) == {}
