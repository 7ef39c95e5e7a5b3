"""The interval of what raters say holds for other raters and prompts of their kind."""

from __future__ import annotations

import numpy as np
import pytest

from models.gate import raters


def study(random: np.random.Generator, prompts: int, people: int, each: int = 0) -> tuple:
    """Votes whose chance depends on the prompt and on the rater; the truth is 0.6."""
    chance = 0.6 + random.uniform(-0.2, 0.2, prompts)[:, None] + random.uniform(-0.15, 0.15, people)
    votes = (random.random(chance.shape) < chance).astype(np.float64)
    rows = [(p, r) for p in range(prompts) for r in range(people) if not each or (p + r) % people < each]
    return (
        np.array([votes[row] for row in rows]), [f"p{p}" for p, _ in rows], [f"r{r}" for _, r in rows],
    )  # fmt: skip


@pytest.mark.parametrize(("prompts", "people", "each"), [(40, 3, 0), (40, 8, 0), (60, 12, 3)])
def test_it_covers_the_truth(monkeypatch: pytest.MonkeyPatch, prompts: int, people: int, each: int) -> None:
    monkeypatch.setattr(raters, "DRAWS", 500)
    random = np.random.default_rng(1)
    found = [raters.mean(*study(random, prompts, people, each), 0.95) for _ in range(300)]
    held = np.mean([one.low <= 0.6 <= one.high for one in found])
    assert held >= 0.90
    # It is of use: half a width of what a coin would have.
    assert np.mean([one.high - one.low for one in found]) < 0.45


def test_other_raters_are_part_of_the_doubt() -> None:
    votes = np.array([1.0] * 40 + [1.0] * 40 + [0.0] * 40)  # two always say yes, one never
    prompts = [f"p{n}" for n in range(40)] * 3
    names = [name for name in ("ann", "bob", "cem") for _ in range(40)]
    found = raters.mean(votes, prompts, names, 0.95)
    assert found.value == pytest.approx(2 / 3)
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize(("votes", "prompts", "names", "why"), [
    ([1, 0, 1, 0], ["p1", "p2", "p3", "p4"], ["ann", "ann", "bob", "bob"], "4 prompts and 2 raters: 4 and 3 are needed"),
    ([1, 0, 1], ["p1", "p1", "p2"], ["ann", "bob", "cem"], "2 prompts and 3 raters: 4 and 3 are needed"),
    ([1, 1, 1, 1], ["p1", "p2", "p3", "p4"], ["ann", "bob", "cem", "cem"], "all votes are the same"),
])  # fmt: skip
def test_where_it_cannot_be_said_there_is_none(votes: list, prompts: list, names: list, why: str) -> None:
    found = raters.mean(np.array(votes, np.float64), prompts, names, 0.95)
    assert found.value == np.mean(votes)
    assert (found.low, found.high, found.lacking) == (None, None, why)
