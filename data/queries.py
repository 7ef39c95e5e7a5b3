"""Queries: the store as named views, for DuckDB in this process or in any shell.

The views list the files that manifests name (never a folder's content), so they show committed work only. A
row that several units hold (a clip that two rounds used) appears once.

    prompts clips choices scores prompt_answers examples pairs pair_segments reference_errors policies
    evaluations   the tables of `data.records`
    scores_wide   a clip a row, a column for each kind of reward: the version that the newest round used
                  under the kind's name, others as "<kind>@<version>"; and one for each other name that a
                  recipe gave a reward
    rounds        the summaries of rounds
    names         what the recipes of rounds called their rewards: (round, name, reward, reward_version)
    lineage       edges (child_kind, child, relation, parent_kind, parent)
    timings       run facts: what took how long, what was cached
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Final

from data.errors import DataError
from data.records import TABLES
from data.store import Damaged, Manifest, Store

if TYPE_CHECKING:
    import duckdb

_TYPES: Final = {
    "string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN",
    "list<item: string>": "VARCHAR[]", "list<element: string>": "VARCHAR[]",
}  # fmt: skip

# Between interruptions: one that comes before the work begins is lost.
_AGAIN_S: Final = 0.1
log = logging.getLogger("vidloop.store")

_VIEWS: Final = Path(__file__).with_name("views.sql")

# (reward, version) of every score, by reward, the version committed last first: of those that no round used.
VERSIONS: Final = """
SELECT reward, reward_version
FROM read_parquet($files, filename = true)
JOIN (SELECT unnest($files) AS filename, unnest($times) AS time) USING (filename)
GROUP BY ALL ORDER BY reward, max(time) DESC, reward_version
"""


def connect(store: Store, memory_mb: int = 4096) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the views, which can read this store's files and nothing else.

    It may use so many megabytes of memory. Every part is checked against its digest first, so an answer never
    rests on a changed file. Raises StoreError: a manifest or a part is missing or was changed.
    """
    import duckdb

    manifests = store.manifests()
    for manifest in manifests:
        for part in manifest.parts:
            fault = store.fault(part, "hash" if store.backend.rots else "size")
            if fault is None and store.backend.is_link(part.path):
                fault = f"part {part.path} is a link"
            if fault is not None:
                raise Damaged(f"{store.url}: {fault}", f"`{store.heal_command}` sets aside what is damaged")
    con = duckdb.connect(config={"python_enable_replacements": False, "memory_limit": f"{memory_mb}MB"})
    store.backend.attach(con)
    folders = [store.where(name) for name in ("parts", "rounds", "runs")]
    con.execute(f"SET allowed_directories = {_list(folders)}")
    con.execute("SET enable_external_access = false")
    _views(store, manifests, con)
    con.execute("SET lock_configuration = true")
    return con


def run_query(
    store: Store, sql: str, seconds: float | None = None
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """`answer` over a connection of its own. Raises as that and `connect`."""
    with connect(store) as con:
        return answer(con, sql, seconds)


def answer(
    con: duckdb.DuckDBPyConnection, sql: str, seconds: float | None = None
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Answer one SELECT (or FROM, WITH, VALUES, DESCRIBE, SHOW, SUMMARIZE) over the views.

    Args:
        con: of `connect`.
        sql: the statement.
        seconds: that it may take; None: as long as it takes.

    Returns:
        (column names, rows).

    Raises:
        DataError: the SQL is wrong, is several statements, would change something, or has an answer too
            large or too slow; with DuckDB's message.
    """
    import duckdb

    try:
        sql.encode()
    except UnicodeEncodeError:
        raise DataError("the query is no text in UTF-8") from None
    with _interrupted(con, seconds):
        try:
            statements = con.extract_statements(sql)
            if len(statements) != 1:
                raise DataError(f"the query has {len(statements)} statements: give one")
            if statements[0].type != duckdb.StatementType.SELECT:
                raise DataError(
                    f"the query is a {statements[0].type.name} statement: only SELECT, FROM, WITH, DESCRIBE, "
                    "SHOW and SUMMARIZE are answered, the store is read-only here"
                )
            result = con.execute(statements[0])
            return [column[0] for column in result.description or []], result.fetchall()
        except duckdb.InterruptException:
            raise DataError(
                f"the query was not answered in {seconds:g} s: narrow it, or give it more with --seconds"
            ) from None
        # Beside DuckDB's own: a value that Python has no type for.
        except (duckdb.Error, ArithmeticError, MemoryError, ValueError) as error:
            # Of a file system in Python (object storage) DuckDB gives a traceback, which helps nobody.
            told = str(error).partition("Traceback (most recent call last)")
            at_fault = "a file of the store cannot be read" if told[1] else ""
            raise DataError(f"the query cannot be answered: {told[0]}{at_fault}") from error


@contextlib.contextmanager
def _interrupted(con: duckdb.DuckDBPyConnection, seconds: float | None) -> Iterator[None]:
    """Interrupt what the connection works at in the block after so many seconds, and again until it ends."""
    if seconds is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            con.interrupt()
            wait = _AGAIN_S

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def catalog_sql(store: Store) -> str:
    """The views as a script for any DuckDB shell (`duckdb -init catalog.sql`), as the store is now.

    Raises StoreError: a manifest cannot be read.
    """
    import duckdb

    with duckdb.connect() as con:
        store.backend.attach(con)
        script = _views(store, store.manifests(), con)
    return f"-- Views over {store.url} as it was; write this again to see newer work.\n{script}"


def _views(store: Store, manifests: Sequence[Manifest], con: duckdb.DuckDBPyConnection) -> str:
    """Make the views in `con`; returns the script that does it."""
    files: dict[str, list[str]] = {name: [] for name in TABLES}
    scored_at: list[float] = []
    for manifest in manifests:
        for part in (one for one in manifest.parts if one.table in files):
            files[part.table].append(store.where(part.path))
            if part.table == "scores":
                path = f"manifests/{manifest.stage}/{manifest.key}.json"
                scored_at.append(store.backend.modified(path))
    texts = {
        name: _documents([store.where(path) for path in store.find(pattern) if _is_ours(store, path)])
        for name, pattern in {"summaries": "rounds/*/summary.json", "runs": "runs/*.jsonl"}.items()
    }
    script = "".join(_view(name, _table(name, paths)) for name, paths in files.items())
    script += Template(_VIEWS.read_text(encoding="utf-8")).substitute(texts)
    con.execute(script)
    wide = _view("scores_wide", _wide(con, files["scores"], scored_at))
    con.execute(wide)
    return script + wide


def _view(name: str, body: str) -> str:
    return f"CREATE OR REPLACE VIEW {name} AS {body};\n"


def _table(name: str, paths: Sequence[str]) -> str:
    spec = TABLES[name]
    if not paths:
        nothing = [f"NULL::{_TYPES[str(field.type)]} AS {_name(field.name)}" for field in spec.schema]
        return _select(nothing, "WHERE false")
    columns = ", ".join(map(_name, spec.schema.names))
    key = ", ".join(map(_name, spec.key))
    source = f"read_parquet({_list(paths)}, union_by_name = true)"
    # Ordered by every column, so that which of several rows of a key is shown does not depend on chance.
    return _select([f"DISTINCT ON ({key}) {columns}"], f"FROM {source} ORDER BY {columns}")


def _wide(con: duckdb.DuckDBPyConnection, files: Sequence[str], times: Sequence[float]) -> str:
    """The view with a column for each reward; needs those of the tables, and `names`."""
    columns = ["clip_id", "c.prompt_id", "c.prompt", "c.category", "c.split", "c.policy_id", "c.seed"]
    titles: dict[str, tuple[str, str]] = {}
    versions = con.execute(VERSIONS, {"files": files, "times": times}).fetchall() if files else []
    named = con.execute("SELECT name, reward, reward_version FROM names ORDER BY round").fetchall()
    # Rounds know their order whatever the clock said when a file was written.
    used = {(reward, version): place for place, (_, reward, version) in enumerate(named)}
    versions.sort(key=lambda one: (one[0], -used.get(one, -1)))
    for reward, version in versions:
        titles[f"{reward}@{version}" if reward in titles else reward] = (reward, version)
    kinds = {reward for reward, _ in versions}
    for name, reward, version in named:
        if name not in kinds and (reward, version) in versions:
            titles[name] = (reward, version)
    for title, (reward, version) in titles.items():
        chosen = f"s.reward = {_literal(reward)} AND s.reward_version = {_literal(version)}"
        columns.append(f"max(s.value) FILTER ({chosen}) AS {_name(title)}")
    return _select(columns, "FROM clips c JOIN scores s USING (clip_id) GROUP BY ALL ORDER BY clip_id")


def _is_ours(store: Store, path: str) -> bool:
    """Whether a document may be read: a file that lies in the store, and no link out of it."""
    readable = store.backend.is_plain(path)
    if not readable:
        log.warning("%s is left out: it is no file that can be read", store.where(path))
    return readable


def _documents(files: Sequence[str]) -> str:
    if not files:
        return "(VALUES ('', '')) none (filename, content)"
    # A file that is no text is left out, as one that is no JSON; `read_text` would end every query.
    return f"({_select(['filename', 'try(decode(content)) AS content'], f'FROM read_blob({_list(files)})')})"


# DuckDB takes no parameters in a view, so texts and names that come from rows or paths are quoted here.


def _select(columns: Sequence[str], rest: str) -> str:
    return f"SELECT {', '.join(columns)} {rest}"


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(map(_literal, values)) + "]"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
