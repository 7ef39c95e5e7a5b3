"""A round in words: what is going to happen, what came of it, what to do next."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from typing import Final

from flows.reporting.words import duration
from tasks.context import RoundContext
from tasks.summary import RoundSummary

DEFAULT_RECIPE: Final = "recipes/mini.yaml"
DEFAULT_STORE: Final = "store"


def introduction(context: RoundContext) -> list[str]:
    """The round in derived numbers: clips, batches, pairs, steps."""
    how, train, policy = context.generation, context.finetune, context.policy
    clips, prompts = len(context.jobs), len({job.prompt.prompt_id for job in context.jobs})
    batches = -(-clips // how.batch_size)
    each = Counter(job.prompt.prompt_id for job in context.jobs).values()
    # Half good and half bad makes the most pairs of a prompt.
    pairs = sum(min(context.curate.pairs_per_prompt, (n // 2) * (n - n // 2)) for n in each)
    size = f"{how.sample.width}x{how.sample.height}, {how.sample.frames} frames, {how.sample.steps} steps"
    units = "pairs" if train.algorithm.pairwise else "clips"
    compared = ", ".join(
        f"{len(jobs)} clips of {len({job.prompt.prompt_id for job in jobs})} {split} prompts"
        for split, jobs in context.evaluate.jobs
    )
    earlier = sum(len(jobs) for _, jobs in context.earlier)
    with_earlier = f", with {earlier} clips of {len(context.earlier)} earlier rounds" if earlier else ""
    return [
        f"Round {context.run_id}: recipe {context.name}, store {how.root}",
        f"    start     policy {policy.policy_id}, "
        f"{'an adapter over' if policy.adapter_path else 'the base model'} {_short(how.model.path)}",
        f"    generate  {clips} clips of {prompts} prompts, {batches} batches of {how.batch_size} ({size})",
        f"    score     {', '.join(reward.name for reward in context.rewards)}",
        f"    curate    by {context.feedback.name}, {context.curate.kind}, at most {pairs} pairs"
        f"{' of its own' + with_earlier if earlier else ''}",
        f"    finetune  {train.label}, {train.steps} steps of {train.batch_size} {units}, "
        f"LoRA of rank {train.rank}",
        f"    evaluate  {context.evaluate.metric.name}, before and after: {compared}",
    ]


def conclusion(context: RoundContext, summary: RoundSummary) -> list[str]:
    """The verdict in a sentence, what is behind it, and what to run next."""
    learned = summary.policy_after is not None
    lines = ["", summary.verdict if learned else _nothing_learned(summary)]
    for name, found in summary.compared.items():
        if found.delta is not None:
            change = f"{found.before:.3f} -> {found.after:.3f}  {found.delta:+.3f}"
            known = found.ci_low is not None
            interval = f" ({found.ci_low:+.3f} to {found.ci_high:+.3f})" if known else ""
            lines.append(f"    {name:<22} {change}{interval}")
    spent = {name: stage.seconds for name, stage in summary.stages.items()}
    told = ", ".join(f"{name} {duration(seconds)}" for name, seconds in spent.items())
    root = context.generation.root
    store = "" if os.path.abspath(DEFAULT_STORE) == root else f" --store {shlex.quote(_short(root))}"
    follow = [
        (
            f"report{store}",
            f"the round as one HTML page (its numbers: {_short(root)}/rounds/{context.run_id})",
        ),
        (f'query{store} "FROM rounds"', "any question in SQL; `query --help` names the views"),
    ]
    if summary.promoted:
        again = f"round{store} --set policy=champion --set seed={context.seed + 1}"
        follow.append((again, "on from the new champion"))
    return [
        *lines,
        f"Took {duration(sum(spent.values()))}: {told}",
        "Next:",
        *(f"    {program()} {command}    {what}" for command, what in follow),
    ]


def program() -> str:
    """How this program was called, as short as can be."""
    return _short(sys.argv[0]) if os.path.basename(sys.argv[0]) == "vidloop" else "vidloop"


def _nothing_learned(summary: RoundSummary) -> str:
    return f"No training data: {summary.primary.reason}. The champion stays."


def _short(path: str) -> str:
    """A path from here or from the root, whichever is shorter."""
    return min(os.path.relpath(path), path, key=len)
