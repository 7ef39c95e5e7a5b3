"""A round with a real vLLM server, ended in every way: no process, no folder and no key is left, no answer is lost.

Needs an environment with vLLM: .venv-judge (`make judge`), or the folder that VIDLOOP_JUDGE_VENV names.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewards.judge.server import ManagedServer
from rewards.judge.settings import NAME, JudgeSettings
from tests.rewards.judge.conftest import RUBRIC
from tests.tiny_round import (
    HELDOUT,
    ROOT,
    TRAIN,
    Ended,
    Tiny,
    cached,
    summaries,
    tiny_settings,
    write_prompts,
)
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow

ENVIRONMENT = Path(os.environ.get("VIDLOOP_JUDGE_VENV", ROOT / ".venv-judge")).absolute()
if not (ENVIRONMENT / "bin" / "python").exists():
    pytest.skip(f"no vLLM at {ENVIRONMENT}: `make judge`, or set VIDLOOP_JUDGE_VENV", allow_module_level=True)

KEY_ENV = "VIDLOOP_JUDGE_KEY_TEST"
STARTED_S, ENDED_S = 600.0, 60.0
SERVER = b"vllm.entrypoints.openai.api_server"
# Two questions about each of so many clips, four clips a shard: judging takes a while, and is kept shard by shard.
CLIPS, SHARDS, PARTS = 3 * 16, 12, ("judge/task", "judge/physics")


@pytest.fixture(scope="module")
def generated(tiny_model: Path, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A recipe whose judge a server serves, and a store that has all clips and all other rewards."""
    folder = tmp_path_factory.mktemp("endings")
    write_prompts(folder / "train.jsonl", TRAIN)
    write_prompts(folder / "heldout.jsonl", HELDOUT)
    (folder / "rubric.yaml").write_text(yaml.safe_dump(RUBRIC))
    recipe = tiny_settings(tiny_model, folder)
    recipe["generate"]["clips_per_prompt"] = CLIPS // 3
    tiny = Tiny(folder, folder / "store")
    tiny.recipe.write_text(yaml.safe_dump(recipe))
    for stage in ("generate", "score"):
        subprocess.run(
            [sys.executable, "-m", "flows", stage, "--plain", *tiny.args()],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True,
        )  # fmt: skip
    recipe["rewards"].append("judge")
    recipe["feedback"] = "judge"
    recipe["judge"] = {
        "model": str(tiny_vlm), "rubric": str(folder / "rubric.yaml"), "environment": str(ENVIRONMENT), "concurrency": 1,
    }  # fmt: skip
    tiny.recipe.write_text(yaml.safe_dump(recipe))
    return tiny


@pytest.fixture(scope="module")
def shared(tiny_vlm: Path) -> Iterator[dict[str, str]]:
    """A server of the same model that is running already, for whoever plays a round again."""
    settings = JudgeSettings(model=str(tiny_vlm), venv=str(ENVIRONMENT))
    server = ManagedServer(settings).wait()
    yield {"url": server.url, "key": server.key}
    server.stop()


@dataclass
class Round:
    """A round in a process of its own, whose temporary files lie in a folder of its own."""

    tiny: Tiny
    folder: Path
    process: subprocess.Popen[str]
    key: bytes = b""

    def processes(self) -> dict[int, bytes]:
        """Whatever runs with the round's temporary folder: its server, its supervisor, their children."""
        return {pid: command for pid, command in running_in(self.folder).items() if pid != self.process.pid}

    def server(self) -> int | None:
        """The server's process, but not its supervisor, which has the server's command in its own."""
        found = [pid for pid, command in self.processes().items() if SERVER in command]
        return next(
            (pid for pid in found if b"processes.py" not in running_in(self.folder).get(pid, b"")), None
        )

    def begins_to_judge(self) -> None:
        """Wait until the first answers are kept, and remember the key that opens the server."""
        self.until(lambda: 1 <= len(judged(self.tiny)) < SHARDS * len(PARTS), STARTED_S)
        server = self.server()
        assert server is not None
        environment = Path(f"/proc/{server}/environ").read_bytes().split(b"\0")
        self.key = next(one for one in environment if one.startswith(b"VLLM_API_KEY=")).partition(b"=")[2]
        assert len(self.key) > 30

    def until(self, happens: Callable[[], object], limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not happens():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "it took too long"
            time.sleep(0.02)

    def ends(self) -> Ended:
        out, err = self.process.communicate(timeout=STARTED_S)
        return Ended(self.process.returncode, out, err)

    def leaves_nothing(self, log: bool = False) -> None:
        """No process, no folder of a server (but the log of one that failed), and nowhere its key."""
        deadline = time.monotonic() + ENDED_S
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.processes() == {}
        deadline = time.monotonic() + ENDED_S
        while not log and folders(self) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = [path.name for folder in folders(self) for path in folder.iterdir()]
        assert left == (["server.log"] if log else [])
        for place in (self.folder, self.tiny.store):
            for path in place.rglob("*"):
                assert not (self.key and path.is_file() and self.key in path.read_bytes()), path


def folders(one: Round) -> list[Path]:
    return list(one.folder.glob("vidloop-judge-*"))


def running_in(folder: Path) -> dict[int, bytes]:
    """Command lines of living processes that were started with, or work in, this temporary folder."""
    found, sign = {}, f"TMPDIR={folder}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    continue
                # Some processes write their title over their environment; all keep their working folder.
                here = os.readlink(entry / "cwd").startswith(f"{folder}/")
                if here or sign in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes()
            except OSError:
                continue
    return found


def judged(tiny: Tiny) -> dict[str, bytes]:
    """Manifests of the questions' scores: what was answered and kept."""
    found = {}
    for path in (tiny.store / "manifests" / "score").glob("*.json"):
        data = path.read_bytes()
        if b'"judge/' in data:
            found[path.name] = data
    return found


@pytest.fixture
def begin(generated: Tiny, tmp_path: Path) -> Iterator[Callable[..., Round]]:
    begun: list[Round] = []
    # A short path: vLLM's sockets lie in it.
    folder = Path(tempfile.mkdtemp(prefix="je-", dir="/tmp"))
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(generated.folder / "inductor")}

    def start(*overrides: str, command: str = "round", **environment: str) -> Round:
        tiny = generated.at(tmp_path / "store")
        if not tiny.store.exists():
            shutil.copytree(generated.store, tiny.store)
        changed = [word for one in overrides for word in ("--set", one)]
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", command, "--plain", *tiny.args(*changed)],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), **caches, **environment},
            # Tests that run in the background inherit that Ctrl-C is ignored; a person's run does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        begun.append(Round(tiny, folder, process))
        return begun[-1]

    yield start
    for one in begun:
        one.process.kill()
        one.process.communicate()
    for pid in running_in(folder):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def asks_for_the_rest_alone(
    begin: Callable[..., Round], tiny: Tiny, kept: dict[str, bytes], shared: dict[str, str]
) -> None:
    """The next run judges what is missing, and the kept answers stay the files that they were."""
    # A server of a run's own is told a name that holds no path.
    server = (f"judge.url={shared['url']}", f"judge.api_key_env={KEY_ENV}", f"judge.served_name={NAME}")
    ended = begin(*server, command="score", **{KEY_ENV: shared["key"]}).ends()
    assert ended.code == 0, ended.err
    complete(tiny, kept)


def complete(tiny: Tiny, kept: dict[str, bytes]) -> None:
    """Every question about every clip is answered, and those of `kept` were not asked again."""
    found = judged(tiny)
    assert {name: found[name] for name in kept} == kept
    assert len(found) == SHARDS * len(PARTS)
    assert [json.loads(one)["counts"]["failed"] for one in found.values()] == [0] * len(found)


def test_success(begin: Callable[..., Round]) -> None:
    one = begin()
    one.begins_to_judge()
    ended = one.ends()
    assert ended.code == 0, ended.err
    one.leaves_nothing()
    summary = summaries(one.tiny.store)[-1]
    complete(one.tiny, {})
    # All is answered: the next round starts no server, though there is none to be started.
    again = begin("judge.venv=/nowhere").ends()
    assert again.code == 0, again.err
    last = cached(summaries(one.tiny.store)[-1])
    assert last["score"] == (summary["stages"]["score"]["shards"],) * 2


def test_a_stage_that_fails(begin: Callable[..., Round], generated: Tiny, tmp_path: Path) -> None:
    """Yes and no are a small part of what random weights would say: with a floor for both no clip has a value."""
    rubric: dict[str, Any] = RUBRIC | {"answer": RUBRIC["answer"] | {"min_mass": 0.9}}
    (tmp_path / "sure.yaml").write_text(yaml.safe_dump(rubric))
    one = begin(f"judge.rubric={tmp_path / 'sure.yaml'}")
    one.begins_to_judge()
    ended = one.ends()
    assert ended.code == 3, ended.err
    assert "max_failed_share" in ended.err
    one.leaves_nothing()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda sign: sign.name)
def test_a_signal_while_it_judges(how: int, begin: Callable[..., Round], shared: dict[str, str]) -> None:
    one = begin()
    one.begins_to_judge()
    one.process.send_signal(how)
    ended = one.ends()
    assert ended.code == (-signal.SIGKILL if how == signal.SIGKILL else 130), ended.err
    assert "Traceback" not in ended.err
    kept = judged(one.tiny)
    assert 1 <= len(kept) < SHARDS * len(PARTS), "it was not ended in the middle"
    one.leaves_nothing()
    asks_for_the_rest_alone(begin, one.tiny, kept, shared)


def test_ctrl_c_while_the_server_hangs(begin: Callable[..., Round]) -> None:
    """Nobody waits for the answers of a server of the run's own."""
    one = begin(command="score")
    one.begins_to_judge()
    server = one.server()
    assert server is not None
    os.kill(server, signal.SIGSTOP)
    one.process.send_signal(signal.SIGINT)
    _, err = one.process.communicate(timeout=ENDED_S)  # a request's own time-out is twice as long
    assert one.process.returncode == 130, err
    one.leaves_nothing()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda sign: sign.name)
def test_a_signal_while_the_server_starts(how: int, begin: Callable[..., Round]) -> None:
    one = begin()
    one.until(lambda: one.server() is not None, STARTED_S)
    one.process.send_signal(how)
    ended = one.ends()
    assert ended.code == (-signal.SIGKILL if how == signal.SIGKILL else 130), ended.err
    assert judged(one.tiny) == {}
    one.leaves_nothing()


@pytest.mark.parametrize("who", ["server", "supervisor", "server that hangs"])
def test_a_server_that_fails_is_started_again(who: str, begin: Callable[..., Round]) -> None:
    """The questions in between fail and are asked again: the round ends as if nothing had happened."""
    # At the first question without an answer the judge counts as down, so that none is left without a value.
    one = begin("judge.retries=1", "judge.timeout_s=10", "judge.breaker=1", command="score")
    one.begins_to_judge()
    first = one.server()
    assert first is not None
    if who != "supervisor":
        os.kill(first, signal.SIGSTOP if "hangs" in who else signal.SIGKILL)
    else:
        (supervisor,) = [pid for pid, command in one.processes().items() if b"processes.py" in command]
        os.kill(supervisor, signal.SIGKILL)
    kept = judged(one.tiny)
    assert len(kept) < SHARDS * len(PARTS), "it was not killed in the middle"
    one.until(lambda: one.server() not in (None, first), STARTED_S)
    ended = one.ends()
    assert ended.code == 0, ended.err
    complete(one.tiny, kept)
    one.leaves_nothing(log=True)


def test_the_key_is_found_where_it_is(begin: Callable[..., Round], generated: Tiny, tmp_path: Path) -> None:
    """What the other tests look for can be found: a file with the key is told of."""
    tiny = generated.at(tmp_path / "store")
    tiny.store.mkdir()
    one = Round(tiny, tmp_path, subprocess.Popen(["true"], text=True), secrets.token_urlsafe(32).encode())
    one.process.wait()
    one.leaves_nothing()
    (tmp_path / "note").write_bytes(b"key: " + one.key)
    with pytest.raises(AssertionError, match="note"):
        one.leaves_nothing()
