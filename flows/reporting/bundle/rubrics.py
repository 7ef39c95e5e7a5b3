"""The rubrics that a round's judges went by, as they lie here now, and whether they are still the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from data.errors import VidloopError
from data.resources import find
from rewards import reward_ref
from rewards.kind import KIND
from tasks.summary import RoundSummary

_SETTING = "rubric"


@dataclass(frozen=True)
class Held:
    """A rubric.

    Attributes:
        reward: the recipe's name of the judge.
        reward_version: of the round's scores.
        version_now: the version that judge and rubric have now; equal: they are those of the round. None:
            it cannot be told.
        reason: why not, or why there is no text.
        text: the file; None where it is gone.
    """

    reward: str
    reward_version: str
    version_now: str | None
    reason: str | None
    text: str | None


def rubrics(summary: RoundSummary) -> Iterator[Held]:
    """Those of every reward of the round that has one."""
    asked = summary.recipe.get("rewards", {})
    for name, one in sorted((summary.rewards or {}).items()):
        said = asked.get(name, {})
        if not said.get(_SETTING):
            continue
        text, version, reason = None, None, None
        try:
            text = find(said[_SETTING]).read_text("utf-8")
            settings = {key: value for key, value in said.items() if key != KIND}
            version = reward_ref(name, one.kind, settings).version
        except (OSError, VidloopError) as error:
            reason = str(error)
        yield Held(name, one.version, version, reason, text)


def table(held: list[Held]) -> pa.Table:
    """Rubrics as a table, a row each; columns are the fields of `Held`."""
    names = Held.__dataclass_fields__
    return pa.table(
        {name: pa.array([getattr(one, name) for one in held], pa.string()) for name in names},
    )
