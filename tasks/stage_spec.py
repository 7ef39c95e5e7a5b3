"""What a stage says of itself: the entry that its file makes for the table in `tasks.stages`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from rewards import RewardRef
from tasks.context import RoundContext
from tasks.units import Unit


@dataclass(frozen=True)
class Phase:
    """Units of a stage that do not wait for each other.

    Attributes:
        units: at least one.
        more: whether the stage has further units, which depend on the answers of these.
        answers: whether these units' key is the stage's own, if they are the last that do.
    """

    units: Sequence[Unit]
    more: bool = False
    answers: bool = True


@dataclass(frozen=True)
class StageSpec:
    """A stage of a round.

    Attributes:
        name: in recipes, in `summary.json` and on the command line.
        flow: of its Prefect flow.
        version: goes into the key of each of its units; raised when results for the same question change.
        title: what it makes, in a few words.
        does: what it does, in a sentence.
        phases: its units for a round, one phase after the other. Raises StageFailed where what an earlier
            stage makes is missing.
        form: keys of the recipe that a person may change in the stage's run form, in the form's order.
        needs_device: whether a unit may compute on the device of the recipe's model.
        prepare: called before each phase is worked through; not where it is only planned.
        rewards: those that it may ask.
        warnings: what a person should know before the stage computes, in lines; told whether files of a hub
            id that are not on this machine may be fetched for it. It loads no network.
        outcome: what it came to, in a sentence that a person should read after it; None: nothing to say.
        early_start: within, what of this stage may begin while the stage before it computes.
    """

    name: str
    flow: str
    version: int
    title: str
    does: str
    phases: Callable[[RoundContext], Iterator[Phase]]
    form: tuple[str, ...]
    needs_device: bool = True
    prepare: Callable[[RoundContext, Sequence[Unit]], None] = lambda context, units: None
    rewards: Callable[[RoundContext], Sequence[RewardRef]] = lambda context: ()
    warnings: Callable[[RoundContext, bool], Iterable[str]] = lambda context, fetch: ()
    outcome: Callable[[RoundContext], str | None] = lambda context: None
    early_start: Callable[[RoundContext], AbstractContextManager[None]] = lambda context: nullcontext()
