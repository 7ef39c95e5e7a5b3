"""Jobs that write all kinds of durable files, and load no network."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from data import champion
from data.errors import ConfigError
from data.keys import bytes_digest
from data.records import Prompt, Score
from data.store import Store, gc
from tasks.units import OneAnswer, Runner
from tests.chaos.trial import Job, committed, not_collected, store_is_whole


@dataclass(frozen=True)
class Scored(OneAnswer):
    """A unit with every kind of write: media that it shares with its neighbour, two tables, a manifest."""

    root: Path
    number: int
    label: str = "a unit"
    task: ClassVar[str] = "score-shard"

    @cached_property
    def question(self) -> dict[str, Any]:
        return {"stage": "score", "version": 1, "number": self.number}

    def run(self) -> None:
        store = Store.open(self.root)
        lot = random.Random(self.number // 2)
        media = [
            store.write_media(lot.randbytes(3000), "mp4"),
            store.write_media(b"latent %d " % self.number * 300, "safetensors"),
        ]
        prompts = [Prompt(f"p{i}", f"text {i}", "falling down", "", "train", "t") for i in range(5)]
        scores = [Score(f"c{i}", "clip", "v1", i / 7, "ok", None, "{}") for i in range(5)]
        tables = {"scores": scores, "prompts": prompts}
        store.commit("score", self.question, tables, media, info={"failed": 0})


class Units(Job):
    """Three units into a store that is made for them, and a round's summary."""

    name = "store"
    lies = True
    units = 3

    def run(self, root: Path) -> None:
        store = Store.open(root, create=True)
        Runner()(store, "score", [Scored(root, number) for number in range(self.units)])
        store.write_file("rounds/a-round/summary.json", b'{"round": "a-round"}\n')

    def kept(self, root: Path) -> dict[str, bytes]:
        return committed(root, ("format.json", "rounds/a-round/summary.json"))

    def check(self, root: Path) -> None:
        store_is_whole(root)

    def left(self, root: Path) -> list[str]:
        return not_collected(root)


class Repair(Units):
    """A store with garbage and a damaged unit: it is collected, computed anew, and collected again."""

    name = "collector"
    promises = False  # a power cut may bring garbage back, which the next collection takes

    def before(self, root: Path) -> None:
        super().before(root)
        super().run(root)
        store = Store.open(root)
        store.write_media(b"nobody names it", "mp4")
        (first, *_) = store.manifests()
        path = store.path(first.parts[0].path)
        path.write_bytes(path.read_bytes()[:-7] + b"damaged")
        (store.root / "tmp" / "abandoned.tmp").write_bytes(b"half a fi")

    def run(self, root: Path) -> None:
        gc.collect(Store.open(root), delete=True, min_age_s=0)
        super().run(root)
        gc.collect(Store.open(root), delete=True, min_age_s=0)

    def check(self, root: Path) -> None:
        """A unit is damaged from the beginning; that it is whole is seen at the end."""


class Facts(Job):
    """Facts of a run, a line each, and the view that shows them: a torn line hides no other."""

    name = "facts of runs"
    promises = False

    def ready(self) -> None:
        import data.queries  # noqa: F401

    def before(self, root: Path) -> None:
        Store.open(root, create=True).log_run("a-run", {"event": "stage", "stage": "first", "seconds": 1.5})

    def run(self, root: Path) -> None:
        store = Store.open(root)
        for stage in ("generate", "score", "curate"):
            store.log_run("a-run", {"event": "stage", "stage": stage, "seconds": 1.5})

    def kept(self, root: Path) -> dict[str, bytes]:
        from data.queries import run_query

        _, rows = run_query(Store.open(root), "SELECT DISTINCT stage FROM timings ORDER BY 1")
        return {str(stage): b"" for (stage,) in rows if stage}

    def check(self, root: Path) -> None:
        assert "first" in self.kept(root)


class Champion(Job):
    """The second champion takes the first one's place."""

    name = "champion"
    lies = True

    def before(self, root: Path) -> None:
        champion.promote(Store.open(root, create=True), "y1", "r1")

    def run(self, root: Path) -> None:
        champion.promote(Store.open(root), "y2", "r2", beaten=None, approved_by="Ada", reason="better")

    def kept(self, root: Path) -> dict[str, bytes]:
        return committed(root, ("format.json", "champion.json"))

    def check(self, root: Path) -> None:
        held = [one.policy_id for one in champion.history(Store.open(root))]
        assert held in (["y1"], ["y1", "y2"]), held

    def left(self, root: Path) -> list[str]:
        return not_collected(root)


class FirstChampion(Champion):
    """The first champion of a store that is made for it."""

    name = "first champion"

    def before(self, root: Path) -> None:
        root.mkdir(parents=True)

    def run(self, root: Path) -> None:
        champion.promote(Store.open(root, create=True), "y1", "r1")

    def check(self, root: Path) -> None:
        if (root / "format.json").exists():
            held = [one.policy_id for one in champion.history(Store.open(root))]
            assert held in ([], ["y1"]), held


@dataclass(frozen=True)
class Trained(OneAnswer):
    """A training run of six steps with a checkpoint after each, and its adapter."""

    root: Path
    label: str = "a training run"
    task: ClassVar[str] = "finetune-policy"

    @cached_property
    def question(self) -> dict[str, Any]:
        return {"stage": "finetune", "version": 1}

    def run(self) -> None:
        import torch

        from models.training import checkpoint

        store = Store.open(self.root)
        folder = store.scratch(self.key)
        saved = checkpoint.latest(folder, "this run")
        step = 0 if saved is None else saved.step
        weights = torch.zeros(16, 16) if saved is None else saved.tensors["weights"]
        while step < 6:
            step += 1
            weights = weights * 0.5 + step
            checkpoint.save(folder, "this run", step, {"weights": weights}, [{"loss": 1.0 / step}])
        media = store.write_media(weights.numpy().tobytes(), "safetensors")
        store.commit("finetune", self.question, {"policies": []}, [media])
        store.clear_scratch(self.key)


class Checkpoints(Job):
    """A training run that resumes from its checkpoints."""

    name = "checkpoints"

    def ready(self) -> None:
        import models.training.checkpoint  # noqa: F401

    def before(self, root: Path) -> None:
        Store.open(root, create=True)

    def run(self, root: Path) -> None:
        Runner()(Store.open(root), "finetune", [Trained(root)])

    def kept(self, root: Path) -> dict[str, bytes]:
        return committed(root)

    def check(self, root: Path) -> None:
        from models.training import checkpoint

        store_is_whole(root)
        saved = checkpoint.latest(root / "scratch" / Trained(root).key, "this run")
        if saved is not None:
            assert saved.curve == [{"loss": 1.0 / saved.step}]
            assert float(saved.tensors["weights"][0, 0]) == sum(
                one * 0.5 ** (saved.step - one) for one in range(1, saved.step + 1)
            )

    def left(self, root: Path) -> list[str]:
        return not_collected(root)


class Export(Job):
    """An export: a folder with files and their digests, whole under its name or not there."""

    name = "export"
    lies = True
    promises = False  # of a folder that is there already the command says so, and no more

    def ready(self) -> None:
        import flows.reporting.bundle.folder  # noqa: F401

    def write(self, target: Path) -> None:
        """Export, to a folder that is empty or not there."""
        from flows.reporting.bundle.folder import new_folder

        with new_folder(target) as draft:
            draft.write("summary.json", b'{"round": 1}\n')
            for number in range(4):
                draft.write(f"clips/{number}.mp4", random.Random(number).randbytes(2000))
            draft.write("tables/scores.parquet", b"columns " * 100)
            draft.write("README.md", "what it is\n" * 10)

    def run(self, root: Path) -> None:
        target = root / "exports" / "bundle"
        if not target.is_dir() or not any(target.iterdir()):
            return self.write(target)
        try:  # whoever gets it looks at the sums
            self.check(root)
        except (AssertionError, KeyError, ValueError) as error:
            raise ConfigError(f"{target}: the sums do not fit: {error!r}") from None

    def kept(self, root: Path) -> dict[str, bytes]:
        target = root / "exports" / "bundle"
        found = [path for path in sorted(target.rglob("*")) if path.is_file()]
        return {path.relative_to(target).as_posix(): path.read_bytes() for path in found}

    def check(self, root: Path) -> None:
        found = self.kept(root)
        if found:
            assert "SHA256SUMS" in found, sorted(found)
            lines = found["SHA256SUMS"].decode().splitlines()
            for told, name in (line.split("  ") for line in lines):
                assert bytes_digest(found[name]) == told, name
            assert len(lines) == len(found) - 1


class ServerFiles(Job):
    """What `vidloop serve` writes for itself: its settings and its auth string."""

    name = "server's files"
    lies = True
    unpromised = ("auth",)

    def ready(self) -> None:
        import flows.serving.server_config  # noqa: F401

    def before(self, root: Path) -> None:
        (root / "serve").mkdir(parents=True)

    def run(self, root: Path) -> None:
        from flows.serving.server_config import ServerConfig

        folder = str(root / "serve")
        before = ServerConfig.load(folder)
        assert before is None or before.port == 4200
        config = ServerConfig(folder=folder, host="127.0.0.1", port=4200, store="/a/store", devices=("cpu",))
        config.save()
        config.auth()

    def kept(self, root: Path) -> dict[str, bytes]:
        from flows.serving.server_config import ServerConfig, read_auth

        folder = root / "serve"
        config = ServerConfig.load(folder)
        if config is None or not (folder / "auth").exists():
            return {}
        told = config.model_dump_json().replace(config.folder, "FOLDER").encode()
        auth = read_auth(folder / "auth")
        return {"serve.json": told, "auth": b"as it should be" if len(auth) > 36 else auth.encode()}

    def check(self, root: Path) -> None:
        self.kept(root)

    def left(self, root: Path) -> list[str]:
        return [path.name for path in (root / "serve").iterdir() if path.name not in ("serve.json", "auth")]


JOBS: tuple[Job, ...] = (
    Units(), Repair(), Facts(), Champion(), FirstChampion(), Export(), ServerFiles(), Checkpoints(),
)  # fmt: skip
