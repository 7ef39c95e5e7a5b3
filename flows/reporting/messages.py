"""A round in words: what is going to happen, what came of it, what to do next."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tasks.context import RoundContext
from tasks.rounds import RECIPE
from tasks.summary import RoundSummary

DEFAULT_RECIPE: Final = "recipes/mini.yaml"
DEFAULT_STORE: Final = "store"


def introduction(context: RoundContext) -> list[str]:
    """The round in derived numbers: clips, batches, pairs, steps."""
    from flows.reporting.page import template

    each = Counter(job.prompt.prompt_id for job in context.jobs).values()
    return template(
        "introduction.txt.j2",
        context=context,
        model=_short(context.generation.model.path),
        prompts=lambda jobs: len({job.prompt.prompt_id for job in jobs}),
        batches=-(-len(context.jobs) // context.generation.batch_size)
        * (context.best_of.n if context.best_of else 1),
        # Half good and half bad makes the most pairs of a prompt.
        pairs=sum(min(context.curate.pairs_per_prompt, (n // 2) * (n - n // 2)) for n in each),
        earlier=sum(len(one.jobs) for one in context.earlier),
        imported=sum(shard.clips for shard in context.imported),
    ).splitlines()


def conclusion(
    context: RoundContext, summary: RoundSummary, options: Sequence[str] | None = None
) -> list[str]:
    """The verdict in a sentence, what is behind it, and what to run next.

    Args:
        context: of the round.
        summary: what came of it.
        options: those of the command that played it which the next round takes too, but for the store; None:
            it was no command, and the next round takes this one's own copy of its recipe.
    """
    from flows.reporting.measures import read_measures
    from flows.reporting.page import template

    root = context.generation.root
    own = ["--recipe", _short(str(context.store.local(f"rounds/{summary.round}/{RECIPE}")))]
    return template(
        "conclusion.txt.j2",
        summary=summary,
        measures=read_measures(context.store, summary, all_rewards=False),
        program=program(),
        root=_short(root),
        store="" if os.path.abspath(DEFAULT_STORE) == root else f" --store {shlex.quote(_short(root))}",
        options="".join(f" {shlex.quote(word)}" for word in (own if options is None else options)),
        seed=context.seed,
    ).splitlines()


def program() -> str:
    """How this program was called, as short as can be, for a shell."""
    return shlex.quote(_short(sys.argv[0])) if os.path.basename(sys.argv[0]) == "vidloop" else "vidloop"


def _short(path: str) -> str:
    """A path from here or from the root, whichever is shorter; a URL as it is."""
    return path if "://" in path else min(os.path.relpath(path), path, key=len)
