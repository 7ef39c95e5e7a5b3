"""Pairs told apart segment by segment, where the feedback judged segments of a clip.

    scores' detail --SEGMENTS--> r' of each segment --cuts--> what `data.curation.pairs` compares
                                            + pairs --BETTER--> spans in which the chosen clip is better

DenseDPO (arXiv 2506.03517) labels preferences by temporal segment and leaves out segments that tie. Here the
label of a segment is its value, shaped as the clip's is. A score says its segments in `detail`: `segments`, a
list of [start, end, value], in seconds of the clip. Clips without them, and pairs of clips cut differently,
are compared whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from data.curation.pairs import Cuts

if TYPE_CHECKING:
    from collections.abc import Mapping

    import duckdb

SEGMENTS: Final = """
CREATE TEMP TABLE segments AS
WITH one AS (SELECT DISTINCT ON (clip_id) * FROM told ORDER BY clip_id),
cut AS (SELECT clip_id, unnest(parts) AS part FROM one),
valued AS (
    SELECT clip_id, part[1] AS start_s, part[2] AS end_s, flipped,
           CASE WHEN $kind = 'binary' THEN (part[3] >= $threshold)::DOUBLE
                ELSE greatest(0.0, least(1.0, $eta * (part[3] - $gamma))) END AS clean
    FROM cut JOIN shaped USING (clip_id) WHERE len(part) = 3
)
SELECT clip_id, start_s, end_s, CASE WHEN flipped THEN 1 - clean ELSE clean END AS r FROM valued
"""

SPANS: Final = """
CREATE TEMP TABLE spans AS
SELECT clip_id, list([start_s, end_s] ORDER BY start_s) AS cut FROM segments GROUP BY clip_id
"""

CUT: Final = "SELECT place, dense_rank() OVER (ORDER BY cut) AS cut FROM spans JOIN placed USING (clip_id)"

VALUES: Final = """
SELECT place, max(s.r) AS high, min(s.r) AS low FROM segments s JOIN placed USING (clip_id)
WHERE start_s IS NOT NULL GROUP BY place, start_s ORDER BY place, start_s
"""

BETTER: Final = """
SELECT chosen, rejected, w.start_s, w.end_s FROM paired
JOIN spans sw ON sw.clip_id = chosen JOIN spans sl ON sl.clip_id = rejected AND sl.cut = sw.cut
JOIN segments w ON w.clip_id = chosen JOIN segments l ON l.clip_id = rejected AND l.start_s = w.start_s
WHERE w.r > l.r ORDER BY chosen, rejected, w.start_s
"""


def cuts(con: duckdb.DuckDBPyConnection, shaping: Mapping[str, Any]) -> Cuts | None:
    """What the segments say of the clips in `shaped`; makes the tables that `BETTER` reads.

    Args:
        con: with tables `told`, `shaped` and `placed` of `data.curation`.
        shaping: kind, threshold, eta and gamma as they are used.

    Returns:
        None where no clip has segments.
    """
    (count,) = con.execute(SEGMENTS, dict(shaping)).fetchall()[0]
    if not count:
        return None
    con.execute(SPANS)
    (clips,) = con.execute("SELECT count(*) FROM shaped").fetchall()[0]
    found, values = con.execute(CUT).fetchnumpy(), con.execute(VALUES).fetchnumpy()
    cut = np.full(clips, -1)
    cut[found["place"]] = found["cut"]
    first = np.concatenate([[0], np.cumsum(np.bincount(values["place"], minlength=clips))])
    high, low = (np.ma.filled(values[name], np.nan) for name in ("high", "low"))
    return Cuts(cut, first, high, low)
