"""Whatever is wrong with what a user gives: a message that says what and where, exit code 2, no traceback."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.testing

import flows.cli.doctor
import flows.cli.round
import flows.cli.store
from data.store import Store
from flows.cli.app import app
from tests.tiny_round import Tiny

Result = typer.testing.Result


@pytest.fixture
def vidloop() -> Callable[..., Result]:
    """The command line in this process: nothing here gets as far as loading a model."""
    runner = typer.testing.CliRunner()
    return lambda *args: runner.invoke(app, [str(arg) for arg in args])


def says(result: Result, code: int, *parts: str) -> None:
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.output


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("fintune.steps=3", ["--set fintune", "did you mean finetune?"]),
        ("generate.clips_per_prompt=0", ["generate.clips_per_prompt", "greater than or equal to 1"]),
        ("finetune.steps=0", ["finetune.steps"]),
        ("generate.prompts=nowhere.txt", ["no prompts at 'nowhere.txt'", "heldout"]),
        ("evaluate.prompts=nowhere.txt", ["no prompts at 'nowhere.txt'"]),
        ("model.path=/nowhere", ["/nowhere"]),
        ("policy=m404", ["policy 'm404'", "holds no such policy"]),
        ("rewards=[sharpness, physics, clip]", ["clip.model", "no folder", "no/such/weights"]),
        ("rewards=[sharpness, physics, flow]", ["flow.model", "no folder", "no/such/weights"]),
        ("evaluate.metric=sharpness", ["not judged by its own teacher"]),
    ],
)
@pytest.mark.parametrize("command", ["round", "plan"])
def test_recipe(
    tiny: Tiny, vidloop: Callable[..., Result], override: str, parts: list[str], command: str
) -> None:
    elsewhere = ["--set", "clip.model=no/such/weights", "--set", "flow.model=no/such/weights"]
    plain = ["--plain"] if command == "round" else []
    says(vidloop(command, *plain, *tiny.args("--set", override, *elsewhere)), 2, *parts)
    # Nothing was begun.
    assert not list(tiny.store.glob("manifests/*/*"))


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["holds no prompts"]),
        ("\n\n", ["holds no prompts"]),
        ("a ball\n\nanother\n", [":2", "the prompt is empty"]),
        ("a ball\n" + "x" * 5000 + "\n", [":2", "5000 characters"]),
        ("a \x00 ball\n", [":1", "control character U+0000"]),
        ("a ball\na ball\n", [":2", "same text as line 1"]),
    ],
)
def test_prompt_files(tiny: Tiny, vidloop: Callable[..., Result], content: str, parts: list[str]) -> None:
    prompts = tiny.folder / "mine.txt"
    prompts.write_text(content)
    says(
        vidloop("round", "--plain", *tiny.args("--set", f"generate.prompts={prompts}")), 2, "mine.txt", *parts
    )


def test_prompt_ids_that_look_like_paths(tiny: Tiny, vidloop: Callable[..., Result]) -> None:
    prompts = tiny.folder / "mine.jsonl"
    prompts.write_text(json.dumps({"text": "a ball", "id": "../../etc/passwd"}) + "\n")
    result = vidloop("round", "--plain", *tiny.args("--set", f"generate.prompts={prompts}"))
    says(result, 2, "mine.jsonl:1", "not a plain name")


def test_no_recipe(tiny: Tiny, vidloop: Callable[..., Result]) -> None:
    says(
        vidloop("round", "--plain", "--recipe", "nowhere.yaml", "--store", tiny.store),
        2,
        "nowhere.yaml",
        "mini.yaml",
    )


@pytest.mark.parametrize(
    "command",
    [
        ["score", "--plain"], ["evaluate", "--plain"], ["round", "--plain", "--from-stage", "score"],
    ],
)  # fmt: skip
def test_no_store_for_a_later_stage(tiny: Tiny, vidloop: Callable[..., Result], command: list[str]) -> None:
    says(vidloop(*command, *tiny.args()), 2, "no store at")
    assert not tiny.store.exists()


@pytest.mark.parametrize(
    "command",
    [
        ["query", "SELECT 1"], ["report"], ["champion", "show"], ["champion", "rollback"], ["champion", "set", "m1"],
        ["gc"],
    ],
)  # fmt: skip
def test_no_store_to_read(tmp_path: Path, vidloop: Callable[..., Result], command: list[str]) -> None:
    says(vidloop(*command, "--store", tmp_path / "none"), 2, "no store at", "--store")
    assert not (tmp_path / "none").exists()


def test_store_of_a_newer_version(tiny: Tiny, vidloop: Callable[..., Result]) -> None:
    Store.open(tiny.store, create=True)
    (tiny.store / "format.json").write_text('{"format": 99, "written_by": "9.0"}')
    says(vidloop("round", "--plain", *tiny.args()), 2, "store format 99", "newer")


def test_a_folder_that_is_no_store(tiny: Tiny, vidloop: Callable[..., Result]) -> None:
    tiny.store.mkdir()
    (tiny.store / "holiday.jpg").write_bytes(b"")
    says(vidloop("round", "--plain", *tiny.args()), 2, "neither a store nor empty", "holiday.jpg")


@pytest.mark.skipif(
    os.geteuid() == 0, reason="root may write everywhere; tests/chaos has the failpoint for it"
)
def test_a_store_that_cannot_be_written(tiny: Tiny, vidloop: Callable[..., Result]) -> None:
    Store.open(tiny.store, create=True)
    tiny.store.chmod(0o500)
    says(vidloop("round", "--plain", *tiny.args()), 2, "cannot write", "--store")


@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("SELEC 1", "SELEC"),
        ("SELECT * FROM clipz", "clips"),
        ("DROP VIEW clips", "only SELECT"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELECT * FROM read_text('/etc/hostname')", "cannot be answered"),
    ],
)
def test_queries(store: Store, vidloop: Callable[..., Result], sql: str, part: str) -> None:
    says(vidloop("query", sql, "--store", store.root), 2, part)


def test_report_of_a_round_that_is_not_there(store: Store, vidloop: Callable[..., Result]) -> None:
    says(vidloop("report", "--store", store.root), 2, "no finished round")
    says(vidloop("report", "../../etc", "--store", store.root), 2, "no finished round '../../etc'")


def test_keys_that_are_not_there(tiny: Tiny, vidloop: Callable[..., Result]) -> None:
    says(vidloop("explain", "zz", *tiny.args()), 2, "begins with 'zz'")
    says(vidloop("explain", "", *tiny.args()), 2, "begins with ''")


@pytest.mark.parametrize("args", [["rond"], ["round", "--stor", "x"], ["round", "--from-stage", "scoring"]])
def test_the_command_itself(vidloop: Callable[..., Result], args: list[str]) -> None:
    says(vidloop(*args), 2)


def test_debug_shows_where(vidloop: Callable[..., Result], tmp_path: Path) -> None:
    result = vidloop("--debug", "query", "SELECT 1", "--store", tmp_path / "none")
    assert result.exit_code == 2
    assert "Traceback" in result.output
    # The option belongs to one call.
    assert "Traceback" not in vidloop("query", "SELECT 1", "--store", tmp_path / "none").output


def test_of_several_commands_in_one_process_each_warns_once(
    vidloop: Callable[..., Result], tmp_path: Path
) -> None:
    for _ in range(3):
        planned = vidloop("plan", "--set", "finetune.objective=dpo-anchor", "--store", tmp_path / "store")
        assert planned.output.count("the objective dpo-anchor is now dpo") == 1, planned.output


def test_modules_that_add_commands_are_imported() -> None:
    assert {flows.cli.round.app, flows.cli.store.app, flows.cli.doctor.app} == {app}


@pytest.mark.parametrize(
    "words",
    [["explain", "zz"], ["plan", "--set", "policy=m404"], ["round", "--dry-run", "--set", "policy=m404"]],
)
def test_what_a_look_without_a_store_says_names_the_store_that_was_asked_for(
    tiny: Tiny, vidloop: Callable[..., Result], words: list[str]
) -> None:
    result = vidloop(*words, *tiny.args())
    says(result, 2, str(tiny.store))
    assert tempfile.gettempdir() + "/tmp" not in result.output
    assert not tiny.store.exists()
