"""A round whose judge cannot be had ends before its first clip, unless nobody needs to be asked any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.errors import UserError
from data.resources import shipped as files_shipped
from data.store import Store
from flows.config.load import load_recipe
from flows.config.resolve import open_round
from tasks.calibrate import warnings
from tasks.context import RESIDENTS, RoundContext
from tasks.stages import require_ready, run_stage
from tasks.units import Runner
from tests.rewards.judge.conftest import rubric, served, server, write_rubric  # noqa: F401  (fixtures)
from tests.tiny_round import Tiny, play
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)


def context(tiny: Tiny, *overrides: str) -> RoundContext:
    return open_round(
        load_recipe(str(tiny.recipe), list(overrides)), Store.open(tiny.store, create=True), "run"
    )


@pytest.fixture
def judged(tiny: Tiny, served: Callable[..., dict[str, Any]]) -> Tiny:
    recipe = yaml.safe_load(tiny.recipe.read_text()) | {"rewards": ["physics", "judge"], "feedback": "judge"}
    tiny.recipe.write_text(yaml.safe_dump(recipe | {"judge": served(venv="no/such/venv")}))
    return tiny


def test_without_the_servers_environment_no_clip_is_made(judged: Tiny) -> None:
    with pytest.raises(
        UserError, match=r"no environment with vLLM at no/such/venv.*make judge.*backend: local"
    ):
        play(judged, "judge.url=")
    assert not list(judged.store.glob("manifests/*/*"))


def test_a_server_that_runs_or_a_judge_in_process_needs_no_environment(judged: Tiny) -> None:
    require_ready(context(judged))
    require_ready(context(judged, "judge.url=", "judge.backend=local"))


def test_answers_that_are_in_the_store_need_no_judge(judged: Tiny) -> None:
    asked = context(judged)
    for stage in ("generate", "score"):
        run_stage(stage, asked, Runner())
    RESIDENTS.release()
    require_ready(context(judged, "judge.url="))
    with pytest.raises(UserError, match="no environment with vLLM"):
        require_ready(context(judged, "judge.url=", "generate.clips_per_prompt=4"))


def test_the_shipped_recipes_judge_comes_with_its_calibration(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    shipped = open_round(load_recipe("recipes/mini.yaml"), store, "run")
    assert shipped.feedback.name == "judge"
    assert shipped.evaluate.metric.name == "physics"
    assert warnings(shipped) == []
    assert f"judge-{shipped.feedback.version}.json" in files_shipped("calibrations")
