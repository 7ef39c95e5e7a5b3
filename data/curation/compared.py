"""Pairs as people judged them: where the feedback compared clips, its pairs teach, and no others are formed.

    scores' detail --SEEN--> pairs with their margin --PAIRED--> chosen, rejected

A score says in `detail` what its clip was compared with: `compared`, a list of [other clip, margin], margins
from -1 to 1 and positive where this clip is the better one (`rewards.people`). Ties, and margins up to
`curate.margin`, are dropped; of more than `curate.pairs_per_prompt` those with the largest margins stay, by
lot among equals. Both clips must have a prompt in common, and be among those that may teach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from data.curation.settings import CurateSettings
from data.errors import ConfigError

if TYPE_CHECKING:
    import duckdb

SEEN: Final = """
CREATE TEMP TABLE seen AS
SELECT DISTINCT ON (chosen, rejected)
       w.prompt_id, w.category, clip_id AS chosen, l.clip_id AS rejected, margin
FROM (SELECT clip_id, pair[1] AS other, pair[2]::DOUBLE AS margin
      FROM (SELECT clip_id, unnest(clips) AS pair FROM compared))
JOIN shaped w USING (clip_id) JOIN shaped l ON l.clip_id = other AND l.prompt_id = w.prompt_id
WHERE margin > 0 OR (margin = 0 AND clip_id < other)
ORDER BY chosen, rejected
"""

COUNTED: Final = "SELECT count(*), count(*) FILTER (margin > $margin AND margin > 0) FROM seen"

PAIRED: Final = """
CREATE TEMP TABLE paired AS
SELECT prompt_id, category, chosen, rejected, margin FROM seen WHERE margin > $margin AND margin > 0
QUALIFY row_number() OVER (
    PARTITION BY prompt_id ORDER BY margin DESC, sha256($seed || ':' || chosen || ':' || rejected)
) <= $limit
ORDER BY prompt_id, chosen, rejected
"""


def pair(con: duckdb.DuckDBPyConnection, settings: CurateSettings) -> tuple[int, int] | None:
    """Make table `paired` of the pairs that the feedback compared.

    Args:
        con: with tables `compared` and `shaped` of `data.curation`.
        settings: margin, limit and seed.

    Returns:
        How many pairs were compared, and how many may teach; None, and no table, where none was compared.

    Raises:
        ConfigError: labels are to be turned round for an experiment: what is turned are values of clips.
    """
    if not con.execute("SELECT count(*) FROM compared").fetchall()[0][0]:
        return None
    if settings.label_noise:
        raise ConfigError(
            "shaping.label_noise turns values of clips, and this feedback compared pairs: leave it 0"
        )
    con.execute(SEEN)
    total, possible = con.execute(COUNTED, {"margin": settings.margin}).fetchall()[0]
    limits = {"margin": settings.margin, "limit": settings.pairs_per_prompt, "seed": str(settings.seed)}
    con.execute(PAIRED, limits)
    return int(total), int(possible)
