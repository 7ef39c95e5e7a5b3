"""Where the judge's server is: in the recipe, or for a whole deployment in the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from data.errors import UserError
from rewards.judge.permitted import URL_VARIABLE
from rewards.judge.server import command, require_server
from rewards.judge.settings import JudgeSettings, judge_version, model_path, served_name
from tests.miniature_rewards import JUDGE

DEPLOYED = "http://judge:8000/v1"


def test_the_environment_names_a_server_for_settings_that_name_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = JudgeSettings(**JUDGE, venv=str(tmp_path / "none"))
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    version = judge_version(settings)
    assert settings.address == ""
    assert served_name(settings) == "judge"
    with pytest.raises(UserError, match="no environment with vLLM"):
        require_server(settings)

    monkeypatch.setenv(URL_VARIABLE, DEPLOYED)
    assert settings.address == DEPLOYED
    assert JudgeSettings(url="http://127.0.0.1:9/v1").address == "http://127.0.0.1:9/v1"
    # Nothing is to be started, so nothing is missing; a server of others' knows the model by its path.
    require_server(settings)
    assert served_name(settings) == model_path(settings)
    assert judge_version(settings) == version

    for wrong, words in {
        "judge:8000": "must begin with http",
        "http://[judge/v1": "is no address",
        "http://me:T0ken@judge/v1": r"names a user: .* judge\.api_key_env",
    }.items():
        monkeypatch.setenv(URL_VARIABLE, wrong)
        with pytest.raises(UserError, match=rf"{URL_VARIABLE} {words}") as refused:
            _ = settings.address
        assert "T0ken" not in str(refused.value)
        with pytest.raises(ValidationError, match=words):
            JudgeSettings(url=wrong)


def test_the_command_says_where_to_listen_and_what_computes() -> None:
    own = command(JudgeSettings(**JUDGE), 1234, cpu=False)
    deployed = command(JudgeSettings(**JUDGE), 1234, host="0.0.0.0", cpu=False)
    assert own[own.index("--host") + 1] == "127.0.0.1"
    assert [word for word in deployed if word != "0.0.0.0"] == [word for word in own if word != "127.0.0.1"]
    assert command(JudgeSettings(**JUDGE), 1234, cpu=True)[: len(own)] == own
    assert "uni" in command(JudgeSettings(**JUDGE), 1234, cpu=True)
