"""Which clips a round makes: prompts and seeds, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from data.errors import ConfigError
from data.keys import clip_seed
from data.prompts import load_prompts
from data.records import Prompt
from tasks.context import ClipJob
from tasks.settings import GenerateSettings

Examination = Literal["evaluate", "confirm", "reexamine"]
"""What clips are compared for: the gate, its confirmation, or the champion against the start of a series."""


def training_prompts(settings: GenerateSettings) -> list[Prompt]:
    """The prompts of the training clips, in the order of their set.

    Raises ConfigError: there is no such set, or `generate.prompt_ids` names a prompt that is not in it.
    """
    prompts = load_prompts(settings.prompts)
    if settings.prompt_ids is None:
        return prompts
    wanted = set(settings.prompt_ids)
    unknown = sorted(wanted - {prompt.prompt_id for prompt in prompts})
    if unknown:
        raise ConfigError(f"generate.prompt_ids: {settings.prompts} holds no prompt {unknown[0]!r}")
    return [prompt for prompt in prompts if prompt.prompt_id in wanted]


def training_jobs(prompts: Sequence[Prompt], clips_per_prompt: int, seed: int) -> tuple[ClipJob, ...]:
    """The training clips in prompt order."""
    return tuple(
        ClipJob(prompt, clip_seed(seed, prompt.prompt_id, index, "train"))
        for prompt in prompts
        for index in range(clips_per_prompt)
    )


def evaluation_jobs(
    prompts: Sequence[Prompt], clips: int, seed: int, policy: str, purpose: Examination = "evaluate"
) -> tuple[ClipJob, ...]:
    """`clips` jobs spread evenly over the prompts.

    Seeds derive from the recipe's seed and the policy that the round starts from: fresh for every new
    champion, the same when a round is repeated, and never those of a training clip, nor of another purpose.
    """
    own = clip_seed(seed, policy, 0, purpose)
    # Evenly spaced prompts get one clip more than the others where the division leaves a rest.
    share, rest = divmod(clips, len(prompts))
    extra = {index * len(prompts) // rest for index in range(rest)} if rest else set()
    return tuple(
        ClipJob(prompt, clip_seed(own, prompt.prompt_id, index, purpose))
        for place, prompt in enumerate(prompts)
        for index in range(share + (place in extra))
    )
