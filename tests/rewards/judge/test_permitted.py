"""What a recipe may send and run of the operator's is the operator's to say, and no recipe's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import ConfigError, UserError
from rewards import build_reward, reward_kind
from rewards.base import LoadedClip
from rewards.judge.permitted import (
    KEY_VARIABLE,
    KEYS_VARIABLE,
    OPTIONS_VARIABLE,
    URL_VARIABLE,
    check_key_variable,
)
from rewards.judge.server import command
from rewards.judge.settings import JudgeSettings, server_key
from tests.miniature_rewards import JUDGE
from tests.rewards.judge.fault_server import KEY, FaultServer

ROOT = Path(__file__).resolve().parents[3]
EVIL = "https://evil.example/v1"
OURS = "http://judge.example:8000/v1"


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (KEY_VARIABLE, KEYS_VARIABLE, OPTIONS_VARIABLE, URL_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PATH", "VIDLOOP_NOTIFY_URL", f"{KEY_VARIABLE}S"])  # fmt: skip
def test_a_strangers_recipe_sends_no_secret_of_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "VERYSECRET")
    settings = JudgeSettings(**JUDGE, url=EVIL, api_key_env=name)
    with pytest.raises(ConfigError, match=f"export {KEYS_VARIABLE}={name}@evil.example") as refused:
        reward_kind("judge").permitted(settings)
    assert "VERYSECRET" not in str(refused.value)
    with pytest.raises(ConfigError):
        server_key(settings)


def test_nothing_is_sent_before_it_is_refused(
    server: FaultServer, served: Callable[..., dict[str, Any]], clips: Callable[..., list[LoadedClip]], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("OTHER_KEY", KEY)
    with pytest.raises(UserError, match="OTHER_KEY may not be sent to 127"):
        build_reward("judge", served(api_key_env="OTHER_KEY")).score(clips(1))
    assert server.asked == []
    monkeypatch.setenv(KEYS_VARIABLE, "OTHER_KEY@127.0.0.1")
    assert build_reward("judge", served(api_key_env="OTHER_KEY")).score(clips(1))[0].value is not None


@pytest.mark.parametrize(
    ("said", "name", "url", "allowed"),
    [
        ("", KEY_VARIABLE, EVIL, True),
        ("", f"{KEY_VARIABLE}_EXAMINER", EVIL, True),
        ("OPENAI_API_KEY", "OPENAI_API_KEY", EVIL, True),
        ("OTHER, OPENAI_API_KEY@Judge.Example", "OPENAI_API_KEY", OURS, True),
        ("OPENAI_API_KEY@judge.example:8000", "OPENAI_API_KEY", OURS, True),
        ("OPENAI_API_KEY@a.example,OPENAI_API_KEY@judge.example", "OPENAI_API_KEY", OURS, True),
        ("OPENAI_API_KEY@judge.example:80", "OPENAI_API_KEY", OURS, False),
        ("OPENAI_API_KEY@judge.example", "OPENAI_API_KEY", EVIL, False),
        ("OPENAI_API_KEY@judge.example", "OPENAI_API_KEY", "https://judge.example.evil.example/v1", False),
        (f"{KEY_VARIABLE}@judge.example", KEY_VARIABLE, EVIL, False),
        (f"{KEY_VARIABLE}_A@judge.example", f"{KEY_VARIABLE}_A", EVIL, False),
        (f"{KEY_VARIABLE}_A@judge.example", f"{KEY_VARIABLE}_B", EVIL, True),
    ],
)
def test_what_the_operator_says_holds(
    said: str, name: str, url: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, said)
    if allowed:
        check_key_variable(name, url)
    else:
        with pytest.raises(ConfigError, match=f"{KEYS_VARIABLE} binds it to "):
            check_key_variable(name, url)


def test_the_key_of_the_deployments_judge_goes_there_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, OURS)
    check_key_variable(KEY_VARIABLE, EVIL)  # there is none to send
    monkeypatch.setenv(KEY_VARIABLE, "k")
    assert server_key(JudgeSettings(**JUDGE)) == "k"
    assert server_key(JudgeSettings(**JUDGE, url=OURS)) == "k"
    with pytest.raises(ConfigError, match=f"the key of the server that {URL_VARIABLE} names"):
        server_key(JudgeSettings(**JUDGE, url=EVIL))
    monkeypatch.setenv(KEYS_VARIABLE, f"{KEY_VARIABLE}@judge.example, {KEY_VARIABLE}@evil.example")
    assert server_key(JudgeSettings(**JUDGE, url=EVIL)) == "k"


@pytest.mark.parametrize("args", [
    "--trust-remote-code", "--trust_remote_code", "--trust-remote-code=true", "--trust-remote", "--config evil.yaml",
    "--mm-processor-cache-gb 8 --middleware evil.Module", "--host 0.0.0.0", "--api-key x", "-cc '{}'", "--no-api-key",
    "--worker-cls=evil.W", "--chat-template /etc/passwd", "--allowed-local-media-path /", "--load-format pt", "--",
])  # fmt: skip
def test_a_recipe_gives_the_runs_own_server_no_option_that_runs_code_or_opens_it(
    args: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = JudgeSettings(**JUDGE, server_args=args)
    for refused in (lambda: command(settings, 1), lambda: reward_kind("judge").permitted(settings)):
        with pytest.raises(
            ConfigError, match=rf"a recipe may not give the server .*export {OPTIONS_VARIABLE}=-"
        ):
            refused()
    name = next(word for word in args.split() if "mm" not in word and word.startswith("-")).partition("=")[0]
    monkeypatch.setenv(OPTIONS_VARIABLE, f"--x,{name}")
    assert set(args.replace("'", "").split()) <= set(command(settings, 1))


@pytest.mark.parametrize("args", [
    "", "--mm-processor-cache-gb 8", "--tensor-parallel-size=2 --seed -1", "--no-enforce-eager",
    """--mm-processor-kwargs '{"max_pixels": 200704}'""", "--max_num_seqs 4",
])  # fmt: skip
def test_options_of_memory_speed_and_frames_are_a_recipes_own(args: str) -> None:
    assert command(JudgeSettings(**JUDGE, server_args=args), 1)


def test_words_that_no_shell_reads_are_bad_input() -> None:
    with pytest.raises(ConfigError, match=r"judge\.server_args: No closing quotation"):
        command(JudgeSettings(**JUDGE, server_args="--seed '1"), 1)


def test_shipped_recipes_need_no_permission() -> None:
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        text = path.read_text("utf-8")
        for line in text.splitlines():
            if "server_args:" in line:
                assert command(JudgeSettings(**JUDGE, server_args=line.partition(":")[2].strip()), 1)
