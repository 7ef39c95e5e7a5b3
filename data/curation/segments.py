"""Pairs told apart segment by segment, where the feedback judged segments of a clip.

    possible pairs + scores' detail --SEGMENTS, COMPARED--> pairs less those without a better segment
                                                        --BETTER--> spans in which the chosen clip is better

DenseDPO (arXiv 2506.03517) labels preferences by temporal segment and leaves out segments that tie. Here the
label of a segment is its value, shaped as the clip's is. A score says its segments in `detail`: `segments`, a
list of [start, end, value], in seconds of the clip. Clips without them, and pairs of clips cut differently,
are compared whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    import duckdb

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

BETTER: Final = """
SELECT chosen, rejected, start_s, end_s FROM compared JOIN paired USING (chosen, rejected) WHERE better
ORDER BY chosen, rejected, start_s
"""


def compare(con: duckdb.DuckDBPyConnection, feedback: str, shaping: Mapping[str, Any]) -> int | None:
    """Drop from `possible` the pairs whose chosen clip is better in no segment.

    Args:
        con: with tables `scores`, `shaped` and `possible` of `data.curation`.
        shaping: kind, threshold, eta and gamma as they are used.

    Returns:
        How many were dropped; None where no clip has segments, and then nothing is done.
    """
    (told,) = con.execute(SEGMENTS, {"feedback": feedback, **shaping}).fetchall()[0]
    if not told:
        return None
    con.execute(COMPARED)
    (dropped,) = con.execute(DROP).fetchall()[0]
    return int(dropped)


def better(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str, float, float]]:
    """(chosen, rejected, start, end) of the segments that teach, for the pairs in `paired`; see `compare`."""
    return con.execute(BETTER).fetchall()
