"""What curation reads of the store: the columns that decide, unit by unit, into tables of DuckDB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from data.curation.settings import CurateSettings
from data.store import Store

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

# Rows that are handed to DuckDB at once.
_AT_ONCE: Final = 100_000

CREATE: Final = """
CREATE TEMP TABLE clips (clip_id VARCHAR, prompt_id VARCHAR, category VARCHAR);
CREATE TEMP TABLE modes (mode VARCHAR);
CREATE TEMP TABLE scores (clip_id VARCHAR, value DOUBLE, error VARCHAR);
CREATE TEMP TABLE kinds (reward VARCHAR, reward_version VARCHAR);
CREATE TEMP TABLE told (clip_id VARCHAR, parts DOUBLE[][]);
CREATE TEMP TABLE compared (clip_id VARCHAR, clips VARCHAR[][])
"""

CLIPS: Final = """
INSERT INTO clips SELECT clip_id, prompt_id, category FROM arrived
WHERE NOT list_contains($excluded::VARCHAR[], category)
"""

# The mode stands behind the scheduler's name; exact samplers have none.
MODES: Final = "INSERT INTO modes SELECT DISTINCT regexp_extract(sampler, '(fast|weights): .*') FROM arrived"

SCORES: Final = "INSERT INTO scores SELECT clip_id, value, error FROM arrived WHERE reward = $feedback"

KINDS: Final = "INSERT INTO kinds SELECT DISTINCT reward, reward_version FROM arrived"

TOLD: Final = """
INSERT INTO told SELECT clip_id, from_json(detail -> '$.segments', '[["DOUBLE"]]') FROM arrived
WHERE reward = $feedback AND status = 'ok' AND contains(detail, '"segments"')
"""

COMPARED: Final = """
INSERT INTO compared SELECT clip_id, from_json(detail -> '$.compared', '[["VARCHAR"]]') FROM arrived
WHERE reward = $feedback AND status = 'ok' AND contains(detail, '"compared"')
"""


def read(
    con: duckdb.DuckDBPyConnection,
    store: Store,
    clip_keys: Sequence[str],
    score_keys: Sequence[str],
    settings: CurateSettings,
    version: str | None,
) -> None:
    """Make the tables of `CREATE`: `clips` that may teach, `scores` of the feedback, what it told of segments
    (unless they are ignored) and which clips it compared, as the units have them, a clip of several units
    several times; `modes` of sampling and `kinds` of rewards of all rows. Arguments and errors are those of
    `curate`.
    """
    import pyarrow.compute as pc

    con.execute(CREATE)
    excluded, feedback = list(settings.exclude_categories), settings.feedback
    columns = ["clip_id", "prompt_id", "category", "sampler"]
    for rows in _together(store.batches(clip_keys, "clips", columns)):
        con.register("arrived", rows)
        con.execute(CLIPS, {"excluded": excluded})
        con.execute(MODES)
    columns = ["clip_id", "reward", "reward_version", "value", "status", "error", "detail"]
    for rows in _together(store.batches(score_keys, "scores", columns)):
        if version is not None:  # another judge of the same kind may have scored these clips too
            same = pc.equal(rows["reward_version"], version)
            rows = rows.filter(pc.or_(same, pc.not_equal(rows["reward"], feedback)))
        con.register("arrived", rows)
        con.execute(KINDS)
        con.execute(SCORES, {"feedback": feedback})
        con.execute(COMPARED, {"feedback": feedback})
        if settings.segments == "differing":
            con.execute(TOLD, {"feedback": feedback})


def _together(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in fewer tables: to DuckDB one of a few rows is as much work as one of many."""
    import pyarrow as pa

    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += table.num_rows
        if count >= _AT_ONCE:
            yield pa.concat_tables(held)
            held, count = [], 0
    if held:
        yield pa.concat_tables(held)
