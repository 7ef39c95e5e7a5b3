"""What is damaged and keeps its size is met by the unit that reads it; the same command goes on without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer.testing

import flows.cli.round
from data.store import Damaged, Store
from flows.cli.app import app
from flows.rounds.plain import plain_round
from tests.tiny_round import Tiny, begun, committed, play, summaries

COMMANDS = (flows.cli.round,)
MET = "everything that this round rests on is hashed"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    path.write_bytes(content)


# What of the first shard, or of the candidate, is changed; and the stages that have to be computed again for other
# reasons, and so read it.
READ: dict[str, tuple[str, ...]] = {
    "video_path": ("score",),
    "latent_path": ("finetune",),
    "adapter_path": ("generate", "evaluate"),
    "clips": ("score",),
    "scores": ("curate",),
    "examples": ("finetune",),
}


def harm(what: str, tiny: Tiny) -> Path:
    """Change one file of the round, and forget what was made of it; returns its path."""
    store, (summary,) = Store.open(tiny.store), summaries(tiny.store)
    policy = store.read(summary["stages"]["finetune"]["key"], "policies")[0]
    shard = next(one for one in store.manifests("generate") if one.question["policy"] != policy.policy_id)
    scored = next(one for one in store.manifests("score") if one.parents == (shard.key,))
    held = {"clips": shard.key, "examples": summary["stages"]["curate"]["key"], "scores": scored.key}
    if what in held:
        manifest = store.manifest(held[what])
        assert manifest is not None
        path = store.path(manifest.part(what).path)
    else:
        row = policy if what == "adapter_path" else store.read(shard.key, "clips")[0]
        path = store.path(getattr(row, what))
    flip(path)
    for stage in READ[what]:
        for manifest in store.manifests(stage):
            if stage != "generate" or manifest.question["policy"] == policy.policy_id:
                store.discard(manifest.key)
    return path


@pytest.mark.parametrize("what", READ)
def test_the_round_that_reads_it_sets_it_aside_and_goes_on(
    what: str, copied: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    before = committed(copied.store)
    path = harm(what, copied)
    changed = path.read_bytes()
    play(copied)
    assert MET in caplog.text
    assert committed(copied.store) == before
    assert (copied.store / "aside" / path.relative_to(copied.store)).read_bytes() == changed


def test_a_start_reads_nothing_of_what_is_committed(copied: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    for path in copied.store.glob("media/*/*"):
        flip(path)
    assert all(stage["cached_shards"] == stage["shards"] for stage in play(copied)["stages"].values())
    assert MET not in caplog.text


def test_a_stage_alone_names_the_command_where_an_earlier_stage_made_it(copied: Tiny) -> None:
    harm("video_path", copied)

    def run(stage: str) -> typer.testing.Result:
        return typer.testing.CliRunner().invoke(app, [stage, *copied.args("--plain")])

    refused = run("score")
    assert refused.exit_code == 2
    assert "Run `vidloop generate` with the same recipe" in " ".join(refused.output.split())
    assert run("generate").exit_code == 0
    assert run("score").exit_code == 0


def test_a_file_that_is_damaged_as_often_as_it_is_made_ends_the_round(
    copied: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = harm("video_path", copied)
    write = Store.write_media

    def rot(store: Store, data: bytes, suffix: str) -> object:
        media = write(store, data, suffix)
        if store.path(media.path) == path:
            os.chmod(path, 0o644)
            flip(path)
        return media

    monkeypatch.setattr(Store, "write_media", rot)
    with pytest.raises(Damaged, match=f"{path.name} was changed after it was written.*vidloop scrub --heal"):
        plain_round(begun(copied))
