"""Faults of the machine: a network, or a reward, raises at one of its calls, as a broken or full device has it do."""

from __future__ import annotations

import errno
import functools
import importlib
import math
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

from data.store import Store
from tasks.units import do_nothing, run_with_retries
from tests.chaos.round_jobs import Stage, made, play_stage
from tests.chaos.trial import Bench, Outcome, Trial, in_child
from tests.miniature_rewards import CLIP, FLOW, JUDGE
from tests.tiny_preferences import build_hpsv2, build_pickscore, build_videoscore

# Name -> module, class, method.
NETWORKS: Final = {
    "transformer": ("diffusers", "WanTransformer3DModel", "forward"),
    "VAE": ("diffusers", "AutoencoderKLWan", "_decode"),
    "text encoder": ("transformers", "UMT5EncoderModel", "forward"),
    "backward pass": ("torch", "autograd", "grad"),
    "CLIP": ("open_clip.model", "CLIP", "encode_image"),
    "RAFT": ("torchvision.models.optical_flow", "RAFT", "forward"),
    "judge's network": ("transformers", "Qwen2VLForConditionalGeneration", "forward"),
    "PickScore": ("transformers", "CLIPModel", "get_image_features"),
    "VideoScore": ("transformers", "Idefics2Model", "forward"),
}
REWARDS: Final = ("physics", "sharpness", "grain", "motion", "flicker", "clip", "flow", "judge")
STAGES: Final = ("generate", "score", "finetune", "evaluate")


def _out_of_memory() -> Exception:
    import torch

    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


FAULTS: Final[dict[str, Callable[[], BaseException]]] = {
    "out of device memory": _out_of_memory,
    "illegal access": lambda: RuntimeError("CUDA error: an illegal memory access was encountered"),
    "ECC": lambda: RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    "out of memory": lambda: MemoryError(),
    "too many files": lambda: OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    "a defect": lambda: ZeroDivisionError("a defect, made for this test"),
    "Ctrl-C": lambda: KeyboardInterrupt(),
}
"""What a call raises; beside these, it is killed, as by a kernel that is out of memory."""


class Everything(Stage):
    """A stage of a round in which every kind of network computes, but those of preferences."""

    def __init__(self, stage: str) -> None:
        super().__init__(stage)
        self.stage, self.name = stage, f"machine: {stage}"  # type: ignore[misc]

    def rewards(self) -> dict[str, dict[str, Any]]:
        """Those that score, and what the recipe says of them."""
        own = {"clip": CLIP, "flow": FLOW, "judge": JUDGE | {"backend": "local"}}
        return {name: own.get(name, {}) for name in REWARDS}

    def before(self, root: Path) -> None:
        Stage(self.stage).before(root)

    def run(self, root: Path) -> None:
        changes = ()
        if self.stage == "score":
            parts = self.rewards()
            said = [f"{name}.{key}={value}" for name, part in parts.items() for key, value in part.items()]
            changes = (f"rewards=[{', '.join(parts)}]", *said)
        with at_once():
            play_stage(self.stage, root, made() / "tiny.yaml", *changes)


class Preferences(Everything):
    """The score stage with the rewards that are models of what people prefer, tiny and random."""

    def __init__(self) -> None:
        super().__init__("score")
        self.name = "machine: preferences"  # type: ignore[misc]

    def rewards(self) -> dict[str, dict[str, Any]]:
        build = {"hpsv2": build_hpsv2, "pickscore": build_pickscore, "videoscore": build_videoscore}
        folders = {name: made() / name for name in build}
        for name, folder in folders.items():
            if not folder.exists():
                folder.mkdir()
                build[name](folder)
        more = {"videoscore": {"dtype": "float32"}}
        said = {name: {"model": folder, "frames": 4} | more.get(name, {}) for name, folder in folders.items()}
        return {"sharpness": {}} | said


def at_once() -> AbstractContextManager[Any]:
    """Within: a unit that failed, and may pass, is tried again without a pause."""
    return mock.patch.object(run_with_retries, "__defaults__", (do_nothing,))


class MachineBench(Bench):
    """A stage on the bench, whose calls fail instead of its files."""

    def __init__(self, job: Everything, folder: Path, seed: int = 0) -> None:
        job.ready()
        self.stage = job.stage
        self.calls: Counter[str] = Counter()
        with self._watched(lambda name: None):
            super().__init__(job, folder, seed)

    def trials(self) -> list[Trial]:
        """Every fault at the first, the last and some calls of everything; once, or from then on."""
        lot = random.Random(f"{self.seed}/{self.job.name}")
        found = []
        for name, count in sorted(self.calls.items()):
            for place in sorted({0, count - 1, *(lot.randrange(count) for _ in range(3))}):
                for fault in (*FAULTS, "killed"):
                    modes = ("once",) if fault in ("Ctrl-C", "killed") else ("once", "dead")
                    found += [Trial(f"machine, {fault}", f"{name} {place} {mode}") for mode in modes]
        lot.shuffle(found)
        return found

    @contextmanager
    def _watched(self, meet: Callable[[str], None]) -> Iterator[None]:
        """Within: `meet` is told of every call before it is done."""

        def watched(name: str, done: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(done)
            def call(*args: Any, **named: Any) -> Any:
                meet(name)
                self.calls[name] += 1
                return done(*args, **named)

            return call

        with ExitStack() as until_the_end:
            for name, (module, owner, method) in NETWORKS.items():
                there = getattr(importlib.import_module(module), owner)
                until_the_end.enter_context(
                    mock.patch.object(there, method, watched(name, getattr(there, method)))
                )
            for name, there, method, done in _scoring():
                call = watched(name, getattr(done, "__wrapped__", done))
                until_the_end.enter_context(mock.patch.object(there, method, _again_guarded(done, call)))
            yield

    def _attempt(self, trial: Trial) -> Outcome:
        self._number += 1
        root = self.folder / f"trial-{self._number}"
        self.job.before(root)
        name, place, mode = trial.place.rsplit(" ", 2)
        fault = trial.kind.removeprefix("machine, ")
        calls = self.calls = Counter()

        def meet(called: str) -> None:
            if called == name and (
                calls[name] == int(place) or (mode == "dead" and calls[name] > int(place))
            ):
                calls[name] += 1
                if fault == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise FAULTS[fault]()

        def disturbed() -> None:
            with self._watched(meet):
                self.job.run(root)

        try:
            ended = (in_child if fault == "killed" else self._do)(disturbed)
            if ended.how == "hangs":
                return Outcome("stuck", "the disturbed command does not end")
            found = self._after(root, trial)
            # A batch that failed once is tried in halves, which may be rounded otherwise: one of a reward
            # always, one of training where the device's memory is full.
            went_on = found.outcome in ("lost", "changed") and ended.how == "ok" and mode == "once"
            halved = self.stage == "score" or (self.stage == "finetune" and fault == "out of device memory")
            if went_on and halved and _alike(values(root), self.values):
                return Outcome("smaller batches", found.reason)
            return found
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def remember(self, root: Path) -> None:
        self.values = values(root)


def values(root: Path) -> dict[tuple[str, str], float | None]:
    """Every score of a store, by clip and reward; None: a failed judgement."""
    store = Store.open(root)
    keys = [manifest.key for manifest in store.manifests("score")]
    rows = [row for key in keys for row in store.read(key, "scores")]
    return {(row.clip_id, row.reward): row.value for row in rows}


def _alike(one: dict[tuple[str, str], float | None], other: dict[tuple[str, str], float | None]) -> bool:
    """Equal but for rounding; what has no value has none in both."""
    return one.keys() == other.keys() and all(
        one[key] == other[key] or math.isclose(one[key] or 0.0, other[key] or 0.0, rel_tol=1e-4)
        for key in one
    )


def _scoring() -> Iterator[tuple[str, Any, str, Callable[..., Any]]]:
    """Where rewards score: a name, the class, the method's name, and the method."""
    from rewards.clip import SimilarityReward
    from rewards.flow import FlowReward
    from rewards.judge.judge import JudgeReward
    from rewards.registry import build_reward
    from rewards.videoscore import VideoScoreReward

    per_clip = type(build_reward("sharpness"))
    for name, there, method in (
        ("a reward of clips", per_clip, "score"),
        ("reward clip", SimilarityReward, "score"),
        ("reward flow", FlowReward, "score"),
        ("reward judge", JudgeReward, "score_parts"),
        ("reward videoscore", VideoScoreReward, "score"),
    ):
        yield name, there, method, getattr(there, method)


def _again_guarded(done: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    """The fault comes from inside of `rewards.base.guarded`, where a reward's own would."""
    from rewards.base import guarded

    return guarded(call) if hasattr(done, "__wrapped__") else call


JOBS: Final = (*(Everything(stage) for stage in STAGES), Preferences())
