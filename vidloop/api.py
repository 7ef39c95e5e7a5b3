"""The functions of `import vidloop`: a round, a store, a question, a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.queries import run_query
from data.store import Store
from flows.config.load import load_recipe
from flows.config.recipe import Recipe
from flows.reporting import build_report
from flows.rounds.plain import plain_round
from flows.rounds.run_round import begin
from tasks.summary import RoundSummary

if TYPE_CHECKING:
    import pyarrow as pa


def play_round(
    recipe: Recipe | str | Path,
    store: Store | str | Path,
    overrides: Sequence[str] = (),
    *,
    from_stage: str | None = None,
) -> RoundSummary:
    """Play one whole round here, without Prefect: generate, score, curate, finetune, evaluate, gate.

    What the store holds already is not computed again. Progress is printed; the report is written into the
    round's folder.

    Args:
        recipe: a file (`recipes/mini.yaml` comes with vidloop), or what `load_recipe` gave.
        store: a folder, or s3://BUCKET/PREFIX; made if it is not there.
        overrides: settings by name, as `--set` takes them: "finetune.steps=100". Of a file only.
        from_stage: the stages before this one must be whole in the store.

    Returns:
        What summary.json of the round says (docs/reference/summary.schema.json).

    Raises:
        UserError: the recipe, the store, a model or a server is not as it should be; says what to do.
        StageFailed: a stage failed after its retries; what was finished is kept, the same call goes on.
        TypeError: overrides of a recipe that has been read already.
    """
    if isinstance(recipe, Recipe) and overrides:
        raise TypeError("overrides belong to a recipe's file: give them to load_recipe")
    read = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), overrides)
    opened = store if isinstance(store, Store) else Store.open(store, create=True)
    return plain_round(begin(read, opened), from_stage=from_stage)


def open_store(folder: str | Path) -> Store:
    """The store in `folder`, or at a URL (s3://BUCKET/PREFIX).

    Raises StoreError: there is none, or one of a later release.
    """
    return Store.open(folder)


def query(store: Store, sql: str) -> pa.Table:
    """The answer of one SELECT over the store's views (docs/store.md) as an Arrow table.

    Raises:
        DataError: the SQL is not one query over the views, or DuckDB cannot answer it.
    """
    import pyarrow as pa

    names, rows = run_query(store, sql)
    return pa.table({name: [row[place] for row in rows] for place, name in enumerate(names)})


def write_report(store: Store, round_id: str | None = None) -> Path:
    """Write the HTML report of a round, or of the newest; its path on this machine.

    Raises StoreError: no such round.
    """
    return build_report(store, round_id)
