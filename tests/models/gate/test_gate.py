from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from data.records import Evaluation
from models.gate import verdict as gate
from models.gate.settings import GateSettings
from models.gate.verdict import Paired

SETTINGS = GateSettings()
KINDS = ("falling down", "multiple objects")


def paired(metric: str, before: npt.ArrayLike, after: npt.ArrayLike, per_prompt: int = 4) -> Paired:
    """Rows of prompts with `per_prompt` clips each; the first half of the prompts fall, the others meet."""
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    prompts = [f"p{i // per_prompt:03d}" for i in range(len(first))]
    kinds = [KINDS[2 * i // len(first)] for i in range(len(first))]
    return Paired(metric, first, second, tuple(prompts), tuple(kinds))


def coin(rate: float, n: int = 400, seed: int = 0) -> npt.NDArray[np.float64]:
    """`n` results, of which exactly that share is 1."""
    return np.random.default_rng(seed).permutation((np.arange(n) < rate * n).astype(np.float64))


def steady(n: int = 400, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0.5, 1.5, n)


def evaluation(
    prompt: str, seed: int, value: float | None, metric: str = "physics", policy: str = "m1"
) -> Evaluation:
    status: Any = "failed" if value is None else "ok"
    error = "no judgement" if value is None else None
    return Evaluation(
        policy, prompt, "falling down", "heldout", seed, metric, value, status, error, f"c{prompt}{seed}"
    )


def test_a_better_candidate_without_tricks_is_promoted() -> None:
    verdict = gate.decide(
        paired("physics", coin(0.3), coin(0.5, seed=1)),
        [paired("motion", steady(), steady(seed=1)), paired("flicker", steady(), steady(seed=2))],
        SETTINGS,
    )
    assert verdict.promoted
    assert verdict.primary.ci_low is not None
    assert verdict.primary.ci_low > 0
    assert verdict.sentence.startswith("Promoted: physics rose from 0.")
    assert "400 clips of 100 prompts" in verdict.sentence
    assert {name: guard.ok for name, guard in verdict.guards.items()} == {"motion": True, "flicker": True}


@pytest.mark.parametrize(("level", "said"), [(0.025, "95%"), (0.05 / 365, "99.973%"), (1e-7, "99.99998%")])
def test_the_level_of_the_deciding_interval_is_never_called_certain(level: float, said: str) -> None:
    primary = paired("physics", coin(0.3), coin(0.5, seed=1))
    verdict = gate.decide(primary, [], SETTINGS, confidence=1 - 2 * level)
    assert f", {said} interval " in verdict.sentence


def test_an_improvement_that_may_be_chance_keeps_the_champion() -> None:
    verdict = gate.decide(paired("physics", coin(0.30), coin(0.32, seed=1)), [], SETTINGS)
    assert not verdict.promoted
    assert "not surely better" in verdict.sentence


def test_a_worse_candidate_is_told_to_have_fallen() -> None:
    verdict = gate.decide(paired("physics", coin(0.5), coin(0.2, seed=1)), [], SETTINGS)
    assert not verdict.promoted
    assert "physics fell from" in verdict.sentence


def test_the_same_policy_twice_is_not_promoted() -> None:
    same = coin(0.4)
    verdict = gate.decide(paired("physics", same, same), [], SETTINGS)
    assert not verdict.promoted
    assert verdict.primary.delta == 0.0
    assert "no interval: on no prompt is there a difference" in verdict.sentence


@pytest.mark.parametrize(
    ("name", "factor"),
    [("motion", 0.5), ("motion", 2.0), ("sharpness", 0.6), ("diversity", 0.0), ("flicker", 2.0)],
)
def test_a_broken_guard_stops_a_candidate_that_scores_better(name: str, factor: float) -> None:
    verdict = gate.decide(
        paired("physics", coin(0.3), coin(0.8, seed=1)),
        [paired(name, steady(), factor * steady())],
        SETTINGS,
        within={name: (0.8, 1.25)},
    )
    assert not verdict.promoted
    assert verdict.guards[name].ok is False
    assert verdict.guards[name].broken_in == ("overall", *KINDS)
    assert f"{name} is broken (overall {factor:.2f} times" in verdict.sentence


@pytest.mark.parametrize(
    ("within", "factor", "holds"),
    [
        ((0.8, None), 5.0, True), ((0.8, None), 0.7, False), ((0.8, 1.25), 5.0, False),
        ((0.0, 1.25), 0.1, True), ((0.8, 1.25), 0.9, True), ((0.8, 1.25), 1.1, True), ((0.95, 1.05), 1.1, False),
    ],
)  # fmt: skip
def test_a_guard_breaks_beyond_its_limits_and_says_which(
    within: tuple[float, float | None], factor: float, holds: bool
) -> None:
    found = gate.guard(paired("motion", steady(), factor * steady()), SETTINGS, within)
    assert found.ok is holds
    assert (found.low, found.high) == within
    limit = f"surely below {within[0]}" if factor < 1 else f"surely above {within[1]}"
    assert holds or limit in str(found.reason)


def test_half_of_the_level_is_for_what_is_asked_overall_and_one_category_asks_nothing_more() -> None:
    two = [paired(name, steady(), steady(seed=1)) for name in ("motion", "flicker")]
    assert gate.Shares.of(two) == (2 * 2, 2 * 4)
    wide = gate.guard(two[0], SETTINGS, shares=gate.Shares(100, 100))
    narrow = gate.guard(two[0], SETTINGS)
    assert wide.ci_low is not None
    assert narrow.ci_low is not None
    assert wide.ci_low < narrow.ci_low
    alone = [replace(one, categories=("all",) * 400) for one in two]
    assert gate.Shares.of(alone).overall == 2
    assert gate.places(alone[0]).keys() == {"overall"}
    assert gate.guard(alone[0], SETTINGS).unseen is None


def test_a_guard_needs_certainty_to_break() -> None:
    rng = np.random.default_rng(0)
    before = rng.lognormal(0, 1.5, 16)
    noisy = gate.guard(paired("motion", before, 0.7 * rng.permutation(before), per_prompt=4), SETTINGS)
    assert noisy.ratio is not None
    assert noisy.ratio < 0.8
    assert noisy.ok is True, "the interval still reaches the limit"


def test_a_guard_broken_in_one_category_only_is_broken() -> None:
    after = steady()
    after[:200] *= 0.5
    after[200:] *= 1.4
    found = gate.guard(paired("motion", steady(), after), SETTINGS)
    assert found.ok is False
    assert found.broken_in == ("falling down",)
    assert found.reason is not None
    assert "falling down 0.50 times" in found.reason


def test_failed_measurements_are_left_out_with_their_partner_and_counted() -> None:
    # pitfall: a judge's failure turned into 0.0, or a policy that is better because its hard clips failed
    before, after = coin(0.5), coin(0.5)
    after[:40] = np.nan
    before[30:50] = np.nan
    found = gate.compare(paired("physics", before, after), SETTINGS)
    assert found.n == 350
    assert found.excluded == 50
    assert found.delta == 0.0
    assert "50 left out" in gate.decide(paired("physics", before, after), [], SETTINGS).sentence


def test_rows_are_matched_by_prompt_and_seed() -> None:
    before = [
        evaluation("p2", 1, 0.0),
        evaluation("p1", 7, 1.0),
        evaluation("p1", 8, None),
        evaluation("p9", 1, 1.0),
    ]
    after = [
        evaluation("p1", 8, 1.0),
        evaluation("p1", 7, 0.0),
        evaluation("p2", 1, 1.0),
        evaluation("p2", 1, 5.0, "motion"),
    ]
    found = gate.pair_up(before, after, "physics")
    assert found.prompts == ("p1", "p1", "p2")
    assert found.before.tolist()[0] == 1.0
    assert np.isnan(found.before[1])
    assert found.after.tolist() == [0.0, 1.0, 1.0]
    assert found.excluded == 1
    assert gate.compare(found, SETTINGS).excluded == 2


def test_two_rows_for_one_prompt_and_seed_are_refused() -> None:
    with pytest.raises(ValueError, match="two rows for prompt p1, seed 7"):
        gate.pair_up([evaluation("p1", 7, 1.0)] * 2, [], "physics")


def test_nothing_measured_is_said_and_never_promoted() -> None:
    verdict = gate.decide(
        paired("physics", [np.nan] * 4, [1.0] * 4), [paired("motion", [np.nan], [np.nan])], SETTINGS
    )
    assert not verdict.promoted
    assert verdict.primary.delta is None
    assert "measured on no clip" in verdict.sentence
    motion = verdict.guards["motion"]
    assert (motion.ok, motion.before, motion.reason) == (None, None, "nothing was measured")


def test_a_guard_that_could_not_be_measured_is_told_and_does_not_block() -> None:
    better = paired("physics", coin(0.3), coin(0.6, seed=1))
    verdict = gate.decide(better, [paired("flicker", np.zeros(400), steady())], SETTINGS)
    assert verdict.promoted
    assert verdict.guards["flicker"].ok is None
    assert "flicker was not measured (it was 0 before" in verdict.sentence


def test_a_guard_that_can_no_longer_be_measured_is_broken() -> None:
    found = gate.guard(paired("motion", steady(), np.full(400, np.nan)), SETTINGS)
    assert found.ok is False
    assert found.reason == "it was measured before, and never after"


def test_one_prompt_promotes_nobody() -> None:
    verdict = gate.decide(paired("physics", [0.0] * 4, [1.0] * 4), [], SETTINGS)
    assert not verdict.promoted
    assert verdict.primary.ci_low is None
    assert "no interval: 4 prompts would give one, there are 1" in verdict.sentence


def test_a_guard_on_too_few_prompts_has_no_verdict_and_says_so() -> None:
    few = [paired(name, steady(12), 0.1 * steady(12)) for name in ("motion", "sharpness")]
    verdict = gate.decide(paired("physics", [0.0] * 12, [1.0] * 12), few, SETTINGS)
    assert not verdict.promoted
    assert {guard.ok for guard in verdict.guards.values()} == {None}
    assert "motion was not measured (4 prompts would give one, there are 3)" in verdict.sentence


def test_categories_are_told_apart() -> None:
    after = coin(0.3)
    after[:200] = 1.0
    verdict = gate.decide(paired("physics", coin(0.3), after), [], SETTINGS)
    assert list(verdict.categories) == list(KINDS)
    fall, meet = (verdict.categories[kind] for kind in KINDS)
    assert (fall.after, fall.n, fall.prompts) == (1.0, 200, 50)
    assert meet.delta == 0.0


def test_diversity_is_the_mean_pairwise_distance_within_a_prompt() -> None:
    latents = np.zeros((5, 2, 1, 2, 2))
    latents[1] = 3.0
    latents[2] = -1.0
    found = gate.diversity(latents, ["a", "a", "a", "b", "c"])
    assert found == {"a": pytest.approx((3 + 1 + 4) / 3), "b": None, "c": None}
    noise = np.random.default_rng(0).normal(size=(8, 1000))
    assert gate.diversity(noise, ["x"] * 8)["x"] == pytest.approx(np.sqrt(2), rel=0.02)


def test_diversity_of_equal_clips_is_exactly_zero_however_large_they_are() -> None:
    clip = 1e4 + np.random.default_rng(0).normal(size=(1, 500)).astype(np.float32)
    assert gate.diversity(np.repeat(clip, 4, axis=0), ["x"] * 4) == {"x": 0.0}
