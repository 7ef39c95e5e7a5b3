"""What the commands print when all is well."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer.testing

import flows.cli.doctor
import flows.cli.remake
import flows.cli.round
import flows.cli.store
from data import champion
from data.records import Clip, Policy
from data.store import Manifest, Store
from flows.cli.app import app
from tests.tiny_round import Tiny, tiny_settings

COMMANDS = (flows.cli.doctor, flows.cli.remake, flows.cli.round, flows.cli.store)


@pytest.fixture
def vidloop() -> Callable[..., str]:
    """The command line in this process; what it printed."""

    def run(*args: object) -> str:
        result = typer.testing.CliRunner().invoke(app, [str(arg) for arg in args])
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.fixture
def clips(store: Store, commit: Callable[..., Manifest], make_clip: Callable[..., Clip]) -> Manifest:
    return commit(
        "generate", clips=[make_clip("c1", seed=1), make_clip("c2", seed=2, prompt='a "ball", red')]
    )


def test_query_formats(store: Store, clips: Manifest, vidloop: Callable[..., str]) -> None:
    sql = "SELECT clip_id, seed, prompt, NULL AS nothing FROM clips ORDER BY ALL"
    table = vidloop("query", sql, "--store", store.root)
    assert "c1" in table
    assert "(2 rows)" in table
    rows = json.loads(vidloop("query", sql, "--store", store.root, "--format", "json"))
    assert rows[1] == {"clip_id": "c2", "seed": 2, "prompt": 'a "ball", red', "nothing": None}
    lines = list(csv.reader(io.StringIO(vidloop("query", sql, "--store", store.root, "-f", "csv"))))
    assert lines[0] == ["clip_id", "seed", "prompt", "nothing"]
    assert lines[2] == ["c2", "2", 'a "ball", red', ""]


def test_long_values_are_not_cut_in_a_pipe(
    store: Store, clips: Manifest, vidloop: Callable[..., str]
) -> None:
    assert "x" * 300 in vidloop("query", "SELECT repeat('x', 300) AS long", "--store", store.root)


def test_champion_commands(
    store: Store, vidloop: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no champion yet" in vidloop("champion", "show", "--store", store.root)
    champion.promote(store, "m1", "20261122T000000-aa")
    champion.promote(store, "m2", "20261123T000000-bb")
    assert "m2  since 20261123T000000-bb" in vidloop("champion", "show", "--store", store.root)
    assert vidloop("champion", "rollback", "--store", store.root) == "m1\n"
    assert "base model" in vidloop("champion", "rollback", "--store", store.root)


def test_gc_only_counts_unless_told_to_delete(store: Store, vidloop: Callable[..., str]) -> None:
    import os

    path = store.path(store.write_media(b"nobody names me", ".mp4").path)
    assert "0 files" in vidloop("gc", "--store", store.root)
    os.utime(path, (0, 0))
    assert "1 files" in vidloop("gc", "--store", store.root)
    assert path.exists()
    assert "removed" in vidloop("gc", "--delete", "--store", store.root)
    assert not path.exists()


def test_plan_shows_what_would_run_and_makes_no_store(tiny: Tiny, vidloop: Callable[..., str]) -> None:
    for command in (["plan"], ["round", "--dry-run"]):
        out = vidloop(*command, *tiny.args())
        assert "9 clips of 3 prompts, 3 batches of 4" in out
        assert "generate  0 cached, 3 to run" in out
        assert "clips 9-9 of 9" in out
        assert "evaluate  depends on earlier answers" in out
        assert not tiny.store.exists()


def test_plan_prints_the_resolved_recipe(tiny: Tiny, vidloop: Callable[..., str]) -> None:
    resolved = json.loads(vidloop("plan", "--resolved", *tiny.args("--set", "seed=3")))
    assert resolved["seed"] == 3
    assert resolved["finetune"]["schedule"] == "cosine"
    assert resolved.keys() >= tiny_settings(Path(), Path()).keys()


def test_explain_names_the_difference_to_the_nearest_unit(
    tiny: Tiny, vidloop: Callable[..., str], make_clip: Callable[..., Clip]
) -> None:
    from flows.config.load import load_recipe
    from flows.config.resolve import open_round
    from tasks import generate

    store = Store.open(tiny.store, create=True)
    held = generate.units(open_round(load_recipe(str(tiny.recipe)), store, "run"))[0]
    store.commit("generate", held.question, {"clips": []})
    out = vidloop("explain", held.keys[0][:10], *tiny.args())
    assert "stage generate, in the store" in out
    assert "clips 1-4 of 9 of this recipe" in out

    changed = load_recipe(str(tiny.recipe), ["generate.guidance=5", "seed=0"])
    other = generate.units(open_round(changed, store, "run"))[0]
    out = vidloop("explain", other.keys[0], *tiny.args("--set", "generate.guidance=5"))
    assert "not in the store: it would be computed" in out
    assert f"Nearest in the store: {held.keys[0]}" in out
    assert "sampling.sample.guidance: 5.0 here, 2.0 there" in out


def test_doctor_looks_at_everything(store: Store, vidloop: Callable[..., str]) -> None:
    result = typer.testing.CliRunner().invoke(app, ["doctor", "--store", str(store.root)])
    assert "torch" in result.output
    assert f"store {store.root}: 0 units" in result.output
    assert ("MISS" in result.output) == (result.exit_code == 2)
    assert "ok    plug-in vidloop.commands: study (studies.cli) of " in result.output


def test_doctor_names_a_plug_in_that_cannot_be_loaded(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = '[project.entry-points."vidloop.rewards"]\nlamp = "no_such_lamp:REWARD"\n'
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "lamp"\n{entries}')
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    result = typer.testing.CliRunner().invoke(app, ["doctor", "--store", str(store.root)])
    assert "MISS  plug-in vidloop.rewards: lamp: plug-in 'lamp' of" in result.output
    assert result.exit_code == 2


def test_the_help_of_query_names_every_view(store: Store, vidloop: Callable[..., str]) -> None:
    views = csv.reader(io.StringIO(vidloop("query", "SHOW TABLES", "--store", store.root, "-f", "csv")))
    listed = re.findall(r"\w+", vidloop("query", "--help"))
    assert [name for (name,) in views if name not in (*listed, "name")] == []


def test_an_answer_as_a_parquet_file(
    store: Store, clips: Manifest, vidloop: Callable[..., str], tmp_path: Path
) -> None:
    sql = "SELECT clip_id, seed, {'a': [seed]} AS nested, NULL AS nothing FROM clips ORDER BY ALL"
    path = tmp_path / "answer.parquet"
    assert "2 rows" in vidloop("query", sql, "--store", store.root, "--out", path)
    held = pq.read_table(path)
    assert held.column_names == ["clip_id", "seed", "nested", "nothing"]
    assert [held.column(place).to_pylist() for place in (1, 2)] == [[1, 2], [{"a": [1]}, {"a": [2]}]]
    for out in (tmp_path / "answer.txt", path / "in_a_file.parquet"):
        result = typer.testing.CliRunner().invoke(
            app, ["query", sql, "--store", str(store.root), "-o", str(out)]
        )
        assert (result.exit_code, str(out.parent) in result.output) == (2, True)


def test_policies_and_champions_are_listed_and_named_by_first_digits(
    store: Store, commit: Callable[..., Manifest], vidloop: Callable[..., str]
) -> None:
    rows = [
        Policy(f"m{name}", "base", [], "dpo", "d", "", "", 4, 4.0, ["to_q"], 9, "{}", "[]")
        for name in ("11aa", "11bb", "22cc")
    ]
    commit("finetune", policies=rows)
    assert vidloop("champion", "history", "--store", store.root) == ""
    champion.promote(store, "m11aa", "20261122T000000-aa", approved_by="Ada", reason="it falls")
    assert vidloop("champion", "set", "m2", "--store", store.root) == "m22cc\n"
    assert vidloop("champion", "history", "--store", store.root).splitlines() == [
        "m11aa  since 20261122T000000-aa  approved by Ada: it falls",
        "m22cc  set by hand",
    ]
    table = vidloop("policies", "--store", store.root).splitlines()
    assert [line.split()[0] for line in table[1:4]] == ["m11aa", "m11bb", "m22cc"]
    assert [line.split()[-1] == "yes" for line in table[1:4]] == [False, False, True]
    result = typer.testing.CliRunner().invoke(app, ["champion", "set", "m11", "--store", str(store.root)])
    assert (result.exit_code, "2 begin with 'm11': m11aa, m11bb" in result.output) == (2, True)


def test_clips_named_alike_are_told_apart(store: Store, clips: Manifest) -> None:
    result = typer.testing.CliRunner().invoke(app, ["remake", "c", "--store", str(store.root)])
    assert (result.exit_code, "2 begin with 'c': c1, c2" in result.output) == (2, True)


def test_the_version_is_the_packages(vidloop: Callable[..., str]) -> None:
    import vidloop as package

    assert vidloop("--version") == f"{package.__version__}\n"
