"""Queries: the store as named views, for DuckDB in this process or in any shell.

The views list the files that manifests and segments name (never a folder's content), so they show committed
work only. A row that several units hold (a clip that two rounds used) appears once.

    prompts clips imports latents choices scores prompt_answers labels exclusions examples pairs
    pair_segments reference_errors policies evaluations studies inputs   the tables of `data.records`
    counted_labels   the labels whose raters are not excluded
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
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from data.errors import DataError, StoreError
from data.records import TABLES
from data.store import Damaged, Part, Store, reward_versions, segments
from data.store.reward_versions import Version
from data.table_sql import Rows, name, select, text, texts

if TYPE_CHECKING:
    import duckdb

# Between interruptions: one that comes before the work begins is lost.
_AGAIN_S: Final = 0.1
# Loose rows of a table up to this many are held in memory, and read once; a score takes about 200 bytes.
_HELD: Final = 2_000_000
log = logging.getLogger("vidloop.store")

_VIEWS: Final = Path(__file__).with_name("views.sql")
_SCHEMA: Final = "loose"
_TAIL: Final = "the tail"
# Rows of it that are in memory beside those that are held.
_AT_ONCE: Final = 50_000
# Views that read a table beside the one of its name.
_READ_BY: Final[Mapping[str, set[str]]] = {
    "clips": {"scores_wide", "lineage"},
    "scores": {"scores_wide"},
    "labels": {"counted_labels"},
    "exclusions": {"counted_labels"},
    "examples": {"lineage"},
    "policies": {"lineage"},
}

# (reward, version) of every score, with the time at which the first file that holds it was written.
_VERSIONS: Final = """
SELECT reward, reward_version, min(time)
FROM read_parquet($files, filename = true)
JOIN (SELECT unnest($files) AS filename, unnest($times) AS time) USING (filename) GROUP BY ALL
"""


def connect(store: Store, memory_mb: int = 4096) -> Views:
    """A DuckDB connection with the views, which can read this store's files and nothing else.

    It may use so many megabytes of memory. What a statement reads is checked against its digest first, so an
    answer never rests on a changed file. Raises StoreError: a manifest or a segment's index was changed.
    """
    import duckdb

    con = duckdb.connect(config={"python_enable_replacements": False, "memory_limit": f"{memory_mb}MB"})
    store.backend.attach(con)
    folders = [store.where(folder) for folder in ("parts", "rounds", "runs")]
    con.execute(f"SET allowed_directories = {texts(folders)}")
    con.execute("SET enable_external_access = false")
    views = Views(store, con)
    con.execute("SET lock_configuration = true")
    return views


class Views:
    """The views of one store, as it was, over a DuckDB connection. Get it with `connect`; close it."""

    def __init__(self, store: Store, con: duckdb.DuckDBPyConnection) -> None:
        self._store, self._con = store, con
        self._segments = segments.live(store)
        paths = segments.tail(store)
        self._tail: dict[str, list[Part]] = {table: [] for table in TABLES}
        self._scored: list[str] = []  # manifests of units with scores
        for path in paths:
            for part in (one for one in store.manifest_at(path).parts if one.table in TABLES):
                self._tail[part.table].append(part)
                if part.table == "scores":
                    self._scored.append(str(path))
        self._shown: set[str] = set()
        self._define()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of memory and files."""
        self._con.close()

    def interrupt(self) -> None:
        """End what `execute` works at, in another thread."""
        self._con.interrupt()

    def extract_statements(self, sql: str) -> list[duckdb.Statement]:
        """The statements of a text. Raises duckdb.Error: it is no SQL."""
        return self._con.extract_statements(sql)

    def execute(
        self, sql: str | duckdb.Statement, parameters: Mapping[str, Any] | Sequence[Any] | None = None
    ) -> duckdb.DuckDBPyConnection:
        """Check the files that a statement reads, those not checked yet, and execute it.

        Raises:
            Damaged: a file is missing or was changed.
            duckdb.Error: the statement fails.
        """
        words = set(re.findall(r"\w+", (sql if isinstance(sql, str) else sql.query).lower()))
        # Those make their SQL, or its names, as they go.
        every = bool(words & {"query", "query_table"})
        for table in TABLES:
            if every or words & {table, *_READ_BY.get(table, ())}:
                self._show(table)
        if every or "scores_wide" in words:
            self._con.execute(_view("scores_wide", self._wide()))
        return self._con.execute(sql, parameters)

    def script(self) -> str:
        """The views as statements that read nothing but the store's files. Raises Damaged as `execute`."""
        for table in TABLES:
            self._show(table)
        tables = [_view(table, self._rows(table).once()) for table in TABLES]
        return "".join([*tables, _documents(self._store), _view("scores_wide", self._wide())])

    # -- inside --------------------------------------------------------------------------------------------

    def _define(self) -> None:
        """Make the views, those of tables empty: DuckDB opens a file for each view that it makes of files."""
        empty = [_view(table, Rows(table).once()) for table in TABLES]
        self._con.execute("".join([*empty, _documents(self._store), f"CREATE SCHEMA {_SCHEMA}"]))
        recorded = reward_versions.recorded(self._store.backend) or []
        self._con.execute(_view("scores_wide", _wide(self._named(), recorded)))

    def _show(self, table: str) -> None:
        """Check a table's files and make its view, unless that is done."""
        if table not in self._shown:
            self._check(table)
            self._con.execute(_view(table, self._hold(table)))
            self._shown.add(table)

    def _rows(self, table: str, tail: str = "") -> Rows:
        """Where a table's rows are; `tail`: a relation of those of the tail, if there is one."""
        clean: list[str] = []
        loose: list[str] = []
        for place, segment in enumerate(self._segments):
            files = self._paths(segment.files(table))
            if not files:
                continue
            gone = np.flatnonzero(segment.dead).tolist()
            alive = f" AND _unit NOT IN ({', '.join(map(str, gone))})" if gone else ""
            apart = all(segment.is_apart(larger, table) for larger in self._segments[:place])
            (clean if apart else loose).append(select(table, files, f"_shown{alive}"))
            if alive:
                # What hid them may have been rows of a unit that is gone.
                loose.append(select(table, files, f"NOT _shown{alive}"))
        if self._tail[table]:
            loose.append(select(table, tail or self._paths(self._tail[table])))
        return Rows(table, tuple(clean), tuple(loose))

    def _paths(self, parts: Sequence[Part]) -> list[str]:
        return [self._store.where(part.path) for part in parts]

    def _check(self, table: str) -> None:
        """Hash a table's files, where bytes may change. Raises Damaged."""
        parts = [part for segment in self._segments for part in segment.files(table)]
        for part in (*parts, *self._tail[table]):
            fault = self._store.fault(part, "hash" if self._store.backend.rots else "size")
            if fault is None and self._store.backend.is_link(part.path):
                fault = f"part {part.path} is a link"
            if fault is not None:
                raise Damaged(
                    f"{self._store.url}: {fault}", f"`{self._store.heal_command}` sets aside what is damaged"
                )

    def _hold(self, table: str) -> str:
        """A SELECT of a table's rows; its loose ones are read now, if they are few, and held."""
        rows = self._rows(table)
        if not rows.loose or sum(part.rows for part in self._tail[table]) > _HELD:
            return rows.once()
        held, kept = (f"{_SCHEMA}.{name(table + end)}" for end in ("", " once"))
        with self._read_tail(table) as tail:
            self._con.execute(f"CREATE OR REPLACE TABLE {held} AS {self._rows(table, tail).ordered()}")
        apart = not self._says(rows.overlap(held))
        if not apart or self._says(rows.repeated(held)):
            self._con.execute(f"CREATE OR REPLACE TABLE {kept} AS {rows.merged(held)}")
            self._con.execute(f"DROP TABLE {held}")
            held = kept
        return rows.beside(held, apart)

    @contextlib.contextmanager
    def _read_tail(self, table: str) -> Iterator[str]:
        """A relation of the tail's rows, to be read once; "" if there are none.

        Threads that open thousands of small files are in each other's way, so a connection of one reads them.
        """
        import duckdb

        if not self._tail[table]:
            yield ""
            return
        with duckdb.connect(config={"threads": 1}) as apart:
            self._store.backend.attach(apart)
            found = apart.sql(select(table, self._paths(self._tail[table])))
            self._con.register(_TAIL, found.to_arrow_reader(_AT_ONCE))
            try:
                yield _TAIL
            finally:
                self._con.unregister(_TAIL)

    def _says(self, sql: str) -> bool:
        found = self._con.execute(sql).fetchone()
        return found is not None and bool(found[0])

    def _wide(self) -> str:
        """The view with a column for each reward, of the versions that there are scores of."""
        present = self._con.execute(
            "SELECT DISTINCT reward, reward_version FROM scores ORDER BY ALL"
        ).fetchall()
        known = reward_versions.recorded(self._store.backend)
        if known is None:
            known = self._record(present)
        there = {(one.reward, one.reward_version) for one in known}
        late = [Version(reward, version, "") for reward, version in present if (reward, version) not in there]
        held = [one for one in known if (one.reward, one.reward_version) in set(present)]
        return _wide(self._named(), reward_versions.newest_first([*held, *late]))

    def _named(self) -> list[tuple[str, str, str]]:
        return self._con.execute("SELECT name, reward, reward_version FROM names ORDER BY round").fetchall()

    def _record(self, present: Sequence[tuple[str, str]]) -> list[Version]:
        """Versions of a store that an earlier program wrote, by the times of its files; recorded now."""
        times = [self._store.backend.modified(path) for path in self._scored]
        asked = {"files": self._paths(self._tail["scores"]), "times": times}
        rows = self._con.execute(_VERSIONS, asked).fetchall() if asked["files"] else []
        firsts = {(reward, version): datetime.fromtimestamp(time, UTC) for reward, version, time in rows}
        with contextlib.suppress(StoreError):  # whoever may only read it finds the same again
            for version in present:
                reward_versions.note(self._store.backend, [version], firsts.get(version) or datetime.now(UTC))
            reward_versions.note_complete(self._store.backend)
        return [Version(*version, firsts[version].isoformat()) for version in firsts]


def run_query(
    store: Store, sql: str, seconds: float | None = None
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """`answer` over a connection of its own. Raises as that and `connect`."""
    with connect(store) as con:
        return answer(con, sql, seconds)


def answer(con: Views, sql: str, seconds: float | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
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
        Damaged: a file that it reads is missing or was changed.
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
def _interrupted(con: Views, seconds: float | None) -> Iterator[None]:
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

    Raises StoreError: a manifest cannot be read, or a file of scores or clips is missing or was changed.
    """
    with connect(store) as views:
        return f"-- Views over {store.url} as it was; write this again to see newer work.\n{views.script()}"


def _view(title: str, body: str) -> str:
    return f"CREATE OR REPLACE VIEW {name(title)} AS {body};\n"


def _documents(store: Store) -> str:
    """The views over documents, and over other views."""
    found = {
        title: _contents([store.where(path) for path in store.find(pattern) if _is_ours(store, path)])
        for title, pattern in {"summaries": "rounds/*/summary.json", "runs": "runs/*.jsonl"}.items()
    }
    return Template(_VIEWS.read_text(encoding="utf-8")).substitute(found)


def _wide(named: Sequence[tuple[str, str, str]], versions: Sequence[Version]) -> str:
    """A SELECT with a column for each reward.

    Args:
        named: (name, reward, version) that rounds used, the newest round last.
        versions: by reward, the newest first.
    """
    columns = ["clip_id", "c.prompt_id", "c.prompt", "c.category", "c.split", "c.policy_id", "c.seed"]
    titles: dict[str, tuple[str, str]] = {}
    # Rounds know their order whatever the clock said when scores were committed.
    used = {(reward, version): place for place, (_, reward, version) in enumerate(named)}
    pairs = [(one.reward, one.reward_version) for one in versions]
    pairs.sort(key=lambda one: (one[0], -used.get(one, -1)))
    for reward, version in pairs:
        titles[f"{reward}@{version}" if reward in titles else reward] = (reward, version)
    kinds = {reward for reward, _ in pairs}
    for title, reward, version in named:
        if title not in kinds and (reward, version) in pairs:
            titles[title] = (reward, version)
    for title, (reward, version) in titles.items():
        chosen = f"s.reward = {text(reward)} AND s.reward_version = {text(version)}"
        columns.append(f"max(s.value) FILTER ({chosen}) AS {name(title)}")
    selected = ", ".join(columns)
    return f"SELECT {selected} FROM clips c JOIN scores s USING (clip_id) GROUP BY ALL ORDER BY clip_id"


def _is_ours(store: Store, path: str) -> bool:
    """Whether a document may be read: a file that lies in the store, and no link out of it."""
    readable = store.backend.is_plain(path)
    if not readable:
        log.warning("%s is left out: it is no file that can be read", store.where(path))
    return readable


def _contents(files: Sequence[str]) -> str:
    if not files:
        return "(VALUES ('', '')) none (filename, content)"
    # A file that is no text is left out, as one that is no JSON; `read_text` would end every query.
    return f"(SELECT filename, try(decode(content)) AS content FROM read_blob({texts(files)}))"
