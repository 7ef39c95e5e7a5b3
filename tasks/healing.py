"""Damage that is met while a round computes: what the round rests on is hashed, and set aside if damaged.

Committed content is trusted by name and size, so that a start reads nothing of it; its bytes are hashed by
whoever reads them. A reader that finds other bytes ends its stage with `Damaged`. Where one file was lost
others may have been: then everything of the round is hashed, what is damaged is set aside, and the same work
starts again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from data.errors import StageFailed
from data.store import Damaged, Store
from tasks import lookups
from tasks.context import RoundContext
from tasks.stage_spec import Phase
from tasks.stages import STAGES
from tasks.units import Unit, verified

log = logging.getLogger("vidloop.tasks")

Result = TypeVar("Result")
Phases = Callable[[], Iterable[Phase]]


def healed(store: Store, phases: Iterable[Phases], work: Callable[[], Result]) -> Result:
    """What `work` returns; done again as long as damage ends it and something can be set aside.

    Args:
        store: where the damage is.
        phases: the units that `work` computes and reads, as stages name them; see `of_round`.
        work: can be done again.

    Raises:
        Damaged: none of these units is damaged but what was set aside before: the file is another round's, or
            the disk keeps nothing.
        Exception: whatever else `work` raises.
    """
    before: set[str] = set()
    asked = tuple(phases)
    while True:
        try:
            return work()
        except Damaged as error:
            log.warning("%s: everything that this round rests on is hashed", error.what)
            found = set_damaged_aside(store, asked)
            if not found - before:
                raise
            before |= found


def of_round(context: RoundContext) -> list[Phases]:
    """All units of a round, stage by stage."""
    return [partial(spec.phases, context) for spec in STAGES.values()]


def set_damaged_aside(store: Store, phases: Iterable[Phases]) -> set[str]:
    """Hash units and set aside those that are damaged, which is said; returns their keys.

    Those that cannot be named while others are missing are left for the next time.
    """
    found: set[str] = set()
    for asked in phases:
        with suppress(StageFailed, Damaged):
            for phase in asked():
                found |= _damaged(store, phase.units)
    return found


def _damaged(store: Store, units: Sequence[Unit]) -> set[str]:
    labels: dict[lookups.Place, str] = {place: unit.label for unit in units for place in unit.places}
    before = {key for _, key in labels if lookups.was_known(store, key)}
    # What was there, and is gone, another process has set aside: as good as found here.
    return {
        key
        for key, why in verified(store, labels, "hash").items()
        if why not in (None, lookups.NOT_THERE) or (why and key in before)
    }
