"""`--set`: a text is what was typed, to the letter; everything else is YAML."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from data.errors import UserError
from flows.config.load import dump, load_recipe, read_tree
from flows.rounds.forms import FORMS, overrides_of
from studies.recipe import Study

TEXTS = [
    "worst quality #1 blurry", "# all of it", "no", "off", "yes", "null", "~", "on", "true", "1:30", "012", "1e5", "2026-11-30",
    "", "blurry: low quality", "[bad], worse", "{bad", "a: {b: [c", "&a", "*a", "!!int 3", "!", "%", "@x", "`x`", "- a", "? a", "|", ">",
    "it's", '"bad"', "''", "'bad' and \"worse\"", "a\\nb", "a\nb", " a ", "x=y", "a,b", "\u65e5\u672c #2", "a\u2028b\x85c\ufeff", "---", "...",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_what_was_typed_and_stays_so_in_a_frozen_recipe(text: str, tmp_path: Path) -> None:
    recipe = load_recipe("mini", [f"generate.negative_prompt={text}", f"judge.served_name={text}"])
    assert recipe.generate.negative_prompt == text
    assert recipe.rewards["judge"].model_dump()["served_name"] == text
    frozen = tmp_path / "frozen.json"
    frozen.write_text(dump(recipe), encoding="utf-8")
    assert load_recipe(str(frozen)).generate.negative_prompt == text


@pytest.mark.parametrize("text", ["no", "012", "bad #1", "null", '"bad"'])
def test_a_form_says_the_same(text: str) -> None:
    given = {"generate": FORMS["generate"].model_validate({"prompts": text})}
    assert load_recipe("mini", overrides_of(given)).generate.prompts == text


@pytest.mark.parametrize("text", ["no", "012", "a: b #c", '"q"'])
@pytest.mark.parametrize("key", ["rewards.teacher.model", "teacher.model", "judge.model"])
def test_rewards_of_ones_own_have_texts_too(key: str, text: str, tmp_path: Path) -> None:
    tree = json.loads(dump(load_recipe("mini")))
    tree["rewards"] = {"physics": {}, "teacher": {"kind": "judge"}}
    tree["feedback"] = "teacher"
    tree["score"] = {}
    (tmp_path / "r.json").write_text(json.dumps(tree))
    assert (
        load_recipe(str(tmp_path / "r.json"), [f"{key}={text}"]).rewards["teacher"].model_dump()["model"]
        == text
    )


@pytest.mark.parametrize("text", ["no", "1:30", "worst #1", "a: b"])
def test_so_have_studies_and_what_they_change_of_their_recipe(text: str) -> None:
    keys = ("name", "recipe", "cell.generate.negative_prompt", "cell.judge.model", "feedbacks.clip.feedback")
    study = read_tree("study-mini", [f"{key}={text}" for key in keys], Study)
    assert (study["name"], study["recipe"]) == (text, text)
    assert study["cell"]["generate"]["negative_prompt"] == study["cell"]["judge"]["model"] == text
    assert study["feedbacks"]["clip"]["feedback"] == text
    changed = read_tree("study-mini", ["seeds=[010]", "cell.finetune.steps=050", "sweeps.noise=null"], Study)
    assert (changed["seeds"], changed["cell"]["finetune"]["steps"], changed["sweeps"]["noise"]) == (
        [10],
        50,
        None,
    )


@pytest.mark.parametrize("text", ["null", "~", ""])
def test_a_text_that_may_be_left_out_is_left_out(text: str) -> None:
    revision = ["model.revision=0123456"]
    assert load_recipe("mini", revision).model.revision == "0123456"
    assert load_recipe("mini", [*revision, f"model.revision={text}"]).model.revision is None
    assert load_recipe("mini", [f"clip.device={text}"]).rewards["clip"].model_dump()["device"] is None


def test_a_policy_is_a_text_or_a_part() -> None:
    assert load_recipe("mini", ["policy=12e4567"]).policy == "12e4567"
    assert load_recipe("mini", ["policy = champion"]).policy == "champion"
    best_of = load_recipe("mini", ["policy={best_of: 4, by: motion}", "policy.by=sharpness"]).best_of
    assert best_of is not None
    assert (best_of.best_of, best_of.by) == (4, "sharpness")


@pytest.mark.parametrize(
    ("option", "place", "value"),
    [
        ("seed=012", "seed", 12),
        ("finetune.steps=0o20", "finetune.steps", 16),
        ("finetune.lr=1e-5 # small", "finetune.lr", 1e-5),
        ("gate.drift={motion: 0.9}", "gate.drift.motion", 0.9),
        ("gate.drift.motion=.5", "gate.drift.motion", 0.5),
        ("shaping.threshold=auto", "shaping.threshold", "auto"),
        ("shaping.threshold=00.25", "shaping.threshold", 0.25),
        ("model.compile=yes", "model.compile", True),
        ("finetune.gradient_checkpointing=on", "finetune.gradient_checkpointing", True),
        ("evaluate.also=[dev, '012', \"no\"]", "evaluate.also", ("dev", "012", "no")),
        ("curate={top_q: 0.5}", "curate.accept_fraction", 0.5),
    ],
)
def test_everything_else_is_yaml(option: str, place: str, value: object) -> None:
    found: Any = load_recipe("mini", [option])
    for name in place.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("seed=1:30", "--set seed: Input should be a valid integer, not '1:30'"),
        ("finetune.steps=1_000", "--set finetune.steps: Input should be a valid integer, not '1_000'"),
        ("seed=2026-11-30", "--set seed: Input should be a valid integer"),
        ("seed=" + "9" * 100_000, "a whole number of 100000 characters"),
        ("seed=" + "9" * 39, "--set seed: Input should be less than"),
        ("evaluate.also=" + "[" * 100_000, "parts inside one another"),
        ("gate={limits: &a [*a]}", "stands inside of what it stands for"),
        ("rewards=[012, 0o7]", "'12' is no name"),
        ("generate.negative_prompt=a\x00b", "the character U+0000"),
        ("generate.negative_prompt=a\udcffb", "the character U+DCFF"),
        ("generate.negative_prompt=" + "x" * 1_000_000, "longer than 262144 characters"),
        ("a." * 50_000 + "b=1", "a key of 50001 parts"),
        ("rewards.mine.kind=[judge]", "rewards.mine: say which kind of reward it is"),
        ("rewards.mine={kind: {judge: 1}}", "rewards.mine: say which kind of reward it is"),
        ("rewards=[[" + "a," * 50_000 + "]]", "is no name"),
    ],
)
def test_what_is_no_value_is_told_in_few_words(option: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("mini", [option])
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1_500


def test_of_many_errors_the_first_are_listed(tmp_path: Path) -> None:
    text = dump(load_recipe("mini"))[:-2] + "".join(f', "k{one}": 1' for one in range(5_000)) + "}"
    (tmp_path / "many.json").write_text(text)
    with pytest.raises(UserError, match=r"\nand 4980 more$") as caught:
        load_recipe(str(tmp_path / "many.json"))
    assert str(caught.value).count("unknown key") == 20


@pytest.mark.parametrize("text", ["'012'", '"no"', "''"])
def test_quotes_that_a_text_keeps_are_told(text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="vidloop"):
        load_recipe(
            "mini", [f"generate.negative_prompt={text}", "generate.prompts=it's", "evaluate.also=['dev']"]
        )
    assert [record.getMessage() for record in caplog.records] == [
        f"--set {f'generate.negative_prompt={text}'!r}: the quotes are part of the text; "
        "without them it is what stands inside"
    ]
