"""Curation: from scored clips to examples and pairs, with the reason for each decision.

    clips + scores --JUDGED--> value or null --SHAPED--> r' in [0, 1] --EXAMPLES--> accepted, weight, reason
                                                                      --pick, PAIRS--> chosen, rejected

Each arrow is one SQL statement, run by DuckDB, settings bound as parameters; only which pairs are taken is
arithmetic of its own (`data.curation.pairs`). Of the store's tables the columns that decide are read, unit by
unit; what does not fit the memory DuckDB may use lies in a temporary folder meanwhile, and rows stay Arrow.
The same settings on the same scores give the same rows: one thread, inputs in key order, ties broken by a
digest of the clip and the seed. A judgement that failed never becomes a number: the clip is left out and
counted.

Shaping and its two kinds: Furuta et al. 2024, arXiv 2412.02617, section 4; weights: reward-weighted
regression, W = r' ("reward") or W = exp(r'/beta) / Z(prompt) ("exp").
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from data.curation import compared, segments
from data.curation.pairs import Cuts, pick
from data.curation.reading import read
from data.curation.settings import CurateSettings
from data.errors import ConfigError
from data.keys import digest
from data.records import TABLES, Example, Pair, PairSegment, from_table
from data.store import Store

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class CurateResult:
    """Rows in key order, and a report of plain JSON values (see `curate`).

    `tables` are Arrow: examples, pairs, and pair_segments where there are some; a round commits them as they
    are, and the properties make row objects of them.
    """

    curation_id: str
    tables: dict[str, pa.Table]
    report: dict[str, Any]

    @property
    def examples(self) -> list[Example]:
        """Every scored clip."""
        return from_table("examples", self.tables["examples"])

    @property
    def pairs(self) -> list[Pair]:
        """What was paired."""
        return from_table("pairs", self.tables["pairs"])

    @property
    def pair_segments(self) -> list[PairSegment]:
        """In which segments; none of a pair that is compared whole."""
        return (
            from_table("pair_segments", self.tables["pair_segments"])
            if "pair_segments" in self.tables
            else []
        )


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Pairs that there are, those that may teach, and those beside them in which no segment is better."""

    couples: int
    possible: int
    forbidden: int | None = None


# A value is null (failed, with its error) or finite: `data.records.Score` allows nothing else.
JUDGED: Final = """
CREATE TEMP TABLE judged AS
WITH c AS (SELECT DISTINCT ON (clip_id) * FROM clips ORDER BY clip_id),
     s AS (SELECT DISTINCT ON (clip_id) * FROM scores ORDER BY clip_id)
SELECT c.clip_id, c.prompt_id, c.category, s.value,
       CASE WHEN s.clip_id IS NULL THEN 'not judged' ELSE s.error END AS error,
       sha256($seed || ':' || c.clip_id) AS lot
FROM c LEFT JOIN s USING (clip_id) ORDER BY c.clip_id
"""

# Where nothing was scored any line will do. Values that are all the same say nothing: the line is flat.
GRADED: Final = """
SELECT coalesce($eta, CASE WHEN high > low THEN 1 / (high - low) WHEN high = low THEN 0 ELSE 1 END) AS eta,
       coalesce($gamma, low, 0) AS gamma, coalesce($accept_fraction, passing, 0) AS accept_fraction
FROM (SELECT quantile_cont(value, 0.05) AS low, quantile_cont(value, 0.95) AS high,
             avg((value >= $threshold)::INT) AS passing FROM judged WHERE value IS NOT NULL)
"""

SHAPED: Final = """
CREATE TEMP TABLE shaped AS
SELECT * EXCLUDE (clean), CASE WHEN flipped THEN 1 - clean ELSE clean END AS r,
       coalesce(value >= $threshold, clean > 0) <> flipped AS passed,
       count(*) OVER (PARTITION BY prompt_id) AS clips_of_prompt,
       row_number() OVER (
           PARTITION BY prompt_id ORDER BY CASE WHEN flipped THEN 1 - clean ELSE clean END DESC, lot
       ) AS place
FROM (SELECT clip_id, prompt_id, category, value, lot,
             row_number() OVER (ORDER BY sha256('label noise:' || $seed || ':' || clip_id))
                 <= round($noise * count(*) OVER ()) AS flipped,
             CASE WHEN $kind = 'binary' THEN (value >= $threshold)::DOUBLE
                  ELSE greatest(0.0, least(1.0, $eta * (value - $gamma))) END AS clean
      FROM judged WHERE value IS NOT NULL)
ORDER BY clip_id
"""

EXAMPLES: Final = """
CREATE TEMP TABLE curated AS
WITH placed AS (
    SELECT *, bool_or(passed) OVER prompt AS any_passed, bool_and(passed) OVER prompt AS all_passed,
           coalesce($max_per_prompt, clips_of_prompt) AS most,
           CASE WHEN $q IS NULL THEN clips_of_prompt
                ELSE greatest(1, round($q * clips_of_prompt)) END AS quota,
           exp((r - max(r) OVER prompt) / $beta) AS tilt  -- the largest is 1, so a small beta cannot overflow
    FROM shaped WINDOW prompt AS (PARTITION BY prompt_id)
), decided AS (SELECT *, r > 0 AND place <= least(quota, most) AS accepted FROM placed)
SELECT clip_id, prompt_id, category, r,
       CASE $weight WHEN 'uniform' THEN accepted::DOUBLE WHEN 'reward' THEN r
            ELSE tilt / avg(tilt) OVER (PARTITION BY prompt_id) END AS weight, passed, accepted,
       CASE WHEN accepted AND all_passed THEN 'accepted: all clips of this prompt passed'
            WHEN accepted AND $kind = 'binary' THEN 'accepted: passed'
            WHEN accepted THEN 'accepted: rank ' || place || ' of ' || clips_of_prompt
            WHEN NOT any_passed THEN 'rejected: all clips of this prompt failed'
            WHEN r = 0 THEN 'rejected: below ' || CASE $kind WHEN 'binary' THEN 'threshold' ELSE 'gamma' END
            WHEN place <= quota THEN 'rejected: beyond max_per_prompt'
            ELSE 'rejected: not in the top ' || quota::BIGINT || ' of ' || clips_of_prompt END AS reason
FROM decided ORDER BY clip_id
"""

# Clips in the order in which `pick` takes them; `clip` is the row in `shaped`.
PLACED: Final = """
CREATE TEMP VIEW placed AS
SELECT rowid AS clip, clip_id, r, row_number() OVER (ORDER BY prompt_id, lot) - 1 AS place FROM shaped
"""

LOTS: Final = "SELECT clip, r FROM placed ORDER BY place"

SIZES: Final = "SELECT count(*) AS clips FROM shaped GROUP BY prompt_id ORDER BY prompt_id"

PAIRS: Final = """
CREATE TEMP TABLE paired AS
SELECT w.prompt_id, w.category, w.clip_id AS chosen, l.clip_id AS rejected, w.r - l.r AS margin
FROM picked JOIN shaped w ON w.rowid = winner JOIN shaped l ON l.rowid = loser
ORDER BY w.prompt_id, chosen, rejected
"""

BY_PROMPT: Final = """
SELECT count(*), count(*) FILTER (any_scored), count(*) FILTER (pairs > 0), count(*) FILTER (all_passed),
       count(*) FILTER (any_scored AND NOT any_passed)
FROM (SELECT prompt_id, count(c.clip_id) > 0 AS any_scored,
             bool_and(c.passed) AS all_passed, bool_or(c.passed) AS any_passed,
             (SELECT count(*) FROM paired p WHERE p.prompt_id = j.prompt_id) AS pairs
      FROM judged j LEFT JOIN curated c USING (clip_id, prompt_id) GROUP BY prompt_id)
"""

BY_CATEGORY: Final = """
SELECT category, count(*), count(*) FILTER (passed), count(*) FILTER (accepted),
       (SELECT count(*) FROM paired p WHERE p.category = c.category)
FROM curated c GROUP BY category ORDER BY category
"""

UNSCORED: Final = """
SELECT error, count(*) FROM judged WHERE value IS NULL GROUP BY error ORDER BY count(*) DESC, error
"""

WEIGHTS: Final = "SELECT coalesce(sum(weight), 0), coalesce(sum(weight * weight), 0), count(*) FROM curated"


def curate(
    store: Store,
    clip_keys: Sequence[str],
    score_keys: Sequence[str],
    settings: CurateSettings,
    version: str | None = None,
    memory_mb: int = 2048,
    digests: tuple[Sequence[str], Sequence[str]] | None = None,
) -> CurateResult:
    """Decide which clips teach, how much, and against which others.

    Args:
        store: where the units are.
        clip_keys: units with a `clips` table.
        score_keys: units with a `scores` table; rewards other than `settings.feedback` are left alone.
        settings: the rules.
        version: of the feedback's scores; None: of whatever one version there is.
        memory_mb: megabytes that DuckDB may use before it puts things into a temporary folder.
        digests: of the manifests of `clip_keys` and `score_keys`, which need not be read then.

    Returns:
        Every scored clip as an example (accepted or not, with its reason), the pairs, and a report:
        `outcome` (a sentence), `shaping` (as used: threshold, eta, gamma, accept_fraction), `clips` (total,
        scored, passed, accepted, unscored), `unscored_reasons`, `prompts` (total, scored, usable, all_passed,
        all_failed), `pairs` (formed, possible, dropped_ties, dropped_limit; where segments were compared
        dropped_segments: pairs whose chosen clip is better in none of them), `by_category`, `weights` (sum,
        effective_sample_size = (sum w)^2 / sum w^2). No clip accepted, or no pair, is an outcome, not an
        error.

    Raises:
        ConfigError: clips are given, but no score of that feedback, or of no one version; or some
            clips were sampled in a fast mode and others exactly or in another one.
        StoreError: a unit is missing or damaged.
    """
    import duckdb

    limits: dict[str, Any] = {"threads": 1, "memory_limit": f"{memory_mb}MB"}
    with (
        tempfile.TemporaryDirectory(prefix="vidloop-curate-") as folder,
        duckdb.connect(
            config={**limits, "temp_directory": folder, "python_enable_replacements": False}
        ) as con,
    ):
        read(con, store, clip_keys, score_keys, settings, version)
        if con.execute("SELECT count(*) FROM modes").fetchall()[0][0]:  # there are clips
            _check_feedback(con, settings.feedback)
            _check_modes(con)
        seed = str(settings.seed)
        con.execute(JUDGED, {"seed": seed})
        shaping = shaping_of(con, settings)
        line = {name: shaping[name] for name in ("kind", "threshold", "eta", "gamma")}
        con.execute(SHAPED, {**line, "noise": settings.label_noise, "seed": seed})
        asked = {name: getattr(settings, name) for name in ("kind", "max_per_prompt", "weight", "beta")}
        con.execute(EXAMPLES, {**asked, "q": shaping["accept_fraction"]})
        con.execute(PLACED)
        cuts = segments.cuts(con, line)
        counts = _pair(con, settings, cuts)
        curation_id = curation_id_of(settings, *(digests or digests_of(store, clip_keys, score_keys)))
        tables = {
            "examples": _rows(con, "examples", curation_id, "SELECT * EXCLUDE (passed) FROM curated"),
            "pairs": _rows(con, "pairs", curation_id, "FROM paired"),
        }
        if cuts is not None:
            spans = _rows(con, "pair_segments", curation_id, segments.BETTER)
            tables |= {"pair_segments": spans} if spans.num_rows else {}
        return CurateResult(curation_id, tables, report_of(con, shaping, settings, counts))


def labels(examples: Sequence[Example]) -> list[bool | None]:
    """What each example is to an objective of unpaired labels: True accepted, False rejected, None neither.

    A clip that was not accepted though its r' equals that of an accepted clip of its prompt lost by lot: it
    is no worse, so it is no example of what to avoid.
    """
    least: dict[str, float] = {}
    for one in examples:
        if one.accepted:
            least[one.prompt_id] = min(one.reward, least.get(one.prompt_id, math.inf))
    return [
        True if one.accepted else False if one.reward < least.get(one.prompt_id, math.inf) else None
        for one in examples
    ]


def digests_of(store: Store, *keys: Sequence[str]) -> list[list[str]]:
    """Digests of the manifests of each list of units."""
    return [[one.digest for one in map(store.manifest, some) if one is not None] for some in keys]


def curation_id_of(settings: CurateSettings, clips: Sequence[str], scores: Sequence[str]) -> str:
    """Name of a curation, from the settings and the digests of the units' manifests."""
    inputs = {"clips": sorted(clips), "scores": sorted(scores)}
    return "d" + digest({"settings": settings.fingerprint(), **inputs})[:24]


def _pair(con: duckdb.DuckDBPyConnection, settings: CurateSettings, cuts: Cuts | None) -> PairCounts:
    """Make table `paired`."""
    import pyarrow as pa

    seen = compared.pair(con, settings)
    if seen is not None:
        return PairCounts(*seen)
    lots, sizes = con.execute(LOTS).fetchnumpy(), con.execute(SIZES).fetchnumpy()
    found = pick(lots["r"], sizes["clips"], settings.margin, settings.pairs_per_prompt, cuts)
    rows = {"winner": lots["clip"][found.winners], "loser": lots["clip"][found.losers]}
    con.register("picked", pa.table(rows))
    con.execute(PAIRS)
    couples = int((sizes["clips"] * (sizes["clips"] - 1) // 2).sum())
    return PairCounts(couples, found.possible, None if cuts is None else found.forbidden)


def _rows(con: duckdb.DuckDBPyConnection, name: str, curation_id: str, sql: str) -> pa.Table:
    """The answer's columns as table `name` has them, after the curation's id."""
    import pyarrow as pa

    found = con.sql(sql).to_arrow_table()
    columns = [pa.repeat(curation_id, found.num_rows), *found.columns]
    return pa.Table.from_arrays(columns, schema=TABLES[name].schema)


def _check_feedback(con: duckdb.DuckDBPyConnection, feedback: str) -> None:
    found = con.execute("SELECT DISTINCT * FROM kinds ORDER BY ALL").fetchall()
    versions = [version for reward, version in found if reward == feedback]
    if not versions:
        names = ", ".join(sorted({reward for reward, _ in found})) or "none"
        raise ConfigError(
            f"no clip was scored by the feedback {feedback!r} (scored by: {names}): add it to `rewards`"
        )
    if len(versions) > 1:
        raise ConfigError(
            f"scores of {len(versions)} versions of {feedback!r} are mixed: curate one version at a time"
        )


def _check_modes(con: duckdb.DuckDBPyConnection) -> None:
    """A pair of an exact clip and one of another mode would teach the difference of the modes."""
    modes = con.execute("SELECT DISTINCT mode FROM modes ORDER BY mode").fetchall()
    if len(modes) > 1:
        names = "; ".join(mode or "exact" for (mode,) in modes)
        raise ConfigError(f"clips of different sampling modes are mixed ({names}): curate one mode at a time")


def shaping_of(con: duckdb.DuckDBPyConnection, settings: CurateSettings) -> dict[str, Any]:
    """eta, gamma and accept_fraction as they are used; percentiles are of the clips at hand."""
    asked = {name: getattr(settings, name) for name in ("threshold", "eta", "gamma", "accept_fraction")}
    if settings.kind == "graded":
        found = con.execute(GRADED, asked)
        names = [column[0] for column in found.description or []]
        asked |= dict(zip(names, found.fetchall()[0], strict=True))
    return {"kind": settings.kind, **asked}


def report_of(
    con: duckdb.DuckDBPyConnection,
    shaping: dict[str, Any],
    settings: CurateSettings,
    pairs: PairCounts,
) -> dict[str, Any]:
    """The report of `curate`, once there are `judged`, `curated` and `paired`."""
    prompts, scored, usable, all_passed, all_failed = con.execute(BY_PROMPT).fetchall()[0]
    unscored = con.execute(UNSCORED).fetchall()
    formed = con.execute("SELECT count(*) FROM paired").fetchall()[0][0]
    total, squares, clips = con.execute(WEIGHTS).fetchall()[0]
    categories = con.execute(BY_CATEGORY).fetchall()
    passed, accepted = (sum(row[column] for row in categories) for column in (2, 3))
    lost = sum(count for _, count in unscored)
    if not clips:
        outcome = "nothing to learn from: no clip has a score"
    elif not accepted:
        outcome = f"nothing to learn from: all {clips} clips were rejected"
    elif not formed:
        alike = "every clip passed" if all_passed == scored else "no prompt has clips that differ enough"
        outcome = f"{accepted} of {clips} clips accepted; no pairs: {alike}"
    else:
        outcome = f"{accepted} of {clips} clips accepted; {formed} pairs from {usable} of {prompts} prompts"
    return {
        "outcome": outcome,
        "feedback": settings.feedback,
        "shaping": shaping
        | ({"label_noise": settings.label_noise} if settings.label_noise else {})
        | ({"exclude_categories": excluded} if (excluded := list(settings.exclude_categories)) else {}),
        "clips": {
            "total": clips + lost, "scored": clips, "passed": passed, "accepted": accepted, "unscored": lost,
        },
        "unscored_reasons": dict(unscored),
        "prompts": {
            "total": prompts, "scored": scored, "usable": usable,
            "all_passed": all_passed, "all_failed": all_failed,
        },
        "pairs": {
            "formed": formed, "possible": pairs.possible, "dropped_limit": pairs.possible - formed,
            "dropped_ties": pairs.couples - pairs.possible - (pairs.forbidden or 0),
        } | ({} if pairs.forbidden is None else {"dropped_segments": pairs.forbidden}),
        "by_category": {
            name: {"clips": count, "passed": good, "accepted": kept, "pairs": pairs}
            for name, count, good, kept, pairs in categories
        },
        "weights": {"sum": total, "effective_sample_size": total**2 / squares if squares else 0.0},
    }  # fmt: skip
