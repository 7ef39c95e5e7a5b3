"""The judge by a real vLLM server that the run starts: the same P(yes) as in process, and no process left behind.

Needs an environment with vLLM: .venv-judge (`make judge`), or the folder that VIDLOOP_JUDGE_VENV names.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rewards import build_reward
from rewards.base import LoadedClip
from tests.rewards.judge.conftest import RUBRIC
from tests.tiny_round import ROOT
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow

ENVIRONMENT = Path(os.environ.get("VIDLOOP_JUDGE_VENV", ROOT / ".venv-judge")).absolute()
if not (ENVIRONMENT / "bin" / "python").exists():
    pytest.skip(f"no vLLM at {ENVIRONMENT}: `make judge`, or set VIDLOOP_JUDGE_VENV", allow_module_level=True)

PROMPTS = (
    "a red ball falls onto the floor and bounces",
    "a hand lifts the blue square out of the box",
    "a toss",
)


@pytest.fixture(scope="module")
def settings(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    rubric = tmp_path_factory.mktemp("rubric") / "rubric.yaml"
    rubric.write_text(yaml.safe_dump(RUBRIC))

    def make(**changed: Any) -> dict[str, Any]:
        own = {
            "model": str(tiny_vlm),
            "rubric": str(rubric),
            "environment": str(ENVIRONMENT),
            "device": "cpu",
        }
        return own | changed

    return make


@pytest.fixture(scope="module")
def served(settings: Callable[..., dict[str, Any]]) -> Iterator[Any]:
    judge: Any = build_reward("judge", settings(backend="vllm"))
    yield judge
    judge.close()
    assert servers() == []


def noise(count: int) -> list[LoadedClip]:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (count, 9, 32, 32, 3), dtype=np.uint8)
    # From noise to plain colour, so that clips differ in more than their seed.
    frames = (frames * np.linspace(0.02, 1, count)[:, None, None, None, None]).astype(np.uint8)
    return [
        LoadedClip(f"c{i}", PROMPTS[i % len(PROMPTS)], frames[i], 8.0, "falling down") for i in range(count)
    ]


def servers() -> list[int]:
    """Processes that serve a judge of ours, whoever started them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"data/processes.py" in command or b"vllm.entrypoints.openai.api_server" in command:
                found.append(int(entry.name))
    return found


def test_both_backends_are_one_judge(served: Any, settings: Callable[..., dict[str, Any]]) -> None:
    """The issue's bound: 1e-4 over at least 256 clips, and no label differs."""
    clips = noise(256)
    wanted = {"judge/task": clips, "judge/physics": clips}
    local: Any = build_reward("judge", settings(backend="local"))
    ours, theirs = local.score_parts(wanted).judgements, served.score_parts(wanted).judgements
    differences, flipped = [], 0
    for part in wanted:
        for clip in clips:
            one, other = ours[part][clip.clip_id].value, theirs[part][clip.clip_id].value
            assert one is not None
            assert other is not None, theirs[part][clip.clip_id].error
            differences.append(abs(one - other))
            flipped += (one >= 0.5) != (other >= 0.5)
    spread = max(x.value for x in ours["judge/task"].values()) - min(
        x.value for x in ours["judge/task"].values()
    )
    print(
        f"largest difference in P(yes) {max(differences):.2e} over {len(differences)} answers; spread {spread:.3f}"
    )
    assert max(differences) <= 1e-4
    assert flipped == 0
    assert spread > 0.05, "answers that hardly differ would show nothing"


def test_an_answer_says_who_gave_it_and_what_was_seen(served: Any) -> None:
    one = served.score_parts({"judge/task": noise(1)}).judgements["judge/task"]["c0"]
    assert one.detail["judge"]["library"].startswith("vllm ")
    assert one.detail["frames"] == [[0, 3, 5, 8]]
    assert one.detail["prompt_tokens"][0] > 8


LAWS: dict[str, Any] = {
    "questions": [],
    "laws": [
        {"id": "support", "concerns": "task: {prompt}?", "questions": ["physics: {prompt}?", "objects?"]},
        # Words to which this model with random weights says no.
        {"id": "heat", "concerns": "qqq {prompt} qqq!! zzz!!", "questions": ["task: {prompt}?"]},
        {"id": "time", "concerns": "physics {prompt}", "questions": ["overall?", "physics?"]},
    ],
    "combine": "mean",
    "scale": {"lowest": 1, "highest": 5, "min_mass": 0.0},
}


def test_grades_and_laws_are_the_same_by_server_and_in_process(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Text-only questions about prompts, and graded questions about clips only of the laws that these name."""
    (tmp_path / "laws.yaml").write_text(yaml.safe_dump(RUBRIC | LAWS))
    clips = noise(24)
    found = []
    for backend in ("local", "vllm"):
        judge: Any = build_reward("judge", settings(backend=backend, rubric=str(tmp_path / "laws.yaml")))
        try:
            parts = judge.score_parts({part.name: clips for part in judge.parts}).judgements
            found.append((judge.ask_prompts(clips), parts))
        finally:
            judge.close()
    (told, ours), (said, theirs) = found
    decided, differences = [], []
    for prompt in PROMPTS:
        for part in ours:
            differences.append(abs(told[prompt][part].value - said[prompt][part].value))
            decided.append(told[prompt][part].value >= 0.5)
    for part in ours:
        for clip in clips:
            one, other = ours[part][clip.clip_id], theirs[part][clip.clip_id]
            assert (one.value is None) == (told[clip.prompt][part].value < 0.5)
            assert one.error == other.error, "the same laws concern a prompt"
            if one.value is not None:
                differences.append(abs(one.value - other.value))
                assert one.detail["prompt_tokens"] == other.detail["prompt_tokens"]
                assert all("grade" in some["answers"][0] for some in other.detail["questions"])
    print(f"largest difference {max(differences):.2e} over {len(differences)}; concerned {sum(decided)} of 9")
    assert max(differences) <= 1e-4
    assert 0 < sum(decided) < len(decided), "some concern, some do not"


RUN = """
import json, signal, sys, time
# Tests that run in the background inherit that Ctrl-C is ignored; a person's run does not.
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.e2e.test_judge_vllm import noise
from rewards import build_reward
judge = build_reward("judge", json.loads(sys.argv[1]))
print(judge.score(noise(1))[0].value, flush=True)
if sys.argv[2] == "fail":
    raise RuntimeError("the run fails")
if sys.argv[2] == "wait":
    time.sleep(600)
"""


@pytest.mark.parametrize("ending", ["success", "fail", "Ctrl-C", "kill -9", "kill -9 while it starts"])
def test_no_server_outlives_its_run(
    ending: str, settings: Callable[..., dict[str, Any]], served: Any
) -> None:
    served.close()
    assert servers() == []
    what = "wait" if ending in ("Ctrl-C", "kill -9") else ending
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, json.dumps(settings(backend="vllm")), what],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert run.stdout is not None
        if ending == "kill -9 while it starts":
            deadline = time.monotonic() + 120
            while len(servers()) < 2 and time.monotonic() < deadline:
                time.sleep(0.1)
            assert len(servers()) >= 2
            run.kill()
        else:
            assert 0 <= float(run.stdout.readline()) <= 1
            assert servers()
            if ending == "Ctrl-C":
                run.send_signal(signal.SIGINT)
            elif ending == "kill -9":
                run.kill()
        run.wait(60)
        deadline = time.monotonic() + 60
        while servers() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert servers() == []
    finally:
        run.kill()
        run.wait()
