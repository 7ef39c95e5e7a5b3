"""The two ways to curate that `benchmarks.curation` compares, one a process.

    python -m benchmarks.curation_sides plain|ours STORE binary|graded            prints what it took, as JSON

Plain is curation as it was before it streamed: it reads all columns, builds every ordered pair of a prompt,
and makes a Python object a row. Both give the same rows, as tests/data/curation/test_streams.py holds.
Statements that both share are imported.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from data.curation import CurateSettings, curate
from data.curation.curate import (
    EXAMPLES,
    SHAPED,
    PairCounts,
    curation_id_of,
    digests_of,
    report_of,
    shaping_of,
)
from data.records import Example, Pair, PairSegment
from data.store import Store

if TYPE_CHECKING:
    import duckdb

JUDGED: Final = """
CREATE TEMP TABLE judged AS
WITH c AS (
         SELECT DISTINCT ON (clip_id) * FROM clips WHERE NOT list_contains($excluded::VARCHAR[], category)
         ORDER BY clip_id
     ),
     s AS (SELECT DISTINCT ON (clip_id) * FROM scores WHERE reward = $feedback ORDER BY clip_id)
SELECT c.clip_id, c.prompt_id, c.category, s.value,
       CASE WHEN s.clip_id IS NULL THEN 'not judged' ELSE s.error END AS error,
       sha256($seed || ':' || c.clip_id) AS lot
FROM c LEFT JOIN s USING (clip_id) ORDER BY c.clip_id
"""

POSSIBLE: Final = """
CREATE TEMP TABLE possible AS
SELECT w.prompt_id, w.category, w.clip_id AS chosen, l.clip_id AS rejected, w.r - l.r AS margin,
       w.lot AS winner_lot, l.lot AS loser_lot
FROM shaped w JOIN shaped l ON w.prompt_id = l.prompt_id AND w.r > l.r AND w.r - l.r > $margin
"""

PAIRS: Final = """
CREATE TEMP TABLE paired AS
WITH numbered AS (
    SELECT *, dense_rank() OVER (PARTITION BY prompt_id ORDER BY winner_lot) AS i,
           dense_rank() OVER (PARTITION BY prompt_id ORDER BY loser_lot) AS j FROM possible
), sized AS (
    SELECT *, greatest(max(i) OVER prompt, max(j) OVER prompt) AS m
    FROM numbered WINDOW prompt AS (PARTITION BY prompt_id)
), ordered AS (
    SELECT *, row_number() OVER (PARTITION BY prompt_id ORDER BY (j - i + m) % m, i) AS turn FROM sized
)
SELECT prompt_id, category, chosen, rejected, margin FROM ordered WHERE turn <= $pairs_per_prompt
ORDER BY prompt_id, chosen, rejected
"""

SEGMENTS: Final = """
CREATE TEMP TABLE segments AS
WITH told AS (
    SELECT DISTINCT ON (clip_id) clip_id, from_json(detail -> '$.segments', '[["DOUBLE"]]') AS parts
    FROM scores WHERE reward = $feedback AND status = 'ok' AND contains(detail, '"segments"') ORDER BY clip_id
), cut AS (SELECT clip_id, unnest(parts) AS part FROM told),
valued AS (
    SELECT clip_id, part[1] AS start_s, part[2] AS end_s, flipped,
           CASE WHEN $kind = 'binary' THEN (part[3] >= $threshold)::DOUBLE
                ELSE greatest(0.0, least(1.0, $eta * (part[3] - $gamma))) END AS clean
    FROM cut JOIN shaped USING (clip_id) WHERE len(part) = 3
)
SELECT clip_id, start_s, end_s, CASE WHEN flipped THEN 1 - clean ELSE clean END AS r FROM valued
"""

COMPARED: Final = """
CREATE TEMP TABLE compared AS
WITH spans AS (SELECT clip_id, list([start_s, end_s] ORDER BY start_s) AS cut FROM segments GROUP BY clip_id)
SELECT chosen, rejected, w.start_s, w.end_s, w.r > l.r AS better
FROM possible
JOIN spans sw ON sw.clip_id = chosen JOIN spans sl ON sl.clip_id = rejected AND sl.cut = sw.cut
JOIN segments w ON w.clip_id = chosen JOIN segments l ON l.clip_id = rejected AND l.start_s = w.start_s
"""

DROP: Final = """
DELETE FROM possible WHERE (chosen, rejected) IN (
    SELECT (chosen, rejected) FROM compared GROUP BY chosen, rejected HAVING NOT bool_or(better)
)
"""

COUPLES: Final = """
SELECT coalesce(sum(clips * (clips - 1) // 2), 0)::BIGINT
FROM (SELECT count(*) AS clips FROM curated GROUP BY prompt_id)
"""

BETTER: Final = """
SELECT chosen, rejected, start_s, end_s FROM compared JOIN paired USING (chosen, rejected) WHERE better
ORDER BY chosen, rejected, start_s
"""


def plain(
    store: Store,
    clip_keys: Sequence[str],
    score_keys: Sequence[str],
    settings: CurateSettings,
    version: str | None = None,
) -> tuple[list[Example], list[Pair], list[PairSegment], dict[str, Any]]:
    """Examples, pairs, their segments and the report, as `data.curation.curate` gives them."""
    import duckdb
    import pyarrow.compute as pc

    clips, scores = store.arrow(clip_keys, "clips"), store.arrow(score_keys, "scores")
    if version is not None:
        same = pc.equal(scores["reward_version"], version)
        scores = scores.filter(pc.or_(same, pc.not_equal(scores["reward"], settings.feedback)))
    with duckdb.connect(config={"threads": 1, "python_enable_replacements": False}) as con:
        con.register("clips", clips)
        con.register("scores", scores)
        seed, excluded = str(settings.seed), list(settings.exclude_categories)
        con.execute(JUDGED, {"feedback": settings.feedback, "seed": seed, "excluded": excluded})
        shaping = shaping_of(con, settings)
        line = {name: shaping[name] for name in ("kind", "threshold", "eta", "gamma")}
        con.execute(SHAPED, {**line, "noise": settings.label_noise, "seed": seed})
        asked = {name: getattr(settings, name) for name in ("kind", "max_per_prompt", "weight", "beta")}
        con.execute(EXAMPLES, {**asked, "q": shaping["accept_fraction"]})
        con.execute(POSSIBLE, {"margin": settings.margin})
        dropped = _compare(con, settings.feedback, line) if settings.segments == "differing" else None
        con.execute(PAIRS, {"pairs_per_prompt": settings.pairs_per_prompt})
        (possible,) = con.execute("SELECT count(*) FROM possible").fetchall()[0]
        name = curation_id_of(settings, *digests_of(store, clip_keys, score_keys))
        examples = [
            Example(name, *row) for row in con.execute("SELECT * EXCLUDE (passed) FROM curated").fetchall()
        ]
        pairs = [Pair(name, *row) for row in con.execute("FROM paired").fetchall()]
        spans = [] if dropped is None else [PairSegment(name, *row) for row in con.execute(BETTER).fetchall()]
        counts = PairCounts(con.execute(COUPLES).fetchall()[0][0], possible, dropped)
        return examples, pairs, spans, report_of(con, shaping, settings, counts)


def _compare(con: duckdb.DuckDBPyConnection, feedback: str, shaping: dict[str, Any]) -> int | None:
    (told,) = con.execute(SEGMENTS, {"feedback": feedback, **shaping}).fetchall()[0]
    if not told:
        return None
    con.execute(COMPARED)
    (dropped,) = con.execute(DROP).fetchall()[0]
    return int(dropped)


def measure(side: str, root: str, kind: Literal["binary", "graded"]) -> dict[str, Any]:
    """Curate all of a store: seconds, CPU seconds, peak megabytes, and what came out."""
    store = Store.open(root)
    clips, scores = ([one.key for one in store.manifests(stage)] for stage in ("generate", "score"))
    how = CurateSettings(feedback="reward 0", kind=kind, threshold=0.5)
    begun, worked = time.perf_counter(), time.process_time()
    tables: Mapping[str, Any]
    if side == "ours":
        result = curate(store, clips, scores, how)
        tables, report = result.tables, result.report
    else:
        examples, pairs, spans, report = plain(store, clips, scores, how)
        tables = {"examples": examples, "pairs": pairs} | ({"pair_segments": spans} if spans else {})
    made = store.commit("curate", {"stage": "curate", "side": side, "kind": kind}, tables, info=report)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - worked
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_mb": _peak_mb(),
        "outcome": report["outcome"],
        "digest": [[part.table, part.sha256] for part in made.parts],
    }


def _peak_mb() -> int:
    """Of this process alone; `ru_maxrss` would begin with what the process that started it had."""
    with open("/proc/self/status", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) // 1024


if __name__ == "__main__":
    side, root, kind = sys.argv[1:]
    print(json.dumps(measure(side, root, cast(Any, kind))))
