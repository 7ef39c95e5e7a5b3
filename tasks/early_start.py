"""The judge's server starts while clips are still being generated, so that scoring need not wait for it.

Only a server that computes on the CPU: on a GPU, generation has the memory (`rewards.judge.served`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from rewards import Reward, reward_kind
from rewards.judge.judge import JudgeReward
from tasks import generate
from tasks.context import RESIDENTS, RewardRef, RoundContext
from tasks.units import Unit

# Kind of resident: one server of the run's own at a time; the next judge's takes its place.
SERVER: Final = "judge's server"


def serves(reward: RewardRef) -> bool:
    """Whether the reward starts a server of the run's own."""
    return reward_kind(reward.kind).serves(reward.settings)


@contextmanager
def beside_generation(
    context: RoundContext, borrow: Callable[[RewardRef], AbstractContextManager[Reward]]
) -> Iterator[None]:
    """Around the generate stage of a round: what it prepares is found by the score stage.

    Nothing starts if all clips are there: whether all are judged, too, the score stage finds out. If the
    stage ends in an error, the server ends with it.

    Args:
        context: the round.
        borrow: a reward, ready to score, which stays loaded for the next borrower.

    Raises:
        ConfigError: there is no environment with vLLM.
    """
    judges = [reward for reward in context.rewards if serves(reward)][:1]  # the first to score
    if not judges or not any(_missing(context, unit) for unit in generate.units(context)):
        yield
        return
    try:
        for reward in judges:
            with borrow(reward) as judge:
                if isinstance(judge, JudgeReward):
                    judge.prepare()
        yield
    except BaseException:
        RESIDENTS.give_up(SERVER)
        raise


def _missing(context: RoundContext, unit: Unit) -> bool:
    return any(context.store.verify(key, "size") is not None for key in unit.keys)
