"""docs/add-a-reward.md is true: its files, put where the page says and nothing else, are a reward that teaches."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.doc_files import Copy, copy_with
from tests.tiny_round import Tiny, summaries, tiny, tiny_model  # noqa: F401  (fixtures)

PAGE = "docs/add-a-reward.md"
SCORE = """
import json, sys
import numpy as np
from rewards import LoadedClip, build_reward, reward_version
def said(level, **settings):
    clip = LoadedClip("c1", "a prompt", np.full((4, 8, 8, 3), level, np.uint8), 8.0)
    (one,) = build_reward("brightness", settings).score([clip])
    return [one.value, one.error]
print(json.dumps([said(0), said(255), said(255, skip=4),
                  reward_version("brightness") != reward_version("brightness", {"skip": 1})]))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return copy_with(PAGE, tmp_path_factory.mktemp("tree") / "checkout")


def test_the_page_holds_the_reward_and_a_recipe(tree: Copy) -> None:
    assert tree.files == ("rewards/brightness.py", "recipes/bright.yaml")


def test_the_reward_scores_and_its_version_follows_its_setting(tree: Copy) -> None:
    black, white, none, differs = json.loads(tree.run("-c", SCORE))
    assert black == [0.0, None]
    assert white == [pytest.approx(1.0), None]
    assert none == [None, "no frame is left after skipping 4"]
    assert differs is True


def test_the_recipe_of_the_page_is_one_and_set_reaches_the_setting(tree: Copy) -> None:
    said = yaml.safe_load(
        tree.vidloop("plan", "--recipe", "bright", "--resolved", "--set", "brightness.skip=3", "--store", "s")
    )
    assert said["rewards"]["brightness"] == {"kind": "brightness", "skip": 3}


@pytest.mark.slow
def test_it_teaches_a_round(tree: Copy, tiny: Tiny) -> None:
    said = yaml.safe_load(tiny.recipe.read_text())
    said |= {"rewards": ["physics", "brightness"], "feedback": "brightness", "brightness": {"skip": 2}}
    tiny.recipe.write_text(yaml.safe_dump(said))
    tree.vidloop("round", "--plain", *tiny.args("--set", "finetune.steps=2"))
    (summary,) = summaries(tiny.store)
    assert summary["feedback"] == "brightness"
    assert summary["rewards"]["brightness"]["kind"] == "brightness"
    assert summary["policy_after"] != summary["policy_before"]
    rows = json.loads(
        tree.vidloop(
            "query", "SELECT value, detail FROM scores WHERE reward = 'brightness'",
            "--format", "json", "--store", tiny.store,
        )
    )  # fmt: skip
    assert len(rows) == 9
    assert {json.loads(row["detail"])["frames"] for row in rows} == {7}, "two of nine frames are skipped"
    assert all(0 < row["value"] < 1 for row in rows)
    curated = json.loads(
        tree.vidloop("query", "SELECT count(*) AS n FROM pairs", "--format", "json", "--store", tiny.store)
    )
    assert curated[0]["n"] > 0
