from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydantic import BaseModel

from data.errors import UserError
from flows.config.load import dump, load_recipe, resolve, shipped
from flows.config.recipe import Recipe
from flows.config.rewards import kind_of

GOOD = "name: x\nmodel: {family: wan, path: m}\nevaluate: {same_as_feedback: true}\n"


def load(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    (tmp_path / "r.yaml").write_text(text)
    return load_recipe(str(tmp_path / "r.yaml"), overrides)


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text, *overrides)
    return str(caught.value)


@pytest.mark.parametrize("path", shipped())
def test_shipped_recipes_load_and_survive_their_own_dump(path: str, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    assert load(tmp_path, dump(recipe)) == recipe


@pytest.mark.parametrize(
    ("name", "steps", "guidance", "shift", "size"),
    [
        ("wan2.1-1.3b", 50, (6.0, None), 8.0, (480, 832)),
        ("wan2.1-1.3b-judge", 50, (6.0, None), 8.0, (480, 832)),
        ("wan2.1-14b", 50, (5.0, None), 5.0, (480, 832)),
        ("wan2.2-t2v-a14b", 40, (4.0, 3.0), 12.0, (480, 832)),
        ("wan2.2-ti2v-5b", 50, (5.0, None), 5.0, (704, 1280)),
    ],
)
def test_wan_is_sampled_as_its_authors_sample(
    name: str, steps: int, guidance: tuple[float, float | None], shift: float, size: tuple[int, int]
) -> None:
    recipe = load_recipe(f"recipes/{name}.yaml")
    made = recipe.generate
    assert (made.steps, (made.guidance, made.guidance_2), (made.height, made.width)) == (
        steps,
        guidance,
        size,
    )
    assert made.flow_shift == recipe.finetune.shift == shift
    # sample_neg_prompt of Wan-Video/Wan2.1 at 9737cba and Wan2.2 at 42bf4cf, to the letter
    told = hashlib.sha256(made.negative_prompt.encode()).hexdigest()
    assert told == "ce96e0324e4b54ce4b6e867f669ca520952e1a34cc116543516b1897f0d3c47e"


@pytest.mark.parametrize("path", [path for path in shipped() if not path.startswith("recipes/mini")])
def test_a_real_model_is_examined_by_a_judge_that_sees_no_training_clip(path: str) -> None:
    recipe = load_recipe(path)
    assert (recipe.evaluate.metric, kind_of(recipe.reward("examiner"))) == ("examiner", "judge")
    assert "examiner" not in recipe.scored
    assert (recipe.evaluate.same_as_feedback, recipe.evaluate.flow_may_decide) == (False, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fintune: {steps: 3}", "fintune: unknown key; did you mean finetune?"),
        ("finetune: {stepps: 3}", "finetune.stepps: unknown key; did you mean finetune.steps?"),
        ("clips_per_prompt: 3", "clips_per_prompt: unknown key; did you mean generate.clips_per_prompt?"),
        (
            "generate: {video: {crff: 3}}",
            "generate.video.crff: unknown key; did you mean generate.video.crf?",
        ),
        ("zzz: 3", "zzz: unknown key; known here: name, seed"),
    ],
)
def test_unknown_key_names_file_and_nearest_key(tmp_path: Path, text: str, said: str) -> None:
    message = refused(tmp_path, GOOD + text)
    assert said in message
    assert "r.yaml" in message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "generate.clips_per_prompt=0",
            "generate.clips_per_prompt: Input should be greater than or equal to 1",
        ),
        ("generate.steps=0", "generate.steps"),
        ("generate.frames=0", "generate.frames"),
        ("finetune.steps=0", "finetune.steps"),
        ("finetune.lr=0", "finetune.lr: Input should be greater than 0, not 0"),
        ("finetune.lr=.nan", "finetune.lr: Input should be a finite number"),
        ("finetune.beta=.inf", "finetune.beta: Input should be a finite number"),
        ("evaluate.clips=0", "evaluate.clips"),
        ("seed=-1", "seed"),
        ("seed='7'", "seed: Input should be a valid integer, not '7'"),
        ("seed=1.0", "seed: Input should be a valid integer"),
        ("workers=true", "workers: Input should be a valid integer"),
        ("finetune.objective=ppo", "finetune.objective: it must be one of dpo, kto"),
        ("model.device=gpu", "model.device"),
        ("rewards=[]", "rewards"),
        ("rewards=[physics, physics]", "rewards names one twice"),
        ("feedback=clip", "learns from the reward 'clip', which `rewards` does not list"),
        ("evaluate.same_as_feedback=false", "a policy is not judged by its own teacher"),
        ("name=a/b", "name"),
        ("finetune", "expected key=value"),
        ("=3", "expected key=value"),
        ("seed.deep=3", "seed is a value, it has no keys"),
        ("seed=[1", "--set 'seed=[1'"),
    ],
)
def test_impossible_values_are_refused(tmp_path: Path, override: str, said: str) -> None:
    text = GOOD + "seed: 1\n"
    message = refused(tmp_path, text, override)
    assert said in message
    assert "--set" in message or "recipe" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected keys and values"),
        ("- a\n", "found a list"),
        ("name: [x", "line 1"),
        ("name: x\nname: y\n", "line 1: the key 'name' is given twice"),
        ("name: x\n", "model: this key is required"),
        ("name: !!python/object:os.system x\n", "could not determine a constructor"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_a_missing_study_names_the_studies_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r": recipes/study-mini\.yaml, recipes/study-search-mini\.yaml$"):
        load_recipe(str(tmp_path / "study-none.yaml"))


def test_missing_file_names_the_recipes_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No such file or directory.*recipes/mini\.yaml"):
        load_recipe(str(tmp_path / "none.yaml"))
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a text file"):
        load_recipe(str(tmp_path / "r.yaml"))


def test_set_parses_yaml_scalars_and_lists(tmp_path: Path) -> None:
    recipe = load(
        tmp_path, GOOD, "finetune.lr=1e-4", "generate.guidance=2", "evaluate.also=[dev, unseen]", "curate.accept_fraction=null",
        "policy=m12", "finetune.gradient_checkpointing=true",
    )  # fmt: skip
    assert recipe.finetune.lr == 1e-4
    # A whole number where a float belongs: 2 and 2.0 are one setting, and one key.
    assert type(recipe.generate.guidance) is float
    assert recipe.evaluate.also == ("dev", "unseen")
    assert (recipe.curate.accept_fraction, recipe.policy, recipe.finetune.gradient_checkpointing) == (
        None,
        "m12",
        True,
    )


def test_resolved_recipe_names_every_setting(tmp_path: Path) -> None:
    assert resolve(load(tmp_path, GOOD))["finetune"]["checkpoint_every"] == 50


def test_every_setting_says_what_it_is() -> None:
    def parts(model: type[BaseModel]) -> list[type[BaseModel]]:
        inner = [field.annotation for field in model.model_fields.values()]
        found = [kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)]
        return [model, *(part for kind in found for part in parts(kind))]

    for part in parts(Recipe):
        for name, field in part.model_fields.items():
            assert field.title, f"{part.__name__}.{name}"
            assert field.description, f"{part.__name__}.{name}"
