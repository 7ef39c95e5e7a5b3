"""Keys that were renamed: the former one works for one more release, and one line says so."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from data.errors import UserError
from flows.config.load import dump, load_recipe

FORMER = {
    "generate": {"only": ["p1"], "fast": {"interval": 3}},
    "curate": {"top_q": 0.5, "leave_out": ["k"], "rounds": ["20260101T000000-00000000"]},
    "improve": {"explore": 0.5},
}
PRESENT = {
    "generate.only": "generate.prompt_ids",
    "generate.fast": "generate.step_cache",
    "curate.top_q": "curate.accept_fraction",
    "curate.leave_out": "curate.exclude_categories",
    "curate.rounds": "curate.include_rounds",
    "improve.explore": "improve.explore_fraction",
}


def overrides(tree: dict[str, dict[str, object]]) -> list[str]:
    return [f"{part}.{key}={json.dumps(value)}" for part, keys in tree.items() for key, value in keys.items()]


def test_former_keys_of_set_work_and_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="vidloop"):
        recipe = load_recipe("mini", overrides(FORMER))
    assert recipe.generate.prompt_ids == ("p1",)
    assert recipe.generate.step_cache is not None
    assert recipe.generate.step_cache.interval == 3
    assert (recipe.curate.accept_fraction, recipe.curate.exclude_categories) == (0.5, ("k",))
    assert recipe.improve.explore_fraction == 0.5
    assert [record.getMessage() for record in caplog.records] == [
        f"{former} is now called {name}; the old name works for one more release"
        for former, name in PRESENT.items()
    ]


def test_former_keys_of_a_file_work_and_an_option_may_use_either(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = dump(load_recipe("mini"))
    for former, name in PRESENT.items():
        text = text.replace('"step_cache": null', '"step_cache": {"interval": 3}').replace(
            f'"{name.split(".")[1]}"', f'"{former.split(".")[1]}"'
        )
    path = tmp_path / "old.json"
    path.write_text(text)
    with caplog.at_level(logging.WARNING, logger="vidloop"):
        recipe = load_recipe(str(path), ["generate.fast.interval=4", "curate.accept_fraction=0.25"])
    assert recipe.generate.step_cache is not None
    assert recipe.generate.step_cache.interval == 4
    assert recipe.curate.accept_fraction == 0.25
    said = [record.getMessage() for record in caplog.records]
    assert all(any(line.startswith(f"{former} is now called") for line in said) for former in PRESENT)


def test_a_key_under_both_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "both.json"
    path.write_text(
        dump(load_recipe("mini")).replace('"accept_fraction": null', '"accept_fraction": null, "top_q": 0.5')
    )
    with pytest.raises(UserError, match="top_q and accept_fraction are one setting"):
        load_recipe(str(path))


@pytest.mark.parametrize("said", ["environment", "venv"])
@pytest.mark.parametrize(
    ("block", "place"),
    [
        ({"judge": {"environment": "/in/file"}}, "judge"),
        ({"rewards": {"physics": {}, "judge": {"environment": "/in/file"}}}, "judge"),
        (
            {"rewards": {"physics": {}, "teacher": {"kind": "judge", "environment": "/in/file"}}},
            "rewards.teacher",
        ),
        ({"rewards": {"physics": {}, "teacher": {"kind": "judge", "environment": "/in/file"}}}, "judge"),
    ],
    ids=["block", "instance", "named", "of all judges"],
)
def test_former_keys_of_a_reward_too(
    said: str, block: dict[str, object], place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever name the file uses, an option under either takes its place."""
    tree = json.loads(dump(load_recipe("mini")))
    path = tmp_path / "old.json"
    name = "teacher" if "teacher" in str(block) else "judge"
    path.write_text(json.dumps(tree | {"rewards": ["physics", "judge"], "feedback": name, **block}))
    with caplog.at_level(logging.WARNING, logger="vidloop"):
        assert load_recipe(str(path)).rewards[name].model_dump()["venv"] == "/in/file"
        recipe = load_recipe(str(path), [f"{place}.{said}=/in/option"])
    assert recipe.rewards[name].model_dump()["venv"] == "/in/option"
    assert any("environment is now called" in record.getMessage() for record in caplog.records)
