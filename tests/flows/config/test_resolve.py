from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from data import champion, keys
from data.errors import ConfigError, DataError, UserError
from data.records import Clip, Policy, Prompt
from data.store import Store
from flows.config.load import load_recipe
from flows.config.resolve import curation_of, open_round
from flows.rounds.dry_run import plan_lines
from models.families.settings import StepCacheSettings
from models.policy import policy_id
from tasks import generate
from tasks.context import PolicyRef, RoundContext
from tasks.jobs import evaluation_jobs, training_jobs
from tasks.policies import find_policy
from tasks.rounds import give_up
from tests.tiny_round import TRAIN, Tiny, begun, empty_adapter, write_prompts


@pytest.fixture
def prompts(make_prompt: Callable[..., Prompt]) -> list[Prompt]:
    return [make_prompt(f"prompt {number}") for number in range(10)]


def opened(tiny: Tiny, *overrides: str) -> RoundContext:
    return open_round(load_recipe(str(tiny.recipe), overrides), Store.open(tiny.store, create=True), "run")


def test_training_clips_come_in_prompt_order_each_with_its_own_seed(prompts: list[Prompt]) -> None:
    jobs = training_jobs(prompts, 3, seed=0)
    assert [job.prompt for job in jobs[:6]] == [prompts[0]] * 3 + [prompts[1]] * 3
    assert len({job.seed for job in jobs}) == 30
    # More clips a prompt, or more prompts, move no seed.
    assert set(jobs) <= set(training_jobs(prompts, 4, seed=0))
    assert set(training_jobs(prompts[3:4], 3, seed=0)) <= set(jobs)
    assert not set(jobs) & set(training_jobs(prompts, 3, seed=1))


def test_the_fast_mode_of_a_recipe_is_part_of_what_a_clip_is(tiny: Tiny) -> None:
    exact, fast = opened(tiny), opened(tiny, "generate.step_cache={interval: 3, warmup: 2}")
    assert exact.generation.sample.step_cache is None
    assert fast.generation.sample.step_cache == StepCacheSettings(interval=3, warmup=2, order=1)
    questions = [generate.units(context)[0].question for context in (exact, fast)]
    plain, cached = (question["sampling"]["sample"] for question in questions)
    assert cached == {**plain, "step_cache": {"interval": 3, "warmup": 2}}
    # where a model runs, and whether compiled, decides no clip
    compiled = opened(tiny, "model.compile=true")
    assert compiled.generation.model.compile is True
    assert generate.units(compiled)[0].question == questions[0]


def test_a_size_off_the_models_grid_is_refused_where_the_recipe_is_opened(tiny: Tiny) -> None:
    # before: after the model had been loaded, and a dry run called it fine
    with pytest.raises(UserError, match=r"generate\.frames is 18; this model needs 1 \+ a multiple of"):
        opened(tiny, "generate.frames=18")
    with pytest.raises(UserError, match=r"generate\.height is 72; this model needs a multiple of 16"):
        opened(tiny, "generate.height=72")


def test_the_sets_for_real_models_are_named_as_those_of_the_world(tiny: Tiny) -> None:
    context = opened(
        tiny, "generate.prompts=real-train", "generate.clips_per_prompt=1", "evaluate.prompts=real-heldout",
        "evaluate.clips=100", "evaluate.also=[]",
    )  # fmt: skip
    assert {job.prompt.split for job in context.jobs} == {"real-train"}
    assert context.evaluate.primary == "real-heldout"
    ((name, jobs),) = context.evaluate.jobs
    assert (name, len({job.prompt.prompt_id for job in jobs})) == ("real-heldout", 100)


def test_a_model_that_lacks_a_part_stops_a_round_before_any_work(tiny: Tiny, tmp_path: Path) -> None:
    model = Path(load_recipe(str(tiny.recipe)).model.path)
    broken = tmp_path / "broken"
    shutil.copytree(model, broken, ignore=shutil.ignore_patterns("text_encoder"))
    with pytest.raises(UserError, match="has no text_encoder"):
        opened(tiny, f"model.path={broken}")


@pytest.mark.parametrize("clips", [1, 3, 10, 11, 25, 40])
def test_evaluation_clips_are_spread_evenly(prompts: list[Prompt], clips: int) -> None:
    jobs = evaluation_jobs(prompts, clips, 0, "m1")
    count = Counter(job.prompt.prompt_id for job in jobs)
    assert len(jobs) == clips
    assert max(count.values()) - min(count.values(), default=0) <= 1
    assert len(count) == min(clips, 10)
    assert len({job.seed for job in jobs}) == clips
    if clips == 3:
        places = [prompts.index(job.prompt) for job in jobs]
        assert [b - a for a, b in pairwise(places)] == [3, 3]


def test_evaluation_seeds_are_fresh_for_every_new_champion(prompts: list[Prompt]) -> None:
    first = evaluation_jobs(prompts, 20, 0, "m1")
    assert evaluation_jobs(prompts, 20, 0, "m1") == first
    others = [
        evaluation_jobs(prompts, 20, 0, "m2"),
        evaluation_jobs(prompts, 20, 1, "m1"),
        training_jobs(prompts, 2, 0),
    ]
    for other in others:
        assert not {job.seed for job in other} & {job.seed for job in first}


@pytest.mark.parametrize(
    ("objective", "weight"),
    [("sft", "uniform"), ("dpo", "uniform"), ("rwr", "reward"), ("rwr-exp", "exp")],
)
def test_objective_chooses_the_weights_it_learns_from(tiny: Tiny, objective: str, weight: str) -> None:
    assert opened(tiny, f"finetune.objective={objective}").curate.weight == weight
    assert opened(tiny, f"finetune.objective={objective}", "curate.weight=uniform").curate.weight == "uniform"


def test_every_setting_of_the_recipe_reaches_the_room_it_is_meant_for(tiny: Tiny) -> None:
    context = opened(
        tiny, "seed=5", "generate.guidance=4", "generate.video.crf=9", "shaping.eta=2.0", "finetune.kl=0.5",
        "finetune.targets=[to_q]", "gate.limits.motion.low=0.7", "evaluate.also=[unseen]", "evaluate.also_clips=7",
    )  # fmt: skip
    assert context.generation.sample.guidance == 4.0
    assert context.generation.video.crf == 9
    assert (context.curate.eta, context.curate.seed) == (2.0, 5)
    assert (context.finetune.kl, context.finetune.targets, context.finetune.seed) == (0.5, ("to_q",), 5)
    assert context.evaluate.within["motion"] == (0.7, 1.1)
    assert [(name, len(jobs)) for name, jobs in context.evaluate.jobs] == [("heldout", 4), ("unseen", 7)]
    assert [measure.name for measure in context.evaluate.measures] == ["physics", "motion"]


def test_one_evaluation_set_twice_is_refused(tiny: Tiny) -> None:
    with pytest.raises(UserError, match=r"evaluate\.also names 'dev'"):
        opened(tiny, "evaluate.prompts=dev", "evaluate.also=[dev]")


def test_prompts_that_train_and_examine_are_refused_unless_the_recipe_says_so(tiny: Tiny) -> None:
    texts = ["a red ball falls", "Ein  Ball f\u00e4llt", "a wall", "a cup", "only here"]
    write_prompts(tiny.folder / "train.jsonl", [(text, "falling down") for text in texts[:4]])
    # other spellings of the same: case, a letter of two characters, white space
    spelt = ["A red\tball falls", "ein ball fa\u0308llt", "A WALL", "a cup", "only here"]
    shared, apart = tiny.folder / "shared.jsonl", "evaluate.also=[unseen]"
    write_prompts(shared, [(text, "falling down") for text in spelt])
    asks = f"evaluate.prompts={shared}", "evaluate.clips=5"
    with pytest.raises(ConfigError) as refused:
        opened(tiny, *asks, apart)
    assert str(refused.value).startswith(
        "evaluate.prompts (shared) shares 4 of its 5 prompts with those that train, generate.prompts: "
        f"{spelt[0]!r}, {spelt[1]!r}, {spelt[2]!r}, .... A policy"
    )
    assert "say evaluate.allow_training_prompts: true" in str(refused.value)
    with pytest.raises(ConfigError, match=r"evaluate\.also \(shared\) shares 4 of its 5"):
        opened(tiny, f"evaluate.also=[{shared}]", "evaluate.also_clips=5")
    with pytest.raises(ConfigError, match="shares 4 of its 5"):
        begun(tiny, *asks)
    assert not list(tiny.store.glob("rounds/*"))
    allowed = opened(tiny, *asks, "evaluate.allow_training_prompts=true")
    assert len(allowed.evaluate.jobs[0][1]) == 5
    # a prompt that no clip of this round is made of teaches nothing
    write_prompts(shared, [("only here", "falling down")])
    opened(tiny, *asks)


def test_prompts_of_an_earlier_round_that_is_learned_from_do_not_examine(tiny: Tiny) -> None:
    text, category = TRAIN[0]
    earlier = begun(tiny).run_id
    write_prompts(tiny.folder / "others.jsonl", [("another prompt", "falling down")])
    trains = f"generate.prompts={tiny.folder / 'others.jsonl'}"
    examines, learns = tiny.folder / "examines.jsonl", f"curate.include_rounds=[{earlier}]"
    write_prompts(examines, [(text.upper(), category), ("a cup", category)])
    opened(tiny, trains, f"evaluate.prompts={examines}")
    with pytest.raises(ConfigError, match=rf"shares 1 of its 2 .* curate\.include_rounds \({earlier}\): "):
        opened(tiny, trains, f"evaluate.prompts={examines}", learns)
    opened(tiny, trains, f"evaluate.prompts={examines}", learns, "evaluate.allow_training_prompts=true")


@pytest.mark.parametrize(
    "content", [None, b"", b'{"name": "tiny", "see', b'{"a": [1]}', b"\xff", b"[" * 5000]
)
def test_an_earlier_round_whose_recipe_is_damaged_is_known_by_its_summary(
    tiny: Tiny, content: bytes | None
) -> None:
    earlier = begun(tiny, "generate.clips_per_prompt=2", "seed=11")
    give_up(earlier, {}, "generate", DataError("for this test"))
    learns = f"curate.include_rounds=[{earlier.run_id}]"
    expected = opened(tiny, learns).earlier
    file = tiny.store / "rounds" / earlier.run_id / "recipe.json"
    file.unlink() if content is None else file.write_bytes(content)
    assert opened(tiny, learns).earlier == expected
    (file.parent / "summary.json").unlink()
    told = (
        f"how round {earlier.run_id} made its clips is not known: .* Leave it out, or play its recipe again"
    )
    gone = f"holds no round {earlier.run_id}"  # nothing of it is there
    with pytest.raises(ConfigError, match=f"(?s){gone if content is None else told}"):
        opened(tiny, learns)


@pytest.mark.parametrize(
    "where", ["lora.safetensors", "lora", "lora/pytorch_lora_weights.safetensors", "x" * 300]
)
def test_an_adapter_of_ones_own_is_no_policy_and_the_way_in_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora/pytorch_lora_weights.safetensors").write_bytes(empty_adapter("a"))
    told = "holds no such policy" if "x" in where else "fuse_lora, unload_lora_weights, save_pretrained"
    with pytest.raises(ConfigError, match=told):
        find_policy(Store.open(tmp_path / "store", create=True), str(tmp_path / where), "local-1")


def trained(tiny: Tiny, name: str, parent: str | None, clips: list[Clip] | None) -> None:
    """A policy that was trained on the clips of a shard; None: the store does not hold on which."""
    store = Store.open(tiny.store, create=True)
    base = opened(tiny).policy.base_id
    media = store.write_media(empty_adapter(base), ".safetensors")
    parents = [parent] if parent else []
    row = Policy(name, base, parents, "sft", "d", media.path, media.sha256, 2, 2.0, ["q"], 3, "{}", "[]")
    question = {"stage": "finetune", "name": name}
    made = store.commit("generate", {"stage": "generate", "name": name}, {"clips": clips}) if clips else None
    curated = store.commit("curate", {"stage": "curate", "name": name}, {"examples": []})
    learned = [curated.key, *([made.key] if made else ["0" * 64])]
    store.commit("finetune", question, {"policies": [row]}, [media], learned)


def test_prompts_that_taught_a_policy_before_do_not_examine(
    tiny: Tiny, make_clip: Callable[..., Clip]
) -> None:
    trained(tiny, "first", None, [make_clip("c1", prompt="A cup  falls"), make_clip("c2", prompt="a box")])
    trained(tiny, "second", "first", [make_clip("c3", prompt="a hat")])
    write_prompts(tiny.folder / "examines.jsonl", [("a cup falls", "falls"), ("a dog", "falls")])
    examines = f"evaluate.prompts={tiny.folder / 'examines.jsonl'}"
    opened(tiny, examines)  # the base was taught nothing
    for start in ("policy=first", "policy=second"):
        with pytest.raises(
            ConfigError, match=r"evaluate\.prompts \(examines\) shares 1 of its 2 .* policy first"
        ):
            opened(tiny, examines, start)
    with pytest.raises(ConfigError, match="policy first, which the round starts from or which that comes"):
        opened(tiny, f"evaluate.also=[{tiny.folder / 'examines.jsonl'}]", "policy=second")
    champion.promote(Store.open(tiny.store), "second", "round")
    with pytest.raises(ConfigError, match="'a cup falls'"):
        opened(tiny, examines, "policy=champion")
    allowed = opened(tiny, examines, "policy=second", "evaluate.allow_training_prompts=true")
    assert not allowed.untraced
    opened(tiny, "policy=second")


def test_what_the_store_does_not_hold_of_a_policys_training_is_said(
    tiny: Tiny, make_clip: Callable[..., Clip]
) -> None:
    trained(tiny, "lost", "of another store", None)
    trained(tiny, "second", "lost", [make_clip("c3", prompt="a hat")])
    context = opened(tiny, "policy=second")
    assert context.untraced == ("lost", "of another store")
    (told,) = [line for line in plan_lines(context) if "not known" in line]
    assert "does not hold what lost and of another store was trained on" in told


def test_policies_are_found_by_name_and_id(store: Store, tmp_path: Path) -> None:
    base = find_policy(store, "base", "local-1")
    assert (base.policy_id, base.adapter_path) == (policy_id("local-1"), "")
    # No champion yet: the base is the policy to beat.
    assert find_policy(store, "champion", "local-1") == base
    assert find_policy(store, base.policy_id, "local-1") == base

    media = store.write_media(b"weights", ".safetensors")
    row = Policy("m7", "local-1", [], "sft", "d1", media.path, media.sha256, 2, 2.0, ["to_q"], 3, "{}", "[]")
    store.commit("finetune", {"stage": "finetune"}, {"policies": [row]}, [media])
    champion.promote(store, "m7", "round")
    assert find_policy(store, "champion", "local-1").adapter_path == media.path
    with pytest.raises(UserError, match=r"'m8'.*base, champion, or one of: m7"):
        find_policy(store, "m8", "local-1")
    with pytest.raises(UserError, match=r"m7 was trained over base model local-1, the recipe's is local-2"):
        find_policy(store, "m7", "local-2")


def test_a_policy_is_found_under_what_earlier_versions_called_its_base(store: Store) -> None:
    """They counted files that no loader reads: a folder with such files has another id now."""
    media = store.write_media(b"weights", ".safetensors")
    row = Policy(
        "m7", "local-old", [], "sft", "d1", media.path, media.sha256, 2, 2.0, ["to_q"], 3, "{}", "[]"
    )
    store.commit("finetune", {"stage": "finetune"}, {"policies": [row]}, [media])
    champion.promote(store, "m7", "round")
    find = partial(find_policy, store, base="local-new", former=lambda: "local-old")
    assert (find("champion").base_id, find("m7").adapter_path) == ("local-old", media.path)
    assert find(policy_id("local-old")) == PolicyRef(policy_id("local-old"), "local-old")
    assert find("base").base_id == "local-new"
    with pytest.raises(UserError, match="was trained over base model local-old, the recipe's is local-new"):
        find_policy(store, "m7", "local-new", lambda: "local-other")


def test_a_round_and_its_plan_read_each_file_of_weights_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge's folder was read six times before the first clip; an 8B judge has 16 GB."""
    read: list[Path] = []
    digest = keys.file_digest
    monkeypatch.setattr(keys, "file_digest", lambda path: (read.append(Path(path)), digest(path))[1])
    keys._digest_of_version.cache_clear()
    recipe = load_recipe("recipes/mini.yaml", ["judge.backend=local"])
    context = open_round(recipe, Store.open(tmp_path / "store", create=True), "run")
    assert list(plan_lines(context))
    assert len(read) == len(set(read))
    # the policy's base, the judge, CLIP and RAFT
    assert len({path.parent for path in read}) >= 4, read
    read.clear()
    open_round(recipe, Store.open(tmp_path / "store"), "again")
    assert read == []


BINARY = "shaping={kind: binary}"


@pytest.mark.parametrize(
    "teacher",
    [
        ("feedback=sharpness",),
        ("feedback=flow", "rewards=[physics, flow]", "flow.model=tiny"),
        (
            "rewards=[physics, sharpness, flicker, composite]",
            "feedback=composite",
            "composite={components: {sharpness: {}, flicker: {worst: 1.0, best: 0.0}}}",
        ),
    ],
    ids=["sharpness", "flow", "composite"],
)
def test_a_reward_that_knows_no_pass_mark_is_not_thresholded_by_a_default(
    tiny: Tiny, teacher: tuple[str, ...]
) -> None:
    """Before: at 0.5, whatever its scale, so that 806 of 960 clips passed by CLIP's cosine, and all by flow."""
    half = ("shaping={kind: graded}", "curate={accept_fraction: 0.5}")
    said = load_recipe(str(tiny.recipe), (*teacher, BINARY, "curate={}"))
    with pytest.raises(
        ConfigError, match=r"nobody knows from which value a clip passes.*curate\.accept_fraction=0\.5"
    ):
        curation_of(said)
    # what the message says works, and so does a value
    graded = curation_of(load_recipe(str(tiny.recipe), (*teacher, *half)))
    assert (graded.kind, graded.threshold, graded.accept_fraction) == ("graded", None, 0.5)
    stated = load_recipe(str(tiny.recipe), (*teacher, "shaping={kind: binary, threshold: 0.3}"))
    assert curation_of(stated).threshold == 0.3


def test_the_oracle_knows_its_pass_mark(tiny: Tiny) -> None:
    said = load_recipe(str(tiny.recipe), ("feedback=physics", "evaluate.same_as_feedback=true", BINARY))
    assert curation_of(said).threshold == 0.5


def test_an_adapter_file_is_no_policy_and_the_message_says_how_to_start_from_one(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"Fuse it into the base model.*model\.path"):
        find_policy(store, str(tmp_path / "mine.safetensors"), "local-1")


def test_another_teacher_of_the_shipped_recipe_is_not_held_to_the_judges_pass_mark() -> None:
    """The first thing that anybody tries."""
    assert curation_of(load_recipe("mini")).threshold == 0.5
    with pytest.raises(ConfigError, match="nobody knows from which value a clip passes"):
        curation_of(load_recipe("mini", ["feedback=clip"]))
