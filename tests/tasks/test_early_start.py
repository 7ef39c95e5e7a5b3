"""When the judge's server may start beside generation. That it does, and ends, stands in tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from data.errors import BadInput
from tests.rewards.judge.conftest import RUBRIC
from tests.tiny_round import Tiny, play, summaries
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)


@pytest.fixture
def judged(tiny: Tiny, tiny_vlm: Path) -> list[str]:
    """Overrides: a judge whose server cannot start, for there is no environment with vLLM."""
    rubric = tiny.folder / "rubric.yaml"
    rubric.write_text(yaml.safe_dump(RUBRIC))
    return [
        "rewards=[sharpness,judge]",
        "judge.backend=vllm",
        f"judge.environment={tiny.folder / 'nothing'}",
        f"judge.model={tiny_vlm}",
        f"judge.rubric={rubric}",
    ]


def clips_made(tiny: Tiny) -> int:
    return len(list((tiny.store / "manifests").glob("generate/*.json")))


def test_a_server_that_cannot_start_is_known_before_a_clip_is_made(tiny: Tiny, judged: list[str]) -> None:
    with pytest.raises(BadInput, match="make judge"):
        play(tiny, *judged)
    assert clips_made(tiny) == 0
    assert summaries(tiny.store)[-1]["verdict"].startswith("stage generate did not finish")


def test_it_starts_when_it_is_needed_where_early_starts_are_off_or_no_clip_is_missing(
    tiny: Tiny, judged: list[str]
) -> None:
    for again in (["judge.early_start=false"], []):
        with pytest.raises(BadInput, match="make judge"):
            play(tiny, *judged, *again)
        assert clips_made(tiny) == 3
        assert summaries(tiny.store)[-1]["verdict"].startswith("stage score did not finish")


def test_a_server_elsewhere_is_not_waited_for(tiny: Tiny, judged: list[str]) -> None:
    with pytest.raises(BadInput, match="does not answer"):
        play(tiny, *judged, "judge.url=http://127.0.0.1:9/v1", "judge.served_name=tiny", "judge.retries=0")
    assert clips_made(tiny) == 3
