"""The documentation: its links lead somewhere, its example works."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import yaml

from flows.config.recipe import Recipe
from flows.config.reference import settings_page
from rewards import LoadedClip
from rewards.judge.rubric import load_rubric

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_of_the_repository_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


FRAGMENTS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL))
    if re.search(r"^(judge|videoscore|hpsv2|composite|rewards):", block, re.MULTILINE)
]


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_lines_for_a_recipe_fit_into_one(fragment: str) -> None:
    base = yaml.safe_load((ROOT / "recipes" / "mini.yaml").read_text("utf-8"))
    lines = yaml.safe_load(fragment.replace("<commit>", "0" * 40))
    rewards = [*lines.get("rewards", base["rewards"]), *base["rewards"]]
    recipe = Recipe.model_validate({**base, **lines, "rewards": list(dict.fromkeys(rewards))})
    assert load_rubric(recipe.judge.rubric).questions


def test_the_example_reward_scores_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "add-a-reward.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    module = types.ModuleType("brightness")
    monkeypatch.setitem(sys.modules, "brightness", module)  # dataclasses look their module up
    room = vars(module)
    exec(compile(code, "docs/add-a-reward.md", "exec", dont_inherit=True), room)

    def score(level: int, **settings: int) -> tuple[float | None, str | None]:
        clip = LoadedClip("c1", "a prompt", np.full((4, 8, 8, 3), level, np.uint8), 8.0)
        (judgement,) = room["BrightnessReward"](room["BrightnessSettings"](**settings)).score([clip])
        return judgement.value, judgement.error

    assert score(0) == (0.0, None)
    assert score(255)[0] == pytest.approx(1.0)
    assert score(255, skip=4) == (None, "no frame is left after skipping 4")
    versions = {room["brightness_version"](room["BrightnessSettings"](skip=skip)) for skip in (0, 1)}
    assert len(versions) == 2


VARIABLE = re.compile(r"\bVIDLOOP_[A-Z0-9_]*[A-Z0-9]\b")


def variables(*folders: str) -> set[str]:
    return {
        name
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for name in VARIABLE.findall(path.read_text("utf-8"))
    }


def test_every_environment_variable_is_on_its_page_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "environment.md").read_text("utf-8")
    program, compose, tests = re.split(r"^## .*$", page, flags=re.MULTILINE)[1:]

    def rows(section: str) -> set[str]:
        return set(VARIABLE.findall(" ".join(re.findall(r"^\| (`V[^|]*) \|", section, re.MULTILINE))))

    packages = ("vidloop", "flows", "tasks", "models", "rewards", "data", "miniature", "studies")
    assert rows(program) == variables(*packages)
    example = {name for name in VARIABLE.findall((ROOT / ".env.example").read_text("utf-8"))}
    assert rows(compose) == example - rows(program)
    made_up = {"VIDLOOP_NO_SUCH_KEY", "VIDLOOP_TEST_JUDGE_KEY"}
    assert rows(tests) == variables("tests", "benchmarks") - rows(program) - rows(compose) - made_up


def test_the_page_of_settings_is_what_the_models_say() -> None:
    held = (ROOT / "docs" / "reference" / "settings.md").read_text("utf-8")
    assert held == settings_page(), "make generated"
    assert "| `gate.confidence` | number" in held


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    named = set(re.findall(r"([\w./-]+\.md)$", text.split("\nnav:\n")[1], re.MULTILINE))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert named == pages | {"index.md", "contributing.md", "security.md", "changelog.md"}
