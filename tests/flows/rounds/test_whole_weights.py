"""Weights that do not fill their network end a plan, and a round before it computes anything."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.testing

import flows.cli.round
from data.store import Store
from flows.cli.app import app
from tests.tiny_round import Tiny

COMMANDS = flows.cli.round
KEY = "encoder.block.1.layer.0.SelfAttention.k.weight"


@pytest.fixture
def broken(tmp_path: Path, tiny_model: Path) -> Path:
    """The model with a configuration of one text layer more than there are: transformers makes it up."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "broken"))
    place = folder / "text_encoder" / "config.json"
    config = json.loads(place.read_text())
    place.write_text(json.dumps(config | {"num_layers": config["num_layers"] + 1}))
    return folder


def vidloop(*args: str) -> tuple[int, str]:
    done = typer.testing.CliRunner().invoke(app, list(args))
    return done.exit_code, done.output


@pytest.mark.parametrize(
    "command", [["plan"], ["round", "--dry-run"], ["round", "--plain"], ["generate", "--plain"]]
)
def test_a_model_that_is_not_whole_ends_the_command_before_any_work(
    tiny: Tiny, broken: Path, command: list[str]
) -> None:
    code, said = vidloop(*command, *tiny.args("--set", f"model.path={broken}"))
    assert code == 2, said
    assert f"the text_encoder of {broken} (UMT5EncoderModel)" in said
    assert KEY.split("SelfAttention")[0] in said
    assert not tiny.store.exists() or not list(Store.open(tiny.store).manifests())


def test_a_reward_that_is_not_whole_ends_a_round_before_generation(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree("miniature/weights/raft", tmp_path / "raft"))
    (folder / "config.json").write_text('{"architecture": "raft_large"}')
    more = ["--set", "rewards=[physics, sharpness, flow]", "--set", f"flow.model={folder}"]
    code, said = vidloop("round", "--plain", *tiny.args(*more))
    assert code == 2, said
    assert f"flow: {folder} (raft_large): the weights do not fill the network" in said
    assert not list(Store.open(tiny.store).manifests())


def test_a_plan_of_what_is_in_the_store_looks_at_no_weights(tiny: Tiny) -> None:
    code, said = vidloop("round", "--plain", *tiny.args())
    assert code == 0, said
    script = (
        "import runpy, sys; sys.argv[0] = 'vidloop'\ntry: runpy.run_module('flows', run_name='__main__')\n"
    )
    script += "except SystemExit as end: print('ended', end.code, {'torch', 'diffusers'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script, "plan", *tiny.args()], capture_output=True, text=True, check=True
    )
    assert "to run" in done.stdout
    assert done.stdout.splitlines()[-1] in ("ended 0 set()", "ended None set()"), done.stdout
