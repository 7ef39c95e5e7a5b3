"""A key that cannot be sent: a round says so before any work, and the key stands nowhere."""

from __future__ import annotations

import pytest
import typer.testing

import flows.cli.round
from flows.cli.app import app
from tests.miniature_rewards import JUDGE
from tests.tiny_round import Tiny

COMMANDS = (flows.cli.round,)


@pytest.mark.parametrize("key", ["sk-VERYSECRET\nVERYSECRET", "sk-VERYSECRETé", "VERYSECRET\x07x"])
def test_the_key_is_in_no_output_and_no_file(
    key: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VIDLOOP_JUDGE_KEY", key)
    settings = {**JUDGE, "url": "http://127.0.0.1:9/v1"}
    overrides = ["rewards=[sharpness, judge]", *(f"judge.{name}={value}" for name, value in settings.items())]
    sets = [word for one in overrides for word in ("--set", one)]
    ended = typer.testing.CliRunner().invoke(app, ["round", *tiny.args("--plain", *sets)])
    assert ended.exit_code == 2
    assert "the key in VIDLOOP_JUDGE_KEY holds" in " ".join(ended.output.split())
    assert "VERYSECRET" not in ended.output + ended.stderr + caplog.text
    files = [path for path in tiny.folder.rglob("*") if path.is_file()]
    assert [path for path in files if b"VERYSECRET" in path.read_bytes()] == []
    assert not list(tiny.store.glob("manifests/generate/*"))


@pytest.mark.parametrize("said", ["api_key_env=AWS_SECRET_ACCESS_KEY", "server_args=--trust-remote-code"])
@pytest.mark.parametrize("command", ["round", "plan"])
def test_what_a_recipe_may_not_send_or_run_is_refused_before_any_work(
    command: str, said: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "VERYSECRET")
    url = "http://127.0.0.1:9/v1" if said.startswith("api") else ""
    overrides = ["rewards=[sharpness, judge]", *(f"judge.{name}={value}" for name, value in JUDGE.items())]
    sets = [word for one in (*overrides, f"judge.url={url}", f"judge.{said}") for word in ("--set", one)]
    plain = ("--plain",) if command == "round" else ()
    ended = typer.testing.CliRunner().invoke(app, [command, *tiny.args(*plain, *sets)])
    assert ended.exit_code == 2, ended.output
    assert "export VIDLOOP_" in " ".join(ended.output.split())
    assert not list(tiny.store.glob("manifests/generate/*"))
