"""The rows that a round rests on, and the units of work that hold them."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from data.policies import ancestry, policies
from data.records import TABLES, Row, to_table
from data.store import Manifest, Store
from flows.reporting.bundle import outside
from flows.reporting.compare import manifest_of, parents
from flows.reporting.judges import scores_of
from tasks.summary import RoundSummary

# Scores and policies are chosen; errors at fixed noise are numbers of the training's own, and many.
_APART: Final = {"scores", "policies", "reference_errors"}


def units(store: Store, summary: RoundSummary) -> dict[str, list[Manifest]]:
    """Every unit that the round's data set, candidate and verdict were computed from, by stage.

    Raises StoreError: one is no longer there, or was changed.
    """
    held: dict[str, Manifest] = {}
    waiting = [manifest_of(store, summary, stage) for stage in ("curate", "finetune", "evaluate")]
    for manifest in waiting:  # it grows meanwhile
        if manifest is not None and manifest.key not in held:
            held[manifest.key] = manifest
            waiting += parents(store, manifest)
    stages = [*summary.stages, *sorted({one.stage for one in held.values()} - summary.stages.keys())]
    return {
        stage: found
        for stage in stages
        if (found := sorted((one for one in held.values() if one.stage == stage), key=lambda one: one.key))
    }


def rows(store: Store, summary: RoundSummary, held: dict[str, list[Manifest]]) -> dict[str, list[Row]]:
    """Rows by table, each once, with their messages cleaned.

    Scores are those of the round's own rewards, of those too that neither taught nor examined; policies are
    those of the round and all they were trained from.

    Args:
        store: holds them.
        summary: of the round.
        held: its units, see `units`.

    Raises:
        StoreError: a unit is not there, or a part is missing or was changed.
    """
    manifests = [one for found in held.values() for one in found]
    tables = {part.table for one in manifests for part in one.parts} - _APART
    found: dict[str, Iterable[Any]] = {
        table: [row for one in manifests if one.part(table) for row in store.read(one.key, table)]
        for table in tables
    }
    clips = [one for one in manifests if one.part("clips")]
    found["scores"] = _asked(scores_of(store, clips), summary)
    known = policies(store)
    line = [
        name for end in (summary.policy_after, summary.policy_before) for name in ancestry(known, end or "")
    ]
    found["policies"] = [known[name] for name in line if name in known]
    return {table: _once(table, read) for table, read in sorted(found.items())}


def _asked(scores: Iterable[Any], summary: RoundSummary) -> Iterable[Any]:
    if summary.rewards is None:  # a round of an earlier release does not say which
        return scores
    asked = {(one.kind, one.version) for one in summary.rewards.values()}
    asked |= {part for one in summary.rewards.values() for part in one.parts.items()}
    return [row for row in scores if (row.reward, row.reward_version) in asked]


def _once(table: str, read: Iterable[Any]) -> list[Row]:
    key = operator.attrgetter(*TABLES[table].key)
    return [outside.row(one) for one in {key(one): one for one in read}.values()]


def parquet(table: str, held: Sequence[Row]) -> bytes:
    """A table of the store as a Parquet file: same rows, same bytes."""
    return as_parquet(to_table(table, held))


def as_parquet(table: pa.Table) -> bytes:
    """An Arrow table as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def told(manifest: Manifest) -> dict[str, Any]:
    """A unit as an outsider may see it: question, what the stage said of its work, digests of its files."""
    said = dataclasses.asdict(manifest)
    return {"digest": manifest.digest, **outside.cleaned(said)}
