"""A plan in words: what a round would run, and what the store already holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from data.errors import VidloopError
from data.store import Store, backend_of, format
from flows.config.recipe import Recipe
from flows.config.resolve import open_round
from flows.reporting.messages import introduction
from tasks.context import RoundContext
from tasks.failures import failure_lines, failures
from tasks.stages import STAGES, plan, require_weights

_SHOWN = 3


@contextmanager
def to_look_at(recipe: Recipe, store: str) -> Iterator[RoundContext]:
    """A context that writes nothing. Raises UserError as `open_round`."""
    with store_to_look_at(store) as opened:
        yield open_round(recipe, opened, "plan")


@contextmanager
def store_to_look_at(store: str) -> Iterator[Store]:
    """The store, to be read; one that does not exist yet is taken for an empty one."""
    backend = backend_of(store)
    if not format.is_missing(backend) or format.is_store_without(backend):
        yield Store.open(store)
        return
    with TemporaryDirectory() as folder:
        try:
            yield Store.open(folder, create=True)
        except VidloopError as error:
            error.args = tuple(str(one).replace(folder, backend.url) for one in error.args)
            raise


def plan_lines(context: RoundContext) -> Iterator[str]:
    """The round in derived numbers, and a line a stage.

    Raises ModelError: something is to be computed, and weights for it are not whole.
    """
    stages = plan(context)
    first = next((planned.stage for planned in stages if not planned.whole), None)
    if first is not None:
        require_weights(context, first)
    yield from introduction(context)[1:]
    for name, spec in STAGES.items():
        yield from (f"    warning: {name}: {warning}" for warning in spec.warnings(context, False))
    yield ""
    for planned in stages:
        cached = sum(whole for _, whole in planned.units)
        missing = [unit for unit, whole in planned.units if not whole]
        more = ", and more that depends on earlier answers" if planned.more else ""
        told = f"{cached} cached, {len(missing)} to run{more}"
        yield f"{planned.stage:<10}{told if planned.units else 'depends on earlier answers'}"
        for unit in missing[:_SHOWN]:
            yield f"    {unit.keys[0][:12]}  {unit.label}"
        if len(missing) > _SHOWN:
            yield f"    and {len(missing) - _SHOWN} more"
    yield from (f"warning: {line}" for line in failure_lines(failures(context)))
