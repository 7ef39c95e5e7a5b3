"""Prompts that a text encoder cuts, in words: of the model, and of rewards that read the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from data.text_limit import TextLimit
from models.families.text_limit import text_limit
from rewards import RewardRef, reward_kind
from rewards.composite import unmixed
from tasks.context import ClipJob, Generation, RoundContext

# Prompts that a line names.
_EXAMPLES: Final = 3
_NEGATIVE: Final = "the negative prompt"


def in_generation(context: RoundContext, fetch: bool) -> Iterator[str]:
    """What the model reads of training prompts.

    Args:
        fetch: get the tokenizer of a hub id that is not in the cache.
    """
    yield from _by_model(context.generation, _training(context), fetch)


def in_scores(context: RoundContext, fetch: bool) -> Iterator[str]:
    """What rewards read of training prompts."""
    yield from _by_rewards((*context.choosers, *context.rewards, context.feedback), _training(context))


def in_evaluation(context: RoundContext, fetch: bool) -> Iterator[str]:
    """What the model, and the rewards that examine, read of the prompts of the comparison."""
    jobs = [job for _, some in context.evaluate.jobs for job in some]
    yield from _by_model(context.generation, jobs, fetch)
    yield from _by_rewards((*context.evaluate.measures, *context.evaluate.choosers), jobs)


def _training(context: RoundContext) -> list[ClipJob]:
    return [job for sampled in context.training for job in sampled.jobs]


def _names(jobs: Sequence[ClipJob]) -> dict[str, str]:
    """Ids of prompts by their text."""
    return {job.prompt.text: job.prompt.prompt_id for job in jobs}


def _by_model(how: Generation, jobs: Sequence[ClipJob], fetch: bool) -> Iterator[str]:
    names = _names(jobs)
    if how.sample.guidance > 1:
        names.setdefault(how.sample.negative_prompt, _NEGATIVE)
    limit = text_limit(how.model, how.sample, fetch=fetch)
    yield from _told(names, limit, "the model's text encoder", " (generate.max_sequence_length)")


def _by_rewards(rewards: Sequence[RewardRef], jobs: Sequence[ClipJob]) -> Iterator[str]:
    names = _names(jobs)
    for reward in {one.name: one for whole in rewards for one in unmixed(whole)}.values():
        kind = reward_kind(reward.kind)
        if kind.text_limit is not None:
            yield from _told(names, kind.text_limit(reward.settings), f"reward {reward.name}", "")


def _told(names: dict[str, str], limit: TextLimit | None, reader: str, key: str) -> Iterator[str]:
    if limit is None:
        yield f"whether {reader} cuts prompts is not known: its tokenizer is not on this machine"
        return
    try:
        cut = limit.cuts(names)
    except Exception as error:  # whatever a library raises of a damaged file: who loads the model says it too
        yield f"whether {reader} cuts prompts is not known: its tokenizer cannot be read ({error})"
        return
    if cut:
        longest = sorted(cut, key=lambda text: (-cut[text], names[text]))
        some = ", ".join(f"{names[text]} has {cut[text]}" for text in longest[:_EXAMPLES])
        more = ", ..." if longest[_EXAMPLES:] else ""
        yield (
            f"{reader} reads {limit.tokens} tokens of a prompt{key} and cuts {len(cut)} of {len(names)}: "
            f"{some}{more}"
        )
