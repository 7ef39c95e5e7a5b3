"""A round of the miniature taught on imported clips: what one store made, and another only has as files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data.queries import run_query
from data.store import Store
from miniature.world.prompts import prompt_set
from tests.tiny_round import Ended, summaries

SMALL = (
    "rewards=[physics]", "feedback=oracle", "evaluate.same_as_feedback=true", "evaluate.clips=10", "evaluate.also=[]",
    "evaluate.guards=[motion]", "finetune.steps=4", "finetune.batch_size=4", "finetune.micro_batch=4", "generate.clips_per_prompt=6",
)  # fmt: skip


@pytest.mark.slow
def test_a_round_of_the_miniature_learns_from_files(tmp_path: Path, vidloop: Callable[..., Ended]) -> None:
    prompts = [{"text": one.text, "category": one.category} for one in prompt_set("train")[::24]]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(one) + "\n" for one in prompts))
    chosen = [
        word for one in (*SMALL, f"generate.prompts={tmp_path / 'few.jsonl'}") for word in ("--set", one)
    ]
    made = vidloop("generate", "--plain", "--store", tmp_path / "theirs", *chosen, limit_s=1200)
    assert made.code == 0, made.err
    theirs = Store.open(tmp_path / "theirs")
    (tmp_path / "files").mkdir()
    with open(tmp_path / "files/clips.csv", "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "prompt", "category"])
        for clip, prompt, category, path in run_query(
            theirs, "FROM clips SELECT clip_id, prompt, category, video_path"
        )[1]:
            (tmp_path / f"files/{clip}.mp4").write_bytes(theirs.read_media(path))
            lines.writerow([f"{clip}.mp4", prompt, category])
    store = tmp_path / "ours"
    done = vidloop("import", "clips", tmp_path / "files", "--name", "theirs", "--recipe", "recipes/mini.yaml",
                   "--store", store)  # fmt: skip
    assert f"Set theirs: {6 * len(prompts)} clips" in done.out, done.err
    ended = vidloop(
        "round", "--plain", "--store", store, *chosen, "--set", "clips.imported=theirs", limit_s=1200
    )
    assert ended.code == 0, ended.err
    (summary,) = summaries(store)
    assert summary["policy_after"] is not None
    assert summary["primary"]["n"] == 10
    assert (store / "rounds" / summary["round"] / "report.html").exists()
    opened = Store.open(store)
    taught = (
        "FROM pairs JOIN clips ON chosen = clip_id SELECT count(*), count(*) FILTER (policy_id = 'imported')"
    )
    ((pairs, of_them),) = run_query(opened, taught)[1]
    assert pairs == of_them > 0
    assert run_query(opened, "FROM latents SELECT count(*)")[1] == [(6 * len(prompts),)]
