from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import UserError
from rewards import Judgement, RewardRef, build_reward, reward_ref, reward_version
from rewards.base import LoadedClip
from rewards.composite import Component, CompositeSettings, Mixture, combine, measured, mix
from tests.miniature_rewards import SETTINGS


def named(name: str) -> RewardRef:
    """The kind of this name, as the miniature has it."""
    return reward_ref(name, name, SETTINGS.get(name))


def mixture(motion_floor: float = 0.0, **components: dict[str, float]) -> Mixture:
    said = {name: Component(**one) for name, one in components.items()}
    return mix(CompositeSettings(components=said, motion_floor=motion_floor), named)


CLIP = {"weight": 3.0, "worst": 0.1, "best": 0.3}
FLICKER = {"weight": 1.0, "worst": 0.4, "best": 0.0}
MIXED = mixture(clip=CLIP, flicker=FLICKER)
GATED = mixture(0.02, clip=CLIP, flicker=FLICKER)


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
    bounds = {"worst": -0.5, "best": 0.5}
    mixed = {name: {"weight": weight, **bounds} for name, weight in zip(names, weights, strict=True)}
    settings = mixture(**mixed)
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
    settings = mixture(clip={}, flow={"worst": 0.0, "best": 2.0})
    assert not settings.bounded
    values: list[float | None] = [*np.linspace(0, 1, 101).tolist(), None]
    found = measured(settings, {"clip": values, "flow": [9.0]})
    assert found.bounded
    assert found.bounds == {"clip": (pytest.approx(0.05), pytest.approx(0.95)), "flow": (0.0, 2.0)}
    assert reward_version("composite", found) != reward_version("composite", settings)
    assert combine(found, said(clip=0.5, flow=1.0)).value == pytest.approx(0.5)
    assert combine(settings, said(clip=0.5, flow=1.0)).value is None


@pytest.mark.parametrize("values", [[0.4, 0.4, 0.4], [None, None], []])
def test_a_component_that_never_varies_has_no_scale_and_the_mixture_no_value(
    values: list[float | None],
) -> None:
    found = measured(mixture(clip={}), {"clip": values})
    judged = combine(found, said(clip=0.4))
    assert judged.value is None
    assert "no scale" in (judged.error or "")


def test_the_version_follows_everything_that_decides_and_no_other_reward() -> None:
    versions = [
        reward_version("composite", mixed)
        for mixed in (
            MIXED,
            GATED,
            mixture(0.03, clip=CLIP, flicker=FLICKER),
            mixture(clip=CLIP),
            mixture(clip=CLIP | {"weight": 2.0}, flicker=FLICKER),
            mixture(clip=CLIP | {"worst": 0.0}, flicker=FLICKER),
            mixture(clip=CLIP | {"best": 0.4}, flicker=FLICKER),
        )
    ]
    assert len(set(versions)) == len(versions)
    parts = reward_ref("mine", "composite", GATED.settings, named).parts
    assert [part.name for part in parts] == ["clip", "flicker", "motion"]
    assert parts[0].version == reward_version("clip", SETTINGS["clip"])


def test_what_a_recipe_calls_the_components_is_no_part_of_the_version() -> None:
    called = {"pictures": "clip", "light": "flicker"}
    said = CompositeSettings(components={"pictures": Component(**CLIP), "light": Component(**FLICKER)})
    other = mix(said, lambda name: reward_ref(name, called[name], SETTINGS.get(called[name])))
    assert [part.name for part in reward_ref("mine", "composite", other).parts] == ["pictures", "light"]
    assert reward_version("composite", other) == reward_version("composite", MIXED)


def test_clips_that_nobody_stored_are_scored_by_the_components() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    clips = [
        LoadedClip("noise", "a red ball", noise, 8.0),
        LoadedClip("still", "a red ball", np.repeat(noise[:1], 9, 0), 8.0),
        LoadedClip("short", "a red ball", noise[:1], 8.0),
    ]
    settings = mixture(1e-3, sharpness={"worst": 0.0, "best": 2e4}, flicker={"worst": 0.1, "best": 0.0})
    reward = build_reward("composite", settings)
    judged = reward.score(clips)
    apart = {name: build_reward(name).score(clips) for name in ("sharpness", "flicker", "motion")}
    for place, found in enumerate(judged):
        expected = combine(settings, {name: scored[place] for name, scored in apart.items()})
        assert found == expected
    assert judged[0].value is not None
    assert judged[0].value > 0
    assert (judged[1].value, judged[1].detail["gate"]["passed"]) == (0.0, False)
    assert judged[2].value is None


@pytest.mark.parametrize(
    ("components", "message"),
    [
        ({"composite": {}}, "no components"),
        ({"mine": {}}, "no component of a composite"),
        ({"clip": {"weight": 0.0}}, "greater than 0"),
        ({"clip": {"worst": 1.0}}, "both worst and best, or neither"),
        ({"clip": {"worst": 1.0, "best": 1.0}}, "must differ"),
        ({}, "no components"),
        ({"clap": {}}, "did you mean 'clip'"),
    ],
)
def test_what_cannot_be_mixed_says_why(components: dict[str, dict[str, float]], message: str) -> None:
    def known(name: str) -> RewardRef:
        return reward_ref(name, "composite", MIXED) if name == "mine" else named(name)

    with pytest.raises(UserError, match=message):
        reward_ref("composite", "composite", {"components": components}, known)


def test_a_floor_is_no_less_than_nothing_and_open_bounds_are_measured_by_a_round() -> None:
    with pytest.raises(UserError, match="greater than or equal to 0"):
        reward_ref("composite", "composite", {"components": {"flicker": {}}, "motion_floor": -1.0})
    with pytest.raises(UserError, match="only a round measures"):
        build_reward("composite", mixture(flicker={}))
