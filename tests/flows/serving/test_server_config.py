from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from data.errors import UserError
from flows.serving.devices import devices
from flows.serving.server_config import ServerConfig, read_auth


def at(folder: Path, **changes: object) -> ServerConfig:
    said = {"host": "127.0.0.1", "port": 4200, "store": "/data/store", "devices": ("cpu",), **changes}
    return ServerConfig(folder=str(folder), **said)  # type: ignore[arg-type]


def test_the_auth_string_is_made_once_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        auth, new = at(tmp_path).auth()
    finally:
        os.umask(before)
    assert new
    assert len(auth.partition(":")[2]) >= 32
    assert stat.S_IMODE((tmp_path / "auth").stat().st_mode) == 0o600
    assert at(tmp_path).auth() == (auth, False)
    (tmp_path / "auth").chmod(0o640)
    with pytest.raises(UserError, match="can be read by others"):
        at(tmp_path).auth()


def test_an_empty_auth_string_is_refused_and_not_served(tmp_path: Path) -> None:
    (tmp_path / "auth").touch(mode=0o600)
    with pytest.raises(UserError, match="holds no auth string"):
        read_auth(tmp_path / "auth")


def test_what_is_saved_is_loaded_and_holds_no_secret(tmp_path: Path) -> None:
    config = at(tmp_path, devices=("GPU-1", "GPU-2"), recipes=("/more",))
    assert ServerConfig.load(tmp_path) is None
    auth, _ = config.auth()
    config.save()
    assert ServerConfig.load(tmp_path) == config
    assert auth.partition(":")[2] not in (tmp_path / "serve.json").read_text()
    (tmp_path / "serve.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        ServerConfig.load(tmp_path)


def test_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_TIMEOUT", "90")
    monkeypatch.setenv("PREFECT_API_URL", "https://elsewhere/api")
    config = at(tmp_path)
    server, worker = config.server_environment("vidloop:x"), config.worker_environment("vidloop:x", "GPU-7")
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == "vidloop:x"
    assert "PREFECT_SERVER_API_AUTH_STRING" not in worker
    assert worker["PREFECT_API_AUTH_STRING"] == "vidloop:x"
    assert worker["PREFECT_API_URL"] == server["PREFECT_UI_API_URL"] == "http://127.0.0.1:4200/api"
    assert server["PREFECT_SERVER_DATABASE_TIMEOUT"] == "90"  # what the user sets wins
    assert server["PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT"] == "60"
    assert server["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert (worker["CUDA_VISIBLE_DEVICES"], worker["VIDLOOP_DEVICE"]) == ("GPU-7", "GPU-7")
    assert config.worker_environment("vidloop:x", "cpu")["CUDA_VISIBLE_DEVICES"] == ""


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver's answer, as `nvidia-smi --query-gpu=index,uuid --format=csv,noheader` prints it."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '0, GPU-aaaa\\n1, GPU-bbbb\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_gpus")
def test_one_worker_for_each_gpu_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices() == ("GPU-aaaa", "GPU-bbbb")
    for said, meant in [("1", ("GPU-bbbb",)), ("GPU-bbbb,0", ("GPU-bbbb", "GPU-aaaa")), ("", ("cpu",))]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
        assert devices() == meant
    assert devices(["1", "cpu"]) == ("GPU-bbbb", "cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    with pytest.raises(UserError, match="lists no such GPU"):
        devices()


def test_the_cpu_where_there_is_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices() == ("cpu",)
    assert devices(["standin-0", "standin-1"]) == ("standin-0", "standin-1")
    for wrong in (["a", "a"], ["a b"], [""]):
        with pytest.raises(UserError):
            devices(wrong)
