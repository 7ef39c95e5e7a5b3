"""kill -9 of the judge's server (a real vLLM) in the middle of a round that `vidloop serve` plays.

Needs an environment with vLLM: .venv-judge (`make judge`), or the folder that VIDLOOP_JUDGE_VENV names.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.processes import descendants
from tests.rewards.judge.conftest import RUBRIC
from tests.served import ENDED, Served, newest_summary, parts_are_whole, serving, wait_for
from tests.tiny_round import ROOT, cached
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow

ENVIRONMENT = Path(os.environ.get("VIDLOOP_JUDGE_VENV", ROOT / ".venv-judge")).absolute()
if not (ENVIRONMENT / "bin" / "python").exists():
    pytest.skip(f"no vLLM at {ENVIRONMENT}: `make judge`, or set VIDLOOP_JUDGE_VENV", allow_module_level=True)

SERVER = "vllm.entrypoints.openai.api_server"
# Two questions about each of so many clips, four clips a shard: judging takes a while, and is kept shard by shard.
CLIPS, MANIFESTS = 3 * 16, 12 * 2
# At the first question without an answer the judge counts as down, so that none is left without a value.
IMPATIENT = ["judge.retries=1", "judge.timeout_s=10", "judge.breaker=1"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_vlm: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("kill-judge")
    rubric = folder / "rubric.yaml"
    rubric.write_text(yaml.safe_dump(RUBRIC))

    def judged_recipe(recipe: dict[str, Any]) -> None:
        recipe["generate"]["clips_per_prompt"] = CLIPS // 3
        recipe["rewards"].append("judge")
        recipe["feedback"] = "judge"
        recipe["judge"] = {
            "model": str(tiny_vlm), "rubric": str(rubric), "environment": str(ENVIRONMENT), "concurrency": 1,
        }  # fmt: skip

    with serving(folder / "serve", tiny_model, changes=judged_recipe) as one:
        yield one


def servers(served: Served) -> list[int]:
    """The judge's servers, without their supervisors, which have the server's command in their own."""
    lines = served.processes().items()
    return [pid for pid, line in lines if SERVER in line and "processes.py" not in line]


def answers(store: Path) -> dict[str, dict[str, Any]]:
    """Manifests of the questions' scores: what was answered and kept."""
    found = {}
    for path in (store / "manifests" / "score").glob("*.json"):
        text = path.read_text()
        if '"judge/' in text:
            found[path.name] = json.loads(text)
    return found


def begins_to_judge(served: Served, **parameters: Any) -> str:
    """A round whose judge has answered some questions and not all."""
    run = served.run("round", **parameters)

    def look() -> bool:
        assert served.state(run) not in ENDED, served.log(run)
        return len(answers(served.tiny.store)) >= 1

    wait_for("first answers", look)
    assert len(answers(served.tiny.store)) < MANIFESTS
    return run


def test_a_judge_that_dies_is_started_again_and_the_round_ends_as_if_nothing_had_happened(
    served: Served,
) -> None:
    run = begins_to_judge(served, overrides=IMPATIENT)
    (first,) = servers(served)
    os.kill(first, signal.SIGKILL)
    kept = answers(served.tiny.store)
    assert len(kept) < MANIFESTS, "it was not killed in the middle"
    (second,) = wait_for("another server", lambda: [pid for pid in servers(served) if pid != first])
    assert served.until(run, *ENDED)["state_type"] == "COMPLETED", served.log(run)
    found = answers(served.tiny.store)
    assert {name: found[name] for name in kept} == kept
    assert len(found) == MANIFESTS
    assert [one["counts"]["failed"] for one in found.values()] == [0] * MANIFESTS
    parts_are_whole(served.tiny.store)
    wait_for("end of the server", lambda: not servers(served), 60)
    assert second not in descendants(served.process.pid)
    wait_for("free device", lambda: served.free("cpu"), 30)

    again = served.run("round", overrides=IMPATIENT)
    assert served.until(again, *ENDED)["state_type"] == "COMPLETED", served.log(again)
    assert all(held == all_ for held, all_ in cached(newest_summary(served.tiny.store)).values())


def test_a_judge_that_does_not_come_back_ends_the_round_with_words_and_the_same_form_finishes_it(
    served: Served,
) -> None:
    before = answers(served.tiny.store)
    run = served.run("round", seed=1, overrides=IMPATIENT)
    wait_for("first answers", lambda: len(answers(served.tiny.store)) > len(before))

    def killed_until_it_ends() -> dict[str, Any] | None:
        for pid in servers(served):
            os.kill(pid, signal.SIGKILL)
        found = served.about(run)
        return found if found["state_type"] in ENDED else None

    found = wait_for("end of the run", killed_until_it_ends)
    assert found["state_type"] == "FAILED"
    assert "judge: the server ended before it answered" in found["state"]["message"]
    kept = answers(served.tiny.store)
    assert len(before) < len(kept) < len(before) + MANIFESTS, "it was not killed in the middle"
    # A question without an answer has no value, and no number in its place.
    parts_are_whole(served.tiny.store)
    assert newest_summary(served.tiny.store)["verdict"].startswith("stage score did not finish")
    wait_for("free device", lambda: served.free("cpu"), 60)

    again = served.run("round", seed=1, overrides=IMPATIENT)
    assert served.until(again, *ENDED)["state_type"] == "COMPLETED", served.log(again)
    found_now = answers(served.tiny.store)
    assert {name: found_now[name] for name in kept} == kept
    assert len(found_now) == len(before) + MANIFESTS
    assert [one["counts"]["failed"] for one in found_now.values()] == [0] * len(found_now)
    wait_for("end of the server", lambda: not servers(served), 60)
