"""Which prompts a round should spend its clips on: those that pass sometimes, and a share drawn by lot.

A prompt whose clips all pass or all fail gives no pair, and no contrast to any other objective. With binary
labels a prompt of success rate p gives a pass x fail pair with probability 2 p (1 - p), which is most at one
half: the selection by learnability of Tzannetos et al. 2023 (arXiv 2304.12877), p (1 - p), as DAPO (Yu et al.
2025, arXiv 2503.14476, section 3.2) filters prompts that are always or never solved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.keys import digest
from data.queries import connect
from data.store import Store

# Clips of one policy whose scores are known. Without a threshold the median of the values is the line.
_KNOWN = """
WITH judged AS (
    SELECT c.prompt_id, c.policy_id, s.value FROM clips c JOIN scores s USING (clip_id)
    WHERE s.reward = $reward AND s.reward_version = $version AND s.value IS NOT NULL
      AND list_contains($policies, c.policy_id)
), line AS (SELECT coalesce($threshold, median(value)) AS pass FROM judged)
SELECT prompt_id, policy_id, count(*), count(*) FILTER (value >= pass) FROM judged, line GROUP BY ALL
"""


@dataclass(frozen=True, slots=True)
class Known:
    """What the scores in the store say of one prompt: `passed` of `clips`, of one policy."""

    clips: int
    passed: int

    @property
    def learnability(self) -> float:
        """p (1 - p), in [0, 1/4]; 0 where all pass or all fail."""
        share = self.passed / self.clips
        return share * (1 - share)


@dataclass(frozen=True, slots=True)
class Choice:
    """Chosen prompts, in the order of their set, and why.

    Attributes:
        prompts: ids.
        teachable: how many prompts of the set pass sometimes and fail sometimes, as far as is known.
        unknown: of how many no score is known.
        for_teaching: how many were chosen because they are teachable; the others were drawn by lot.
    """

    prompts: tuple[str, ...]
    teachable: int
    unknown: int
    for_teaching: int


def known(
    store: Store, reward: str, version: str, threshold: float | None, policies: Sequence[str]
) -> dict[str, Known]:
    """What is known of each prompt, by the first of `policies` that has scored clips of it.

    Args:
        store: where clips and scores are.
        reward: the reward that teaches, of this `version`.
        threshold: the value that passes; None takes the median of what is known.
        policies: ids, the one that matters most first: the champion, then its parents.

    Raises:
        StoreError: a part was changed.
    """
    with connect(store) as con:
        asked = {"reward": reward, "version": version, "threshold": threshold, "policies": list(policies)}
        rows = con.execute(_KNOWN, asked).fetchall()
    found: dict[str, Known] = {}
    for prompt, policy, clips, passed in sorted(rows, key=lambda row: policies.index(row[1])):
        del policy
        found.setdefault(prompt, Known(clips, passed))
    return found


def choose(
    prompts: Sequence[str], facts: Mapping[str, Known], count: int, explore: float, seed: int
) -> Choice:
    """Choose `count` prompts: the most teachable ones, and round(explore * count) of the others by lot.

    The others are the unknown, and those that always pass or always fail. Where there are too few teachable
    ones, others fill up, the unknown first; where there are too few others, teachable ones do.

    Args:
        prompts: ids of the set, in its order.
        facts: from `known`.
        count: how many, at least 1; the whole set if it has no more.
        explore: share of the chosen that the lot decides, in [0, 1].
        seed: of the lot, and of ties.
    """

    def lot(prompt: str) -> str:
        return digest(["prompt choice", seed, prompt])

    teachable = [prompt for prompt in prompts if prompt in facts and facts[prompt].learnability > 0]
    ranked = sorted(teachable, key=lambda prompt: (-facts[prompt].learnability, lot(prompt)))
    others = sorted(set(prompts) - set(teachable), key=lambda prompt: (prompt in facts, lot(prompt)))
    count = min(count, len(prompts))
    drawn = min(math.floor(explore * count + 0.5), len(others))
    taught = min(count - drawn, len(ranked))
    # Exploring draws from all others alike; only what fills up prefers the unknown.
    explored = sorted(others, key=lot)[:drawn]
    rest = [prompt for prompt in others if prompt not in explored][: count - drawn - taught]
    chosen = {*ranked[:taught], *explored, *rest}
    unknown = sum(prompt not in facts for prompt in prompts)
    return Choice(tuple(prompt for prompt in prompts if prompt in chosen), len(teachable), unknown, taught)
