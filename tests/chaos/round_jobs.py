"""Jobs that are stages of a round, with real networks of a few thousand numbers."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from data.store import Store
from tests.chaos.file_jobs import Export
from tests.chaos.trial import Job, committed, not_collected, store_is_whole
from tests.tiny_round import HELDOUT, TRAIN, build_tiny_wan, tiny_settings, write_prompts

STAGES: Final = ("generate", "score", "curate", "finetune", "evaluate")
_RUN: Final = "a-round"


@cache
def made() -> Path:
    """A folder with a model, prompts, a recipe, and a store as it is before each stage; gone with the process."""
    import torch

    from data import device_lock

    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="vidloop-faults-"))
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder) if os.getpid() == owner else None)
    os.environ[device_lock.FOLDER] = str(folder / "locks")  # the devices of other processes are not ours
    build_tiny_wan(folder / "wan")
    write_prompts(folder / "train.jsonl", TRAIN[:2])
    write_prompts(folder / "heldout.jsonl", HELDOUT[:2])
    recipe: dict[str, Any] = tiny_settings(folder / "wan", folder)
    recipe["generate"] |= {"clips_per_prompt": 2, "steps": 1}
    recipe["finetune"] |= {"steps": 3, "checkpoint_every": 1}
    recipe["evaluate"] |= {"clips": 4}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    store = folder / "before generate"
    Store.open(store, create=True)
    for stage, following in zip(STAGES, (*STAGES[1:], "the end"), strict=True):
        after = folder / f"before {following}"
        copy(store, after)
        play_stage(stage, after, folder / "tiny.yaml")
        store = after
    return folder


def copy(store: Path, root: Path) -> None:
    """The same store at another place. Its files are shared: nothing writes into one but facts, which stay."""
    shutil.copytree(store, root, copy_function=os.link, ignore=shutil.ignore_patterns("runs", "locks"))


def play_stage(stage: str, root: Path, recipe: Path, *changes: str) -> None:
    """What `vidloop STAGE` does."""
    from flows.config.load import load_recipe
    from flows.config.resolve import open_round
    from flows.rounds.plain import plain_stage

    plain_stage(stage, open_round(load_recipe(str(recipe), changes), Store.open(root), _RUN))


def scrubbed(root: Path) -> list[str]:
    """What is damaged in a store, and set aside now."""
    from tasks.scrub import scrub

    return [one.path for one in scrub(Store.open(root).backend, heal=True)]


class Stage(Job):
    """One stage of a round, on a store that holds those before it."""

    def __init__(self, stage: str) -> None:
        self.name = stage  # type: ignore[misc]

    def ready(self) -> None:
        made()

    def before(self, root: Path) -> None:
        copy(made() / f"before {self.name}", root)

    def run(self, root: Path) -> None:
        play_stage(self.name, root, made() / "tiny.yaml")

    def kept(self, root: Path) -> dict[str, bytes]:
        return committed(root)

    def heal(self, root: Path) -> list[str]:
        return scrubbed(root)

    def check(self, root: Path) -> None:
        store_is_whole(root)

    def left(self, root: Path) -> list[str]:
        return not_collected(root)


class Round(Job):
    """A whole round with its page, in a store that is made for it."""

    name = "whole round"

    def ready(self) -> None:
        made()

    def run(self, root: Path) -> None:
        from flows.config.load import load_recipe
        from flows.rounds.plain import plain_round
        from flows.rounds.run_round import begin

        store = Store.open(root / "store", create=True)
        plain_round(begin(load_recipe(str(made() / "tiny.yaml")), store))

    def kept(self, root: Path) -> dict[str, bytes]:
        found = committed(root / "store")
        for path in sorted((root / "store" / "rounds").glob("*/summary.json")):
            found["verdict of the last round"] = _verdict(path)
        return found

    def heal(self, root: Path) -> list[str]:
        return scrubbed(root / "store")

    def check(self, root: Path) -> None:
        store_is_whole(root / "store")
        for path in (root / "store" / "rounds").glob("*/summary.json"):
            _verdict(path)

    def left(self, root: Path) -> list[str]:
        return not_collected(root / "store")


class RoundExport(Export):
    """The evidence of a round, as `vidloop report --bundle` writes it."""

    name = "bundle of a round"

    def ready(self) -> None:
        from flows.config.load import load_recipe
        from flows.rounds.plain import plain_round
        from flows.rounds.run_round import begin

        store = Store.open(made() / "before the end")
        if not list(store.root.glob("rounds/*/summary.json")):
            plain_round(begin(load_recipe(str(made() / "tiny.yaml")), store))

    def write(self, target: Path) -> None:
        from flows.reporting.bundle import write_bundle

        write_bundle(Store.open(made() / "before the end"), None, target)


def _verdict(summary: Path) -> bytes:
    from tasks.summary import RoundSummary

    found = RoundSummary.model_validate_json(summary.read_bytes())
    return found.model_dump_json(
        include={"verdict", "promoted", "primary", "guards", "policy_after"}
    ).encode()


JOBS: Final[tuple[Job, ...]] = (*(Stage(stage) for stage in STAGES), Round(), RoundExport())
