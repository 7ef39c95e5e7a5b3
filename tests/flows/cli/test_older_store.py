"""A store that vidloop 0.1.0 wrote opens, answers, and is worked on; not a byte of it counts as changed.

`store_of_0_1/` was written by the code of commit 1690d7c: two clips and what became of them in one round.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.testing

import flows.cli.round
import flows.cli.store
from data import champion
from data.policies import ancestry, policies
from data.store import Store
from flows.cli.app import app
from tasks.rounds import read_summary
from tests.tiny_round import Tiny

COMMANDS = (flows.cli.round, flows.cli.store)
ROUND = "20261120T101500-ab"


@pytest.fixture
def vidloop() -> Callable[..., str]:
    """The command line in this process; what it printed."""

    def run(*args: object) -> str:
        result = typer.testing.CliRunner().invoke(app, [str(arg) for arg in args])
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.fixture
def older(tmp_path: Path) -> Store:
    shutil.copytree(Path(__file__).parent / "store_of_0_1", tmp_path / "store")
    return Store.open(tmp_path / "store")


def test_its_units_are_whole_and_their_digests_are_what_they_were(older: Store) -> None:
    found = older.manifests()
    assert [one.stage for one in sorted(found, key=lambda one: one.stage)] == [
        "curate", "evaluate", "finetune", "generate", "score",
    ]  # fmt: skip
    for manifest in found:
        path = older.path(f"manifests/{manifest.stage}/{manifest.key}.json")
        assert manifest.to_bytes() == path.read_bytes()
        assert older.verify(manifest.key) is None
    (scored,) = older.manifests("score")
    assert scored.info == {"clips": 2, "failed": 1}
    clips = older.read(older.manifests("generate")[0].key, "clips")
    again = older.commit(
        "score",
        scored.question,
        {"scores": older.read(scored.key, "scores")},
        (),
        scored.parents,
        scored.info,
    )
    assert again == scored, "the same question and answer give the same unit"
    assert older.read_media(clips[0].video_path) == b"video 1"


def test_queries_answer(older: Store, vidloop: Callable[..., str]) -> None:
    def asked(sql: str) -> object:
        return json.loads(vidloop("query", sql, "--store", older.root, "--format", "json"))

    assert asked('SELECT clip_id, "judge-binary" AS judged FROM scores_wide') == [
        {"clip_id": "c1", "judged": 1.0}, {"clip_id": "c2", "judged": None},
    ]  # fmt: skip
    assert asked("SELECT round, metric, delta, promoted FROM rounds") == [
        {"round": ROUND, "metric": "physics", "delta": 1.0, "promoted": True}
    ]
    assert asked("SELECT run_id, stage, seconds FROM timings") == [
        {"run_id": ROUND, "stage": "generate", "seconds": 1.5}
    ]
    assert asked("SELECT parent FROM lineage WHERE child = 'm1' AND relation <> 'made in' ORDER BY ALL") == [
        {"parent": "b1"}, {"parent": "d1"},
    ]  # fmt: skip


def test_it_is_compacted_and_answers_as_before(older: Store, vidloop: Callable[..., str]) -> None:
    def asked() -> list[str]:
        return [
            vidloop("query", f"SELECT * FROM {view} ORDER BY ALL", "--store", older.root, "--format", "json")
            for view in ("clips", "prompts", "scores", "scores_wide", "evaluations", "lineage")
        ]

    before, units = asked(), len(older.manifests())
    said = vidloop("compact", "--store", older.root)
    assert said == f"{units} units gathered; 1 segments, 0 units in none\n"
    assert asked() == before


def test_champion_policies_and_summary(older: Store, vidloop: Callable[..., str]) -> None:
    assert f"m1  since {ROUND}" in vidloop("champion", "show", "--store", older.root)
    assert ancestry(policies(older), "m1") == ["m1"]
    assert read_summary(older, ROUND).promoted
    assert vidloop("champion", "rollback", "--store", older.root) != ""
    assert champion.set_champion(older, "m1").policy_id == "m1"


def test_work_is_planned_in_it_and_nothing_of_it_is_garbage(
    older: Store, tiny: Tiny, vidloop: Callable[..., str]
) -> None:
    assert "generate  0 cached, 3 to run" in vidloop("plan", *tiny.at(older.root).args())
    assert "0 files" in vidloop("gc", "--store", older.root)
