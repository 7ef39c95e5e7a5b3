"""kill -9 in every stage, then the same command: it finishes, and every committed byte is as if nothing had been."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from data.lineage import parents
from data.store import Store
from tests.tiny_round import (
    HELDOUT,
    TRAIN,
    Ended,
    Tiny,
    cached,
    committed,
    play,
    tiny_settings,
    write_prompts,
)

STAGES = ["generate", "score", "curate", "finetune", "evaluate"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Tiny:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_prompts(folder / "train.jsonl", TRAIN)
    write_prompts(folder / "heldout.jsonl", HELDOUT)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_settings(tiny_model, folder)))
    tiny = Tiny(folder, folder / "store")
    play(tiny)
    return tiny


def before(stage: str, whole: Tiny, folder: Path) -> Tiny:
    """A copy of the store as it was before `stage` began."""
    shutil.copytree(whole.store, folder / "store")
    cut = whole.at(folder / "store")
    bodies = {path: json.loads(path.read_text()) for path in (cut.store / "manifests").glob("*/*.json")}
    # Clips and scores of the evaluation stand among those of the first two stages.
    store = Store.open(cut.store)
    late = {key for manifest in store.manifests("evaluate") for key in parents(store, manifest)}
    kept = set()
    for path, body in bodies.items():
        if STAGES.index(body["stage"]) >= STAGES.index(stage) or body["key"] in late:
            path.unlink()
        else:
            kept |= {item["path"] for item in body["parts"] + body["media"]}
    for path in [*(cut.store / "parts").rglob("*.parquet"), *(cut.store / "media").rglob("*.*")]:
        if path.relative_to(cut.store).as_posix() not in kept:
            path.unlink()
    return cut


def kill(
    stage: str, point: str, whole: Tiny, folder: Path, vidloop: Callable[..., Ended], *how: str
) -> tuple[Tiny, int]:
    """Let the process die at `point`; the store, and how many manifests it had then."""
    cut = before(stage, whole, folder)
    assert committed(cut.store) != committed(whole.store)
    ended = vidloop("round", *how, *cut.args(), VIDLOOP_FAILPOINT=point, VIDLOOP_FAILPOINT_ACTION="kill")
    assert ended.code == -signal.SIGKILL, ended.err
    return cut, len(list((cut.store / "manifests").glob("*/*.json")))


def recovers(cut: Tiny, whole: Tiny, held: int) -> None:
    """The same command finishes, computes nothing again that was committed, and gives the same bytes."""
    summary = play(cut)
    manifests = len(list((cut.store / "manifests").glob("*/*.json")))
    computed = sum(all_ - found for found, all_ in cached(summary).values())
    # A unit of the score stage commits one manifest a reward, so there are at least as many manifests as units.
    assert computed <= manifests - held
    assert committed(cut.store) == committed(whole.store)


def test_killed_while_scoring(undisturbed: Tiny, tmp_path: Path, vidloop: Callable[..., Ended]) -> None:
    # Writes: the recipe, part and manifest of the first reward, and half of the second reward's part.
    cut, held = kill("score", "store.mid_write:4", undisturbed, tmp_path, vidloop, "--plain")
    assert len(list((cut.store / "manifests" / "score").iterdir())) == 1
    recovers(cut, undisturbed, held)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "point"),
    [
        ("generate", "store.mid_write:2"),
        ("generate", "store.after_media:7"),
        ("generate", "store.after_part:4"),
        ("generate", "store.before_manifest:2"),
        ("generate", "store.after_manifest:2"),
        ("score", "store.after_part:4"),
        ("score", "store.before_manifest:5"),
        ("curate", "store.after_part:1"),
        ("curate", "store.before_manifest:1"),
        ("finetune", "finetune.after_checkpoint:1"),
        ("finetune", "finetune.after_checkpoint:2"),
        ("finetune", "store.after_media:1"),
        ("finetune", "store.after_manifest:1"),
        ("evaluate", "store.after_media:2"),
        ("evaluate", "store.after_manifest:3"),
        ("evaluate", "store.before_manifest:7"),
    ],
)
def test_killed(
    stage: str, point: str, undisturbed: Tiny, tmp_path: Path, vidloop: Callable[..., Ended]
) -> None:
    cut, held = kill(stage, point, undisturbed, tmp_path, vidloop, "--plain")
    recovers(cut, undisturbed, held)


@pytest.mark.slow
def test_checkpoints_go_when_the_adapter_is_safe(
    undisturbed: Tiny, tmp_path: Path, vidloop: Callable[..., Ended]
) -> None:
    cut, held = kill("finetune", "finetune.after_checkpoint:1", undisturbed, tmp_path, vidloop, "--plain")
    assert any((cut.store / "scratch").rglob("*.checkpoint"))
    recovers(cut, undisturbed, held)
    assert not any((cut.store / "scratch").rglob("*.checkpoint"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_killed_under_prefect(
    stage: str, undisturbed: Tiny, tmp_path: Path, vidloop: Callable[..., Ended]
) -> None:
    cut, held = kill(stage, "store.before_manifest:1", undisturbed, tmp_path, vidloop)
    recovers(cut, undisturbed, held)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_killed_twice_in_a_row(
    stage: str, undisturbed: Tiny, tmp_path: Path, vidloop: Callable[..., Ended]
) -> None:
    cut, _ = kill(stage, "store.mid_write:2", undisturbed, tmp_path, vidloop, "--plain")
    point = {"VIDLOOP_FAILPOINT": "store.before_manifest:1", "VIDLOOP_FAILPOINT_ACTION": "kill"}
    assert vidloop("round", "--plain", *cut.args(), **point).code == -signal.SIGKILL
    recovers(cut, undisturbed, len(list((cut.store / "manifests").glob("*/*.json"))))
