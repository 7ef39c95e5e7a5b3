"""What a person does with a store on object storage, command after command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer.testing
import yaml

import flows.cli.calibrate
import flows.cli.campaign
import flows.cli.compare
import flows.cli.doctor
import flows.cli.remake
import flows.cli.round
import flows.cli.store
from data import champion
from data.store import Store
from flows.cli.app import app
from tests.s3_server import S3, SECRET, moto, s3
from tests.tiny_round import HELDOUT, TRAIN, Tiny, tiny, tiny_model, tiny_settings, write_prompts

__all__ = ["moto", "s3", "tiny", "tiny_model"]
pytestmark = pytest.mark.slow
COMMANDS = (
    flows.cli.calibrate, flows.cli.campaign, flows.cli.compare, flows.cli.doctor, flows.cli.remake, flows.cli.round,
    flows.cli.store,
)  # fmt: skip


@pytest.fixture
def small(tiny: Tiny, tiny_model: Path) -> Tiny:
    """A recipe of two clips a prompt, which trains for two steps."""
    write_prompts(tiny.folder / "train.jsonl", TRAIN[:2])
    write_prompts(tiny.folder / "heldout.jsonl", HELDOUT)
    said = tiny_settings(tiny_model, tiny.folder)
    said["rewards"] = ["sharpness"]
    said["generate"] |= {"clips_per_prompt": 2, "batch_size": 1, "frames": 5}
    said["evaluate"] |= {"guards": ["diversity"], "metric": "sharpness", "same_as_feedback": True}
    said["finetune"] |= {"steps": 2, "checkpoint_every": 1, "batch_size": 2}
    said["improve"] = {"rounds": 1}
    tiny.recipe.write_text(yaml.safe_dump(said))
    return tiny


def test_every_command_works_on_a_store_that_is_no_folder(
    s3: S3, small: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = s3.url()
    monkeypatch.chdir(tmp_path)

    def run(*args: str | Path, code: int = 0) -> str:
        done = typer.testing.CliRunner().invoke(app, [*map(str, args), "--store", url])
        assert done.exit_code == code, (args, done.output, done.exception)
        assert SECRET not in done.output
        assert "Traceback" not in done.output
        return done.output

    def ask(sql: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(run("query", sql, "--format", "json"))
        return found

    recipe = ("--recipe", small.recipe)
    assert "no store at" in run("report", code=2)
    run("round", "--plain", *recipe)
    run("plan", *recipe)
    (policy,) = [one["policy_id"] for one in ask("SELECT policy_id FROM policies")]
    run("champion", "set", policy)
    assert policy in run("champion", "show")
    assert policy in run("policies")
    run("improve", "--plain", *recipe)
    run("nightly", "--plain", *recipe)
    before = champion.history(Store.open(url))
    run("champion", "rollback")
    assert champion.history(Store.open(url)) == before[:-1]
    run("compare")
    page = Path(run("report").splitlines()[-1])
    assert "<html" in page.read_text("utf-8")
    run("report", "--bundle", tmp_path / "evidence")
    assert (tmp_path / "evidence").is_dir()
    clips = [one["clip_id"] for one in ask("SELECT clip_id FROM clips ORDER BY clip_id")]
    run("remake", clips[0], *recipe, "--out", tmp_path / "again")
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["clip_id,label", *(f"{one},{n % 2}" for n, one in enumerate(clips))]))
    run("calibrate", "--reward", "sharpness", "--labels", labels, "--controls", "0", *recipe)
    key = Store.open(url).manifests("score")[0].key
    run("explain", key, *recipe)
    scores = ask("SELECT * FROM scores ORDER BY ALL")
    run("compact")
    assert ask("SELECT * FROM scores ORDER BY ALL") == scores
    run("gc", "--delete")
    assert run("scrub").startswith("nothing is damaged")
    assert " cached, 0 computed" in run("round", "--plain", *recipe)
    assert os.listdir(tmp_path / "again")
    run("doctor")
