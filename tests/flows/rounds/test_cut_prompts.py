"""Prompts that a text encoder cuts are said before clips are made of what is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

from data.queries import run_query
from data.records import prompt_id
from data.store import Store
from flows.reporting import console
from flows.rounds.dry_run import plan_lines
from flows.rounds.plain import plain_stage
from tests.miniature_rewards import CLIP
from tests.tiny_round import Tiny, begun

LONG = "a red ball " * 8 + "falls down"
SHORT = "a red ball falls down"


@pytest.fixture
def long(tiny: Tiny) -> Tiny:
    """One of two prompts has 27 tokens with the end; the model reads 16, the CLIP of the miniature 20."""
    recipe = yaml.safe_load(tiny.recipe.read_text())
    (tiny.folder / "long.txt").write_text(f"{LONG}\n{SHORT}\n")
    recipe["generate"] |= {"prompts": str(tiny.folder / "long.txt"), "clips_per_prompt": 1}
    recipe["rewards"] = {"clip": CLIP, "sharpness": {}, "physics": {}}
    recipe["score"] = {"rewards": ["clip", "sharpness"]}
    tiny.recipe.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return tiny


def warnings(lines: list[str]) -> list[str]:
    return [line.strip().removeprefix("warning: ") for line in lines if "warning:" in line]


def test_a_plan_names_the_prompts_that_are_cut(long: Tiny) -> None:
    context = begun(long)
    assert warnings(list(plan_lines(context))) == [
        "generate: the model's text encoder reads 16 tokens of a prompt (generate.max_sequence_length) and "
        f"cuts 1 of 3: {prompt_id(LONG)} has 27",
        f"score: reward clip reads 20 tokens of a prompt and cuts 1 of 2: {prompt_id(LONG)} has 27",
    ]
    roomy = "generate.max_sequence_length=27"
    assert not warnings(list(plan_lines(begun(long, roomy, "score.rewards=[sharpness]"))))
    # Without guidance nobody reads the negative prompt.
    alone, _ = warnings(list(plan_lines(begun(long, "generate.guidance=1.0"))))
    assert "cuts 1 of 2" in alone


def test_the_prompts_that_examine_and_the_negative_one_are_looked_at(long: Tiny) -> None:
    (long.folder / "held.txt").write_text(LONG.replace("red", "blue") + "\na blue ball falls down\n")
    held = [f"evaluate.prompts={long.folder / 'held.txt'}", "evaluate.metric=clip"]
    negative = f"generate.negative_prompt={'blurred ' * 20}"
    found = warnings(list(plan_lines(begun(long, *held, negative))))
    assert [line.partition(":")[0] for line in found] == ["generate", "score", "evaluate", "evaluate"]
    assert "the negative prompt has 21" in found[0]
    assert "reward clip reads 20 tokens of a prompt and cuts 1 of 2" in found[3]


def test_a_plan_loads_no_network_for_it(long: Tiny) -> None:
    assert list(plan_lines(begun(long)))  # once on a machine it looks whether weights fill their networks
    code = (
        "import sys, flows.cli.main\n"
        f"sys.argv = ['vidloop', 'plan', *{long.args()!r}]\n"
        "try:\n    flows.cli.main.run()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert not {'torch', 'transformers', 'open_clip'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=long.folder, env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "cuts 1 of 3" in done.stdout


def test_a_tokenizer_that_cannot_be_read_leaves_it_unknown(long: Tiny) -> None:
    import shutil

    from flows.config.load import load_recipe

    model = long.folder / "copy"
    shutil.copytree(load_recipe(str(long.recipe)).model.path, model)
    (model / "tokenizer" / "tokenizer.json").write_text("{}")
    found = warnings(list(plan_lines(begun(long, f"model.path={model}"))))
    assert (
        "whether the model's text encoder cuts prompts is not known: its tokenizer cannot be read" in found[0]
    )


def test_the_stages_say_it_once_and_the_scores_keep_it(long: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(console, "_chosen", [console.ProgressReporter(lines.append)])
    context = begun(long, "generate.batch_size=1")
    plain_stage("generate", context)
    assert len(warnings(lines)) == 1
    assert "cuts 1 of 3" in warnings(lines)[0]
    plain_stage("score", context)
    assert warnings(lines)[1:] == [
        f"reward clip reads 20 tokens of a prompt and cuts 1 of 2: {prompt_id(LONG)} has 27"
    ]
    plain_stage("generate", context)  # what is there already is not computed, and nothing is said of it
    assert len(warnings(lines)) == 2
    rows = run_query(
        Store.open(long.store),
        "SELECT c.prompt, s.detail FROM scores s JOIN clips c USING (clip_id) WHERE s.reward = 'clip'",
    )[1]
    detail = {prompt: json.loads(told) for prompt, told in rows}
    cut = detail[LONG]
    assert (cut["prompt_tokens"], cut["prompt_limit"]) == (27, 20)
    assert "prompt_tokens" not in detail[SHORT]
    facts = [
        json.loads(line)
        for line in context.store.path(f"runs/{context.run_id}.jsonl").read_text().splitlines()
    ]
    assert [fact["text"].partition(":")[0] for fact in facts if fact.get("event") == "warning"] == [
        "generate",
        "score",
    ]
