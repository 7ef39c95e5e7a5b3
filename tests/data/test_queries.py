import json
import os

import duckdb
import pytest

from data import queries
from data.errors import DataError, StoreError, UserError
from data.queries import answer, catalog_sql, connect, run_query
from data.records import TABLES, Evaluation, Example, Pair, Policy
from data.store.compaction import compact

VIEWS = {*TABLES, "counted_labels", "scores_wide", "rounds", "lineage", "timings"}


@pytest.fixture
def filled(store, commit, make_prompt, make_clip, make_score):
    """A store after a small round."""
    media = store.write_media(b"adapter", "safetensors")
    commit(
        "generate",
        "g",
        prompts=[make_prompt(prompt_id="p1")],
        clips=[make_clip("c1"), make_clip("c2", seed=8)],
    )
    commit("generate", "again", prompts=[make_prompt(prompt_id="p1")], clips=[make_clip("c1")])
    commit("score", "physics", scores=[make_score("c1", 1.0), make_score("c2", None)])
    commit("score", "clip", scores=[make_score("c1", 0.25, "clip"), make_score("c2", 0.5, "clip")])
    commit(
        "curate",
        examples=[Example("d1", "c1", "p1", "falling down", 1.0, 1.0, True, "accepted: passed"),
                  Example("d1", "c2", "p1", "falling down", 0.0, 0.0, False, "rejected: below threshold")],
        pairs=[Pair("d1", "p1", "falling down", "c1", "c2", 1.0)],
    )  # fmt: skip
    policy = Policy(
        "y1", "base", ["y0"], "dpo", "d1", media.path, media.sha256, 4, 8.0, ["to_q", "to_k"], 5, "{}", "[]"
    )
    store.commit("finetune", {"stage": "finetune", "version": 1}, {"policies": [policy]}, [media])
    commit(
        "evaluate",
        evaluations=[Evaluation("y1", "p1", "falling down", "heldout", 8, "physics", 1.0, "ok", None, "c9")],
    )
    summary = {
        "round": "r1", "recipe_name": "mini", "feedback": "oracle", "objective": "dpo", "policy_before": "base",
        "policy_after": "y1", "primary": {"metric": "physics", "before": 0.3, "after": 0.5, "delta": 0.2,
        "ci_low": 0.1, "ci_high": 0.3, "n": 400}, "verdict": "promoted: it's better", "promoted": True,
    }  # fmt: skip
    store.write_file("rounds/r1/summary.json", json.dumps(summary, indent=1).encode())
    store.log_run("r1", {"stage": "generate", "key": "k1", "seconds": 2.5, "cached": False, "shard": 0})
    store.log_run("r1", {"stage": "score", "key": "k2", "seconds": 0.5, "cached": True})
    return store


def ask(store, sql):
    return run_query(store, sql)[1]


def test_an_empty_store_has_every_view_with_its_columns(store):
    for view in VIEWS:
        columns, rows = run_query(store, f"SELECT * FROM {view}")
        assert rows == []
        if view in TABLES:
            assert columns == TABLES[view].schema.names


def test_empty_and_filled_views_have_the_same_types(store, filled, tmp_path):
    empty = type(store).open(tmp_path / "empty", create=True)
    with connect(empty) as before, connect(filled) as after:
        for view in VIEWS - {"scores_wide"}:
            described = [con.execute(f"DESCRIBE {view}").fetchall() for con in (before, after)]
            assert [row[:2] for row in described[0]] == [row[:2] for row in described[1]], view


def test_tables_are_seen_and_rows_of_two_units_once(filled):
    assert ask(filled, "SELECT clip_id, seed FROM clips ORDER BY clip_id") == [("c1", 7), ("c2", 8)]
    assert ask(filled, "SELECT count(*) FROM prompts") == [(1,)]
    assert ask(filled, "SELECT reward, value, status, error FROM scores WHERE clip_id = 'c2' ORDER BY reward") == [
        ("clip", 0.5, "ok", None), ("physics", None, "failed", "cannot be decoded"),
    ]  # fmt: skip
    assert ask(filled, "SELECT targets FROM policies") == [(["to_q", "to_k"],)]
    assert ask(filled, "SELECT chosen, rejected FROM pairs") == [("c1", "c2")]
    assert ask(filled, "FROM evaluations SELECT value") == [(1.0,)]


def test_wide_scores_have_a_column_for_each_reward(filled):
    columns, rows = run_query(filled, "SELECT * FROM scores_wide ORDER BY clip_id")
    assert columns == [
        "clip_id",
        "prompt_id",
        "prompt",
        "category",
        "split",
        "policy_id",
        "seed",
        "clip",
        "physics",
    ]
    assert [row[-2:] for row in rows] == [(0.25, 1.0), (0.5, None)]


def test_the_newest_version_of_a_reward_has_its_name_whatever_the_times_of_files(filled, commit, make_score):
    newer = commit(
        "score", "v2", scores=[make_score("c1", 0.75, "clip", "v2"), make_score("c2", 0.125, "clip", "v2")]
    )
    for time in (2**32, 1):
        os.utime(filled.path(f"manifests/score/{newer.key}.json"), (time, time))
        assert ask(filled, 'SELECT clip, "clip@v1", physics FROM scores_wide ORDER BY clip_id') == [
            (0.75, 0.25, 1.0), (0.125, 0.5, None),
        ]  # fmt: skip


def test_a_version_that_no_score_is_of_has_no_column(filled, commit, make_score):
    newer = commit("score", "v2", scores=[make_score("c1", 0.75, "clip", "v2")])
    filled.discard(newer.key)
    assert ask(filled, "SELECT clip FROM scores_wide ORDER BY clip_id") == [(0.25,), (0.5,)]
    assert "clip@v2" not in run_query(filled, "FROM scores_wide")[0]


@pytest.mark.parametrize("lost", ["all", "one", "damaged"])
def test_of_a_store_of_an_earlier_program_the_times_of_files_are_recorded_once(
    filled, commit, make_score, lost
):
    newer = commit("score", "v2", scores=[make_score("c1", 0.75, "clip", "v2")])
    older = next(one for one in filled.manifests("score") if one.question["name"] == "clip")
    notes = sorted((filled.root / "rewards").glob("*.json"))
    for path in notes if lost == "all" else notes[:1]:
        path.write_text("{") if lost == "damaged" else path.unlink()
    if lost == "one":
        (filled.root / "rewards/complete.json").unlink()
    times = {newer.key: 1, older.key: 1000} if lost == "all" else {}
    for key, time in times.items():
        os.utime(filled.path(f"manifests/score/{key}.json"), (time, time))
    shown = (
        'SELECT clip, "clip@v2" FROM scores_wide'
        if lost == "all"
        else 'SELECT "clip@v1", clip FROM scores_wide'
    )
    assert ask(filled, f"{shown} ORDER BY clip_id")[0] == (0.25, 0.75)
    for key, time in times.items():
        os.utime(filled.path(f"manifests/score/{key}.json"), (10**9 + time, 3 - time / 1000))
    assert ask(filled, f"{shown} ORDER BY clip_id")[0] == (0.25, 0.75)
    assert len(list((filled.root / "rewards").glob("*.json"))) == 4


def test_the_version_that_the_newest_round_used_is_the_newest_whatever_the_files_say(
    filled, commit, make_score
):
    newer = commit("score", "newer", scores=[make_score("c1", 0.75, "clip", "v2")])
    for round_id, version in {"20260101T000000-ab": "v1", "20270101T000000-ab": "v2"}.items():
        summary = {"round": round_id, "rewards": {"clip": {"kind": "clip", "version": version}}}
        filled.write_file(f"rounds/{round_id}/summary.json", json.dumps(summary).encode())
    # Written by a clock that was 400 days behind.
    os.utime(filled.path(f"manifests/score/{newer.key}.json"), (1, 1))
    assert ask(filled, 'SELECT clip, "clip@v1" FROM scores_wide ORDER BY clip_id') == [
        (0.75, 0.25),
        (None, 0.5),
    ]


def test_what_is_no_text_hides_no_other_run(filled):
    (filled.root / "runs/torn.jsonl").write_bytes(b'{"stage": "\xff\n')
    (filled.root / "runs/folder.jsonl").mkdir()
    (filled.root / "runs/link.jsonl").symlink_to(filled.root / "format.json")
    assert ask(filled, "SELECT DISTINCT run_id FROM timings") == [("r1",)]


def test_rounds_and_timings(filled):
    assert ask(filled, "SELECT round, metric, before, after, n, promoted, verdict FROM rounds") == [
        ("r1", "physics", 0.3, 0.5, 400, True, "promoted: it's better")
    ]
    assert ask(filled, "SELECT json_extract_string(summary, '$.primary.ci_low') FROM rounds") == [("0.1",)]
    assert ask(filled, "SELECT run_id, stage, seconds, cached FROM timings ORDER BY stage") == [
        ("r1", "generate", 2.5, False), ("r1", "score", 0.5, True),
    ]  # fmt: skip
    with open(filled.root / "runs" / "r1.jsonl", "a") as file:
        file.write('{"stage": "torn')
    assert ask(filled, "SELECT count(*) FROM timings") == [(2,)]


def test_lineage_leads_from_a_policy_back_to_its_prompts(filled):
    edges = ask(filled, "SELECT child_kind, child, relation, parent_kind, parent FROM lineage")
    assert len(edges) == len(set(edges))
    assert set(edges) == {
        ("clip", "c1", "shows", "prompt", "p1"), ("clip", "c2", "shows", "prompt", "p1"),
        ("clip", "c1", "sampled by", "policy", "base"), ("clip", "c2", "sampled by", "policy", "base"),
        ("curation", "d1", "accepted", "clip", "c1"), ("curation", "d1", "rejected", "clip", "c2"),
        ("policy", "y1", "trained on", "curation", "d1"), ("policy", "y1", "adapts", "base", "base"),
        ("policy", "y1", "continues", "policy", "y0"), ("policy", "y1", "made in", "round", "r1"),
        ("round", "r1", "started from", "policy", "base"),
    }  # fmt: skip
    walk = """
        WITH RECURSIVE back AS (
            SELECT 'y1' AS node UNION SELECT parent FROM lineage JOIN back ON child = node
        ) SELECT node FROM back WHERE node LIKE 'p%'
    """
    assert ask(filled, walk) == [("p1",)]


def test_work_that_is_not_committed_is_not_seen(filled):
    part = next(filled.root.glob("parts/generate/*/*/clips-*.parquet"))
    part.with_name("clips-aaaaaaaaaaaa.parquet").write_bytes(part.read_bytes())
    (filled.root / "parts" / "torn.parquet").write_bytes(b"PAR1")
    assert ask(filled, "SELECT count(*) FROM clips") == [(2,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT avg(value) FROM scores",
        'FROM "SCORES"',
        "FROM scores_wide",
        "FROM query_table('sco' || 'res')",
    ],
)
def test_an_answer_never_rests_on_a_changed_part(filled, sql):
    part = next(filled.root.glob("parts/score/*/*/*.parquet"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(
        StoreError, match=r"sha256 of part .* differs\. `vidloop scrub --heal --store .*` sets"
    ):
        ask(filled, sql)
    part.unlink()
    with pytest.raises(StoreError, match="missing part"):
        ask(filled, sql)
    assert ask(filled, "SELECT count(*) FROM clips") == [(2,)]


@pytest.mark.parametrize(
    "sql",
    [
        "DESCRIBE clips",
        "SHOW TABLES",
        "SUMMARIZE scores",
        "FROM clips",
        "VALUES (1)",
        "WITH a AS (SELECT 1) FROM a",
        "SELECT 1;",
    ],
)
def test_reading_statements_are_answered(filled, sql):
    columns, rows = run_query(filled, sql)
    assert columns
    assert rows


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELEC 1", "syntax error"), ("SELECT * FROM clip", "does not exist"), ("SELECT nope FROM clips", "nope"),
        ("", "0 statements"), ("SELECT 1; SELECT 2", "2 statements"), ("SELECT 1/(SELECT 'x'::INT)", "Could not convert"),
        ("CREATE TABLE t(i INT)", "a CREATE statement"), ("DROP VIEW clips", "a DROP statement"),
        ("INSERT INTO clips VALUES (1)", "statement"), ("SET threads = 1", "a SET statement"),
        ("PRAGMA enable_profiling", "statement"), ("ATTACH 'x.db'", "statement"), ("INSTALL httpfs", "statement"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO 'x'", "statement"),
        ("SELECT * FROM read_csv('/etc/passwd')", "Permission Error"), ("SELECT * FROM '/etc/passwd'", "does not exist"),
        ("SELECT * FROM read_text('/etc/hostname')", "Permission Error"), ("SELECT * FROM glob('/*')", "Permission Error"),
        ("SELECT * FROM filled", "does not exist"), ("SELECT getenv('HOME')", "getenv"), ("\x00", ""), ("SELECT '", ""), ("SELECT '\udc80'", "UTF-8"),
    ],
)  # fmt: skip
def test_wrong_and_writing_statements_are_refused_with_a_reason(filled, sql, reason):
    with pytest.raises(UserError) as error:
        run_query(filled, sql)
    assert reason in str(error.value)


def test_rows_are_counted_without_reading_a_column(filled, commit, make_score):
    compact(filled)
    commit("score", "later", scores=[make_score("c3", 0.75, "clip")])
    with connect(filled) as con:
        assert con.execute("SELECT count(*) FROM scores").fetchall() == [(5,)]
        ((_, plan),) = con.execute("EXPLAIN SELECT count(*) FROM scores").fetchall()
        assert "READ_PARQUET" in plan
        assert "clip_id" not in plan
        ((_, plan),) = con.execute("EXPLAIN SELECT max(clip_id) FROM scores").fetchall()
        assert "clip_id" in plan


def test_a_tail_that_is_held_answers_as_one_that_is_read_each_time(filled, commit, make_score, monkeypatch):
    commit("score", "again", scores=[make_score("c1", 1.0), make_score("c2", 0.5, "clip")])
    told = "SELECT * FROM scores ORDER BY ALL"
    for turn in range(2):
        held = ask(filled, told)
        with monkeypatch.context() as patched:
            patched.setattr(queries, "_HELD", 0)
            assert ask(filled, told) == held
        assert len(held) == 4 + turn
        if not turn:
            compact(filled)
            commit("score", "later", scores=[make_score("c1", 1.0), make_score("c9", 0.75, "clip")])


def test_a_query_that_never_ends_is_ended(filled):
    with pytest.raises(DataError, match=r"not answered in 0\.2 s.*--seconds"):
        run_query(filled, "SELECT count(*) FROM range(100000000) a, range(100000000) b", 0.2)
    assert run_query(filled, "SELECT 1", 60.0)[1] == [(1,)]


def test_a_query_has_no_more_memory_than_it_is_given(filled):
    with connect(filled, memory_mb=100) as con, pytest.raises(DataError, match="Out of Memory"):
        answer(con, "SELECT list(x) FROM range(100000000) t(x)")


def test_a_summary_and_facts_that_are_no_text_hide_nothing_else(filled):
    filled.write_file("rounds/r9/summary.json", b'{"round": "\xff"}')
    filled.write_file("runs/r9.jsonl", b"\xff\xfe")
    rounds, timings = (run_query(filled, f"SELECT * FROM {view}")[1] for view in ("rounds", "timings"))
    assert rounds
    assert timings


def test_copy_cannot_write_into_the_store(filled):
    before = sorted(filled.root.rglob("*"))
    with pytest.raises(UserError, match="COPY statement"):
        run_query(filled, f"COPY (SELECT 1) TO '{filled.root}/parts/x.parquet'")
    with connect(filled) as con, pytest.raises(duckdb.Error):
        con.execute("SET enable_external_access = true")
    assert sorted(filled.root.rglob("*")) == before


def test_the_catalog_opens_the_views_in_any_shell(filled, tmp_path):
    script = catalog_sql(filled)
    with duckdb.connect(str(tmp_path / "shell.duckdb")) as shell:
        shell.execute(script)
        assert shell.execute("SELECT clip, physics FROM scores_wide ORDER BY clip_id").fetchall() == [
            (0.25, 1.0),
            (0.5, None),
        ]
        with connect(filled) as ours:
            for view in VIEWS:
                count = f"SELECT count(*) FROM {view}"
                assert shell.execute(count).fetchall() == ours.execute(count).fetchall()


def test_quotes_in_paths_and_values_do_no_harm(tmp_path, store, make_clip, make_score):
    odd = type(store).open(tmp_path / 'it\'s; DROP "x" --', create=True)
    odd.commit("generate", {"stage": "generate"}, {"clips": [make_clip("c1")]})
    odd.commit("score", {"stage": "score"}, {"scores": [make_score("c1", 0.5, "re'ward\"", "v'1")]})
    odd.log_run("r1", {"stage": "generate"})
    assert run_query(odd, 'SELECT "re\'ward""" FROM scores_wide')[1] == [(0.5,)]
    assert run_query(odd, "SELECT stage FROM timings")[1] == [("generate",)]
