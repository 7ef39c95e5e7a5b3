"""A row of every table that there is: segments hold it, and answer with it."""

import pyarrow as pa

from data.queries import run_query
from data.records import TABLES, Import, from_table
from data.store.compaction import Compacted, compact
from tests.data.store.test_segments import units, without_originals


def some(table, number):
    """A row of a table, of values by its columns' types."""
    values = {"int32": number, "int64": number, "double": 0.5, "float": 0.5, "bool": True}
    row = {
        field.name: [f"{field.name}{number}"]
        if pa.types.is_list(field.type)
        else values.get(str(field.type), f"{field.name}{number}")
        for field in TABLES[table].schema
    }
    row |= dict.fromkeys(TABLES[table].media, "")
    if TABLES[table].row is Import:
        row["status"] = "refused"
        row["clip_id"] = None
    if "error" in row:
        row |= {"value": None, "status": "failed"}
    return from_table(table, pa.Table.from_pylist([row], schema=TABLES[table].schema))


def test_every_table_there_is_can_be_compacted(store):
    for number in range(8):
        made = {table: some(table, number) for table in TABLES}
        store.commit("curate", {"stage": "curate", "version": 1, "n": number}, made)
    before, held = {view: run_query(store, f"FROM {view} ORDER BY ALL") for view in TABLES}, units(store)
    assert all(rows for _, rows in before.values())
    assert compact(store) == Compacted(units=8, left=0, segments=1)
    assert without_originals(store) == set(held)
    assert {view: run_query(store, f"FROM {view} ORDER BY ALL") for view in TABLES} == before
    assert units(store) == held
