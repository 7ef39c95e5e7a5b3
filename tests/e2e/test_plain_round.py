from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from data import champion
from data.errors import StageFailed, UserError
from data.keys import digest
from data.queries import run_query
from data.records import Score
from data.store import Store
from flows.rounds.plain import plain_round
from tasks import evaluate, fingerprints
from tests.chaos.damage import run
from tests.tiny_round import (
    HELDOUT,
    TRAIN,
    Tiny,
    begun,
    cached,
    committed,
    play,
    summaries,
    tiny_settings,
    write_prompts,
)

ALL_CACHED = {"generate": (3, 3), "score": (3, 3), "curate": (1, 1), "finetune": (1, 1), "evaluate": (5, 5)}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Tiny:
    """One round that the tests of this file look at and never change."""
    folder = tmp_path_factory.mktemp("played")
    write_prompts(folder / "train.jsonl", TRAIN)
    write_prompts(folder / "heldout.jsonl", HELDOUT)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_settings(tiny_model, folder)))
    tiny = Tiny(folder, folder / "store")
    play(tiny)
    return tiny


@pytest.fixture
def copy(played: Tiny, tmp_path: Path) -> Tiny:
    """The played store, to be damaged."""
    shutil.copytree(played.store, tmp_path / "store")
    return played.at(tmp_path / "store")


def test_summary_keeps_its_contract_with_scripts(played: Tiny) -> None:
    summary = summaries(played.store)[0]
    assert {
        "round", "recipe", "recipe_name", "feedback", "objective", "policy_before", "policy_after", "primary",
        "guards", "stages", "verdict", "promoted",
    } <= summary.keys()  # fmt: skip
    assert summary["primary"].keys() >= {"metric", "before", "after", "delta", "ci_low", "ci_high", "n"}
    assert summary["primary"]["n"] == 4
    assert summary["guards"].keys() == {"motion", "diversity"}
    for name, stage in summary["stages"].items():
        told = {"networks"} if name in ("generate", "finetune", "evaluate") else set()
        assert stage.keys() == {"key", "seconds", "shards", "cached_shards", "failed"} | told
        assert (stage["cached_shards"], stage["failed"]) == (0, 0)
        assert stage["shards"] >= 1
    assert summary["recipe"]["finetune"]["steps"] == 6
    assert summary["promoted"] is False
    assert "Not promoted" in summary["verdict"]


def test_every_row_of_the_walk_can_be_asked_for(played: Tiny) -> None:
    store = Store.open(played.store)

    def ask(sql: str) -> list[tuple]:
        return run_query(store, sql)[1]

    assert ask("SELECT split, policy_id = (SELECT policy_before FROM rounds), count(*) FROM clips GROUP BY ALL "
               "ORDER BY ALL") == [("custom", False, 4), ("custom", True, 13)]  # fmt: skip
    assert ask("SELECT reward, count(*) FROM scores JOIN clips USING (clip_id) WHERE status = 'ok' GROUP BY ALL "
               "ORDER BY ALL") == [("motion", 8), ("physics", 17), ("sharpness", 9)]  # fmt: skip
    assert ask("SELECT count(*) FROM examples") == [(9,)]
    assert ask("SELECT count(*) > 0 FROM pairs")[0] == (True,)
    assert ask("SELECT objective, rank, len(parents) FROM policies") == [("dpo-anchor", 2, 0)]
    assert ask("SELECT metric, count(*) FROM evaluations GROUP BY ALL ORDER BY ALL") == [
        ("diversity", 8), ("motion", 8), ("physics", 8),
    ]  # fmt: skip
    assert ask("SELECT count(*) FROM timings WHERE stage = 'generate'") == [(1,)]


def test_clips_of_both_policies_share_prompts_and_seeds_and_none_with_training(played: Tiny) -> None:
    rows = run_query(Store.open(played.store), "SELECT policy_id, prompt_id, seed FROM clips")[1]
    summary = summaries(played.store)[0]
    after = {(prompt, seed) for policy, prompt, seed in rows if policy == summary["policy_after"]}
    before = {(prompt, seed) for policy, prompt, seed in rows if policy == summary["policy_before"]}
    assert len(after) == 4
    assert after <= before
    assert len({seed for _, seed in before}) == 13


def test_second_round_finds_everything_and_changes_no_committed_byte(copy: Tiny) -> None:
    first = committed(copy.store)
    summary = play(copy)
    assert cached(summary) == ALL_CACHED
    assert committed(copy.store) == first
    assert len(summaries(copy.store)) == 2


def test_changing_only_the_objective_reuses_clips_and_scores(copy: Tiny) -> None:
    found = cached(play(copy, "finetune.objective=sft"))
    assert found == ALL_CACHED | {"finetune": (0, 1), "evaluate": (2, 5)}


def test_a_new_reward_scores_old_clips_and_leaves_other_scores_alone(copy: Tiny) -> None:
    before = committed(copy.store)
    found = cached(play(copy, "rewards=[physics, sharpness, flicker]"))
    assert found == ALL_CACHED | {"score": (0, 3)}
    after = committed(copy.store)
    assert before.items() <= after.items()
    assert {name.split("/")[1] for name in after.keys() - before.keys()} == {"score"}


def test_deleting_one_shard_recomputes_that_shard_alone(copy: Tiny) -> None:
    before = committed(copy.store)
    victim = sorted((copy.store / "manifests" / "score").iterdir())[0]
    victim.unlink()
    summary = play(copy)
    assert sum(all_ - cached_ for cached_, all_ in cached(summary).values()) == 1
    assert committed(copy.store) == before


@pytest.mark.parametrize("pattern", ["media/*/*.mp4", "media/*/*.safetensors", "parts/*/*/*/*.parquet"])
def test_a_flipped_byte_is_found_by_scrub_and_its_unit_is_made_again(copy: Tiny, pattern: str) -> None:
    """A repetition reads nothing of what is committed; what damage does that is read: tests/tasks/test_healing.py."""
    before = committed(copy.store)
    victim = sorted(copy.store.glob(pattern))[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    found = run("scrub", "--store", str(copy.store))
    assert found.code == 2
    assert victim.name in found.out + found.err
    assert run("scrub", "--heal", "--store", str(copy.store)).code == 0
    summary = play(copy)
    assert sum(all_ - cached_ for cached_, all_ in cached(summary).values()) == 1
    assert committed(copy.store) == before


def test_a_damaged_manifest_is_noticed_and_written_again(copy: Tiny) -> None:
    before = committed(copy.store)
    victim = sorted((copy.store / "manifests" / "generate").iterdir())[0]
    victim.write_text(victim.read_text()[:-40])
    assert sum(all_ - cached_ for cached_, all_ in cached(play(copy)).values()) == 1
    assert committed(copy.store) == before


def test_several_workers_give_the_same_bytes(played: Tiny, tmp_path) -> None:
    other = played.at(tmp_path / "store")
    play(other, "workers=3")
    assert committed(other.store) == committed(played.store)


def test_everything_accepted_leaves_dpo_nothing_to_learn(copy: Tiny) -> None:
    summary = play(copy, "shaping.kind=binary", "shaping.threshold=-1", "curate.accept_fraction=null")
    assert (summary["verdict"], summary["promoted"], summary["policy_after"]) == (
        "no training data",
        False,
        None,
    )
    assert "formed none" in summary["primary"]["reason"]
    assert all(stage["shards"] >= 1 for stage in summary["stages"].values())
    assert champion.read(Store.open(copy.store)) is None
    # Asked again, it is an answer like any other.
    again = play(copy, "shaping.kind=binary", "shaping.threshold=-1", "curate.accept_fraction=null")
    assert cached(again) == ALL_CACHED | {"evaluate": (1, 1)}


@pytest.mark.parametrize("objective", ["sft", "rwr", "dpo"])
def test_everything_rejected_leaves_nothing_to_learn(copy: Tiny, objective: str) -> None:
    summary = play(
        copy,
        "shaping.kind=binary",
        "shaping.threshold=1e9",
        "curate.accept_fraction=null",
        f"finetune.objective={objective}",
    )
    assert summary["verdict"] == "no training data"


def test_the_next_round_starts_from_a_champion_when_asked(copy: Tiny) -> None:
    store = Store.open(copy.store)
    learned = summaries(copy.store)[0]["policy_after"]
    champion.promote(store, learned, "by hand")
    summary = play(copy, "policy=champion")
    assert summary["policy_before"] == learned
    assert cached(summary)["generate"] == (0, 3)
    parents = run_query(store, f"SELECT parents FROM policies WHERE policy_id = '{summary['policy_after']}'")[
        1
    ]
    assert parents == [([learned],)]
    # Without being asked, a round starts from the recipe's base.
    assert cached(play(copy)) == ALL_CACHED


def judge_anew(tiny: Tiny, policy: str, reward: str, value: float) -> None:
    """Put other judgements of a policy's evaluation clips into the store: random weights obey no law."""
    context = begun(tiny)
    scoring = list(evaluate.phases(context))[1].units
    for shard in scoring:
        clips = context.store.read(shard.clips_key, "clips")
        if clips[0].policy_id != policy:
            continue
        ref = next(one for one in shard.rewards if one.name == reward)
        question = fingerprints.score(ref, shard.clips_digest)
        context.store.discard(digest(question))
        rows = [Score(clip.clip_id, reward, ref.version, value, "ok", None, "{}") for clip in clips]
        context.store.commit("score", question, {"scores": rows}, info={"clips": len(rows), "failed": 0})


def test_a_better_candidate_is_promoted_and_stays_so(copy: Tiny) -> None:
    learned = summaries(copy.store)[0]["policy_after"]
    judge_anew(copy, learned, "physics", 1.0)
    summary = play(copy)
    assert summary["promoted"] is True
    assert (summary["primary"]["before"], summary["primary"]["after"]) == (0.0, 1.0)
    assert 0 < summary["primary"]["ci_low"] < 1, "four prompts that agree are no certainty"
    assert summary["verdict"].startswith("Promoted: physics rose from 0.000 to 1.000")
    present = champion.read(Store.open(copy.store))
    assert (present.policy_id, present.round_id) == (learned, summary["round"])
    # A repeated round says the same and changes nothing.
    assert play(copy)["promoted"] is True
    assert champion.history(Store.open(copy.store)) == [present]


def test_a_better_candidate_that_stands_still_is_not_promoted(copy: Tiny) -> None:
    learned = summaries(copy.store)[0]["policy_after"]
    judge_anew(copy, learned, "physics", 1.0)
    judge_anew(copy, learned, "motion", 1e-6)
    summary = play(copy)
    assert summary["promoted"] is False
    assert summary["guards"]["motion"]["ok"] is False
    assert "motion is broken" in summary["verdict"]
    assert champion.read(Store.open(copy.store)) is None


def test_starting_at_a_later_stage_needs_the_earlier_ones(copy: Tiny) -> None:
    context = begun(copy)
    assert cached(plain_round(context, from_stage="finetune").model_dump()) == ALL_CACHED
    for manifest in (copy.store / "manifests" / "generate").iterdir():
        manifest.unlink()
    with pytest.raises(
        UserError, match=r"cannot start at finetune: the generate stage .* units, first: clips"
    ):
        plain_round(begun(copy), from_stage="finetune")


def test_too_many_failed_judgements_stop_the_round_and_are_kept(copy: Tiny) -> None:
    # No caption of the world, so the oracle can judge none of its clips.
    prompts = copy.folder / "strange.txt"
    prompts.write_text("a cat plays the piano\n")
    with pytest.raises(
        StageFailed, match=r"reward physics failed on 3 of 3 clips.*not a caption of the world"
    ):
        play(copy, f"generate.prompts={prompts}")
    summary = summaries(copy.store)[-1]
    assert summary["verdict"].startswith("stage score did not finish")
    assert summary["stages"]["score"]["failed"] == 1
    rows = run_query(
        Store.open(copy.store), "SELECT count(*) FROM scores WHERE status = 'failed' AND value IS NULL"
    )
    assert rows[1] == [(3,)]
    # With a higher limit it goes on, from what was judged.
    found = cached(play(copy, f"generate.prompts={prompts}", "score.max_failed_share=1.0"))
    assert found["score"] == (1, 1)


def test_a_cached_plain_round_imports_neither_torch_nor_prefect(copy: Tiny) -> None:
    code = (
        "import sys, flows.cli.main\n"
        f"sys.argv = ['vidloop', 'round', '--plain', *{copy.args()!r}]\n"
        "try:\n    flows.cli.main.run()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'prefect', 'diffusers', 'transformers', 'av', 'cv2', 'duckdb'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy.folder, env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert cached(json.loads(sorted(copy.store.glob("rounds/*/summary.json"))[-1].read_text())) == ALL_CACHED
