"""When the judge's server starts beside generation. That it serves then, and ends, stands in tests/e2e.

Here it cannot serve: the environment is this one, which has no vLLM. One that was started early has ended when
the score stage wants it, and that is said.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from data.errors import UserError
from tests.rewards.judge.conftest import RUBRIC
from tests.tiny_round import Tiny, play
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

ENDED = "the judge's server is down and is started again"


@pytest.fixture
def judged(tiny: Tiny, tiny_vlm: Path) -> list[str]:
    rubric = tiny.folder / "rubric.yaml"
    rubric.write_text(yaml.safe_dump(RUBRIC))
    return [
        "rewards=[sharpness,judge]",
        "judge.backend=vllm",
        f"judge.venv={Path(sys.executable).parents[1]}",
        f"judge.model={tiny_vlm}",
        f"judge.rubric={rubric}",
    ]


def clips_made(tiny: Tiny) -> int:
    return len(list((tiny.store / "manifests").glob("generate/*.json")))


def test_it_starts_with_generation_if_a_clip_is_missing(
    tiny: Tiny, judged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match=r"No module named .?vllm"):
        play(tiny, *judged)
    assert clips_made(tiny) == 3
    assert ENDED in caplog.text
    caplog.clear()
    with pytest.raises(UserError, match=r"No module named .?vllm"):
        play(tiny, *judged)
    assert ENDED not in caplog.text, "all clips are there"


def test_it_waits_where_the_recipe_says_so(
    tiny: Tiny, judged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match=r"No module named .?vllm"):
        play(tiny, *judged, "judge.early_start=false")
    assert clips_made(tiny) == 3
    assert ENDED not in caplog.text


def test_a_server_elsewhere_is_not_started(tiny: Tiny, judged: list[str]) -> None:
    with pytest.raises(UserError, match="does not answer"):
        play(tiny, *judged, "judge.url=http://127.0.0.1:9/v1", "judge.served_name=tiny", "judge.retries=0")
    assert clips_made(tiny) == 3
