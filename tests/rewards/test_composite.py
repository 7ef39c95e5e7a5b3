from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import UserError
from rewards import Judgement, build_reward, combine_judgements, reward_parts, reward_version
from rewards.base import LoadedClip
from rewards.composite import Component, CompositeSettings, combine, measured

MIXED = CompositeSettings(
    (
        Component("clip", weight=3.0, worst=0.1, best=0.3),
        Component("flicker", weight=1.0, worst=0.4, best=0.0),
    )
)
GATED = replace(MIXED, motion_floor=0.02)


def said(**values: float | None) -> dict[str, Judgement]:
    return {
        name: Judgement(value, {}, None if value is not None else f"no {name}")
        for name, value in values.items()
    }


def test_the_value_is_the_weighted_mean_of_what_the_bounds_make_of_the_raw_values() -> None:
    found = combine(MIXED, said(clip=0.25, flicker=0.1))
    # clip: (0.25 - 0.1) / 0.2 = 0.75; flicker, where less is better: (0.1 - 0.4) / (0 - 0.4) = 0.75
    assert found.value == pytest.approx((3 * 0.75 + 0.75) / 4)
    assert found.detail["mean"] == found.value
    assert found.detail["components"]["clip"] == {
        "raw": 0.25, "normalised": pytest.approx(0.75), "weight": 3.0, "worst": 0.1, "best": 0.3,
    }  # fmt: skip
    assert found.detail["components"]["flicker"]["raw"] == 0.1


def test_beyond_the_bounds_more_counts_no_more() -> None:
    assert combine(MIXED, said(clip=0.9, flicker=-1.0)).value == 1.0
    assert combine(MIXED, said(clip=-0.9, flicker=1.9)).value == 0.0


@given(
    weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5),
    raw=st.lists(st.floats(-1, 1), min_size=5, max_size=5),
)
def test_it_never_leaves_its_range_and_grows_with_each_component(
    weights: list[float], raw: list[float]
) -> None:
    names = ("physics", "judge", "clip", "flow", "motion")[: len(weights)]
    settings = CompositeSettings(
        tuple(Component(name, None, weight, -0.5, 0.5) for name, weight in zip(names, weights, strict=True))
    )
    values = dict(zip(names, raw, strict=False))
    found = combine(settings, said(**values)).value
    assert found is not None
    assert 0.0 <= found <= 1.0
    for name in names:
        more = combine(settings, said(**values | {name: values[name] + 0.3})).value
        assert more is not None
        assert more >= found - 1e-12


def test_a_clip_that_stands_still_is_worth_nothing() -> None:
    still = combine(GATED, said(clip=0.3, flicker=0.0, motion=0.0199))
    assert still.value == 0.0
    assert still.detail["mean"] == 1.0
    assert still.detail["gate"] == {"motion": 0.0199, "floor": 0.02, "passed": False}
    moving = combine(GATED, said(clip=0.3, flicker=0.0, motion=0.02))
    assert moving.value == 1.0
    assert moving.detail["gate"]["passed"] is True


@pytest.mark.parametrize("lacking", ["clip", "flicker", "motion"])
def test_null_if_anything_is_null_and_says_what(lacking: str) -> None:
    found = combine(GATED, said(**{"clip": 0.2, "flicker": 0.1, "motion": 0.5, lacking: None}))
    assert found.value is None
    assert found.error == f"{lacking}: no {lacking}"
    assert found.detail["components"]["clip"]["raw"] == (None if lacking == "clip" else 0.2)
    unasked = said(clip=0.2, flicker=0.1, motion=0.5)
    del unasked[lacking]
    assert f"{lacking}: it was not asked" in (combine(GATED, unasked).error or "")


def test_an_unanswered_component_may_be_asked_again() -> None:
    judged = said(clip=0.2) | {"flicker": Judgement(None, {}, "busy", again=True)}
    assert combine(MIXED, judged).again
    assert not combine(MIXED, said(clip=0.2, flicker=None)).again


def test_open_bounds_are_the_5th_and_95th_percentile_of_what_was_measured() -> None:
    settings = CompositeSettings((Component("clip"), Component("flow", worst=0.0, best=2.0)))
    assert not settings.bounded
    values: list[float | None] = [*np.linspace(0, 1, 101).tolist(), None]
    found = measured(settings, {"clip": values, "flow": [9.0]})
    assert found.bounded
    assert (found.components[0].worst, found.components[0].best) == (pytest.approx(0.05), pytest.approx(0.95))
    assert found.components[1] == settings.components[1]
    assert reward_version("composite", found) != reward_version("composite", settings)
    assert combine(found, said(clip=0.5, flow=1.0)).value == pytest.approx(0.5)
    assert combine(settings, said(clip=0.5, flow=1.0)).value is None


@pytest.mark.parametrize("values", [[0.4, 0.4, 0.4], [None, None], []])
def test_a_component_that_never_varies_has_no_scale_and_the_mixture_no_value(
    values: list[float | None],
) -> None:
    found = measured(CompositeSettings((Component("clip"),)), {"clip": values})
    judged = combine(found, said(clip=0.4))
    assert judged.value is None
    assert "no scale" in (judged.error or "")


def test_the_version_follows_everything_that_decides_and_no_other_reward() -> None:
    clip, flicker = MIXED.components
    versions = [
        reward_version("composite", settings)
        for settings in (
            MIXED,
            GATED,
            replace(GATED, motion_floor=0.03),
            replace(MIXED, components=(clip,)),
            replace(MIXED, components=(replace(clip, weight=2.0), flicker)),
            replace(MIXED, components=(replace(clip, worst=0.0), flicker)),
            replace(MIXED, components=(replace(clip, best=0.4), flicker)),
        )
    ]
    assert len(set(versions)) == len(versions)
    assert [part.name for part in reward_parts("composite", GATED)] == ["clip", "flicker", "motion"]
    assert reward_parts("composite", GATED)[0].version == reward_version("clip")


def test_clips_that_nobody_stored_are_scored_by_the_components() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    clips = [
        LoadedClip("noise", "a red ball", noise, 8.0),
        LoadedClip("still", "a red ball", np.repeat(noise[:1], 9, 0), 8.0),
        LoadedClip("short", "a red ball", noise[:1], 8.0),
    ]
    settings = CompositeSettings(
        (Component("sharpness", worst=0.0, best=2e4), Component("flicker", worst=0.1, best=0.0)), 1e-3
    )
    reward = build_reward("composite", settings)
    judged = reward.score(clips)
    apart = {name: build_reward(name).score(clips) for name in ("sharpness", "flicker", "motion")}
    for place, found in enumerate(judged):
        expected = combine_judgements(
            "composite", settings, "", {name: scored[place] for name, scored in apart.items()}
        )
        assert found == expected
    assert judged[0].value is not None
    assert judged[0].value > 0
    assert (judged[1].value, judged[1].detail["gate"]["passed"]) == (0.0, False)
    assert judged[2].value is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Component("composite"), "no component of a composite"),
        (lambda: Component("clip", weight=0.0), "greater than 0"),
        (lambda: Component("clip", worst=1.0), "both, or neither"),
        (lambda: CompositeSettings((Component("clip"), Component("clip"))), "named twice"),
        (lambda: CompositeSettings((Component("clip"),), motion_floor=-1.0), "0 or more"),
        (lambda: reward_version("composite"), "no components"),
        (lambda: build_reward("composite", CompositeSettings((Component("clip"),))), "only a round measures"),
        (lambda: reward_version("composite", CompositeSettings((Component("clap"),))), "did you mean 'clip'"),
    ],
)
def test_what_cannot_be_mixed_says_why(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
