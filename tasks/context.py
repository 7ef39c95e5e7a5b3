"""What a round is made of, as plain data, and the models that stay loaded between its units.

Everything here could be sent to another process: a unit carries what it needs along and finds (or loads) its
models where it runs. Loading is lazy: a round whose answers are all in the store imports no torch.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from data.curation import CurateSettings
from data.keys import clip_seed
from data.policies import best_of_id
from data.records import Prompt
from data.store import Store
from data.video import VideoSettings
from models.families.settings import Expert, ModelSettings, SampleSettings
from models.gate.settings import GateSettings, Within
from models.training.settings import TrainSettings
from rewards import RewardRef as RewardRef

if TYPE_CHECKING:
    from models.sampling.sampler import Sampler

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class PolicyRef:
    """A policy: the base model, or the base model with an adapter from the store.

    Attributes:
        policy_id: id of the policy.
        base_id: id of the base model.
        adapter_path: safetensors file relative to the store root; "" for the base model.
        adapter_sha256: its digest; "" for the base model.
        experts: of a model of two experts, the adapter of each that has one, by the expert's name; of these
            the file above is the one that was trained last.
    """

    policy_id: str
    base_id: str
    adapter_path: str = ""
    adapter_sha256: str = ""
    experts: tuple[tuple[Expert, str], ...] = ()

    def adapter(self, store: Store, expert: Expert | None) -> bytes | None:
        """The adapter of one expert, or of the only network; None if it has none. Raises StoreError."""
        path = self.adapter_path if expert is None else dict(self.experts).get(expert, "")
        return store.read_media(path) if path else None


@dataclass(frozen=True)
class ClipJob:
    """One clip to be generated: a prompt and a seed."""

    prompt: Prompt
    seed: int


@dataclass(frozen=True)
class ImportedShard:
    """Clips from outside that the store holds: the key of their unit, and how many they are."""

    key: str
    clips: int
    label: str


@dataclass(frozen=True)
class BestOf:
    """Of `n` clips for a prompt and seed, the one that `by` prefers."""

    n: int
    by: RewardRef


@dataclass(frozen=True)
class Sampled:
    """The clips of some jobs by one policy; with `best_of`, each the best of several."""

    policy: PolicyRef
    jobs: tuple[ClipJob, ...]
    best_of: BestOf | None = None

    @property
    def policy_id(self) -> str:
        """Id of the policy, or of the best of N of it."""
        how, sampled = self.best_of, self.policy.policy_id
        return sampled if how is None else best_of_id(sampled, how.n, how.by.kind, how.by.version)

    @cached_property
    def candidates(self) -> list[tuple[ClipJob, ...]]:
        """What is to be chosen from, job by job: first the jobs themselves, then their second clips, ...

        So a larger N needs the clips of a smaller one and more, and the first are those of the plain policy.
        """
        others = [
            tuple(
                ClipJob(job.prompt, clip_seed(job.seed, job.prompt.prompt_id, index, "best-of"))
                for job in self.jobs
            )
            for index in range(1, self.best_of.n if self.best_of is not None else 1)
        ]
        return [self.jobs, *others]


@dataclass(frozen=True)
class Baseline:
    """A best-of-N policy that the evaluation shows beside the policies that are trained.

    Attributes:
        name: in summaries and reports.
        best_of: how it chooses.
        policy: whose clips; None: the candidate's.
    """

    name: str
    best_of: BestOf
    policy: PolicyRef | None


@dataclass(frozen=True)
class Generation:
    """How clips are made, whatever the policy and the prompts.

    Attributes:
        root: the store's folder.
        model: the base model, and where it runs.
        sample: how clips are sampled.
        video: how they are written, at `fps` frames per second.
        batch_size: clips sampled together; the last shard is padded to it.
    """

    root: str
    model: ModelSettings
    sample: SampleSettings
    video: VideoSettings
    fps: int
    batch_size: int


@dataclass(frozen=True)
class EvaluationPlan:
    """What the fifth stage compares.

    Attributes:
        metric: the primary metric.
        guards: names of the guards.
        measures: rewards to be scored on evaluation clips: the metric, the guards that are rewards, and
            others that decide nothing.
        within: limits of the guards' ratios by name, as `models.gate.verdict.decide` takes them.
        primary: the split that decides.
        jobs: the clips of every split, the primary one first.
        baselines: best-of-N policies that are measured on the primary split too; they decide nothing.
        confirmation: fresh clips of the primary split, which count too where a yes of the gate is confirmed.
    """

    metric: RewardRef
    guards: tuple[str, ...]
    measures: tuple[RewardRef, ...]
    primary: str
    jobs: tuple[tuple[str, tuple[ClipJob, ...]], ...]
    within: Mapping[str, Within] = field(default_factory=dict)
    baselines: tuple[Baseline, ...] = ()
    confirmation: tuple[ClipJob, ...] = ()

    @property
    def choosers(self) -> tuple[RewardRef, ...]:
        """The rewards that choose the baselines' clips, each once."""
        return _choosers(one.best_of for one in self.baselines)


@dataclass(frozen=True)
class RoundContext:
    """All that the stages need to know.

    Attributes:
        run_id: names `runs/<run id>.jsonl`; the round id in a round.
        recipe: the resolved recipe, as `summary.json` shows it.
        generation: how clips are made.
        policy: where the round starts: it is trained on, and compared with the candidate.
        jobs: the training clips, in prompt order.
        rewards: every reward that is scored on training clips; `feedback` is the one that teaches.
        earlier: training clips of earlier rounds, which are learned from too.
        imported: training clips from outside.
        best_of: how training clips are chosen, where the round samples a best-of-N policy.
        untraced: of `policy` and those that it comes from, ids of which the store does not say what prompts
            trained them.
    """

    run_id: str
    name: str
    seed: int
    workers: int
    recipe: dict[str, Any]
    generation: Generation
    policy: PolicyRef
    jobs: tuple[ClipJob, ...]
    rewards: tuple[RewardRef, ...]
    feedback: RewardRef
    max_failed_share: float
    curate: CurateSettings
    finetune: TrainSettings
    evaluate: EvaluationPlan
    gate: GateSettings
    earlier: tuple[Sampled, ...] = ()
    imported: tuple[ImportedShard, ...] = ()
    best_of: BestOf | None = None
    untraced: tuple[str, ...] = ()

    @cached_property
    def training(self) -> tuple[Sampled, ...]:
        """All training clips: the round's own, and after them those of earlier rounds."""
        return (Sampled(self.policy, self.jobs, self.best_of), *self.earlier)

    @property
    def choosers(self) -> tuple[RewardRef, ...]:
        """The rewards that choose training clips, each once."""
        return _choosers(one.best_of for one in self.training)

    @property
    def store(self) -> Store:
        """The store, opened once a process."""
        return open_store(self.generation.root)


def _choosers(ways: Iterable[BestOf | None]) -> tuple[RewardRef, ...]:
    return tuple({(way.by.kind, way.by.version): way.by for way in ways if way is not None}.values())


@functools.cache
def open_store(root: str) -> Store:
    """`Store.open`, remembered."""
    return Store.open(root)


@dataclass
class _Held:
    name: object
    first: Any
    idle: list[Any]
    close: Callable[[Any], object]


class Residents:
    """Models that are slow to load outlive the unit that loaded them, each lent to one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}

    @contextmanager
    def borrow(
        self,
        kind: str,
        name: object,
        load: Callable[[], Loaded],
        fork: Callable[[Loaded], Loaded] | None = None,
        close: Callable[[Loaded], object] = lambda _: None,
    ) -> Iterator[Loaded]:
        """The resident of this kind called `name`, kept for the next borrower.

        Another name takes the place of the one before: a device holds one sampler, not one of every policy.

        Args:
            kind: "sampler", "reward clip", ...
            name: equal exactly when the residents are interchangeable.
            load: makes the first one.
            fork: makes one for another thread out of the first; None loads again.
            close: ends the first one when it is given up.
        """
        with self._lock:
            if kind not in self._held or self._held[kind].name != name:
                self._end([kind])
                first = load()
                self._held[kind] = _Held(name, first, [first], close)
            held = self._held[kind]
            thing = held.idle.pop() if held.idle else fork(held.first) if fork else load()
        yield thing
        with self._lock:
            held.idle.append(thing)

    def give_up(self, kind: str) -> None:
        """End and forget the residents of one kind."""
        with self._lock:
            self._end([kind])

    def release(self, keep: str = "") -> None:
        """End and forget all but the kind to keep: the device's memory is free for another stage."""
        with self._lock:
            self._end([kind for kind in self._held if kind != keep])

    def _end(self, kinds: Iterable[str]) -> None:
        for kind in kinds:
            held = self._held.pop(kind, None)
            if held is not None:
                held.close(held.first)
                del held
                gc.collect()
                if on_gpu():
                    sys.modules["torch"].cuda.empty_cache()


RESIDENTS = Residents()
_GPU_TURN = threading.Lock()


@contextmanager
def gpu_turn(device: str, *, alone: bool = False) -> Iterator[None]:
    """Within: the only thread of this process that computes on a GPU; on a CPU, nothing.

    Two threads on one GPU take turns with whole batches, and while one computes the other decodes, encodes
    and writes: the GPU does not wait for files.

    Args:
        device: as in recipes; "auto" is a GPU where there is one.
        alone: take turns on a CPU too.
    """
    from data.device import resolve_device

    if not alone and resolve_device(device) == "cpu":
        yield
    else:
        with _GPU_TURN:
            yield


@contextmanager
def open_sampler(how: Generation, policy: PolicyRef) -> Iterator[Sampler]:
    """A sampler of `policy`, for this thread alone.

    Raises:
        ConfigError: the model or the adapter cannot be loaded, or they do not belong together.
        StoreError: the adapter is missing or was changed.
    """

    def load() -> Sampler:
        quieten_libraries()
        from models.sampling.sampler import Sampler

        store = open_store(how.root)
        if policy.experts:
            experts = {name: store.read_media(path) for name, path in policy.experts}
            return Sampler.open(how.model, how.sample, None, policy.base_id, experts)
        return Sampler.open(how.model, how.sample, policy.adapter(store, None), policy.base_id)

    name = (how.model, how.sample, policy)
    with RESIDENTS.borrow("sampler", name, load, lambda sampler: sampler.fork()) as sampler:
        yield sampler


def quieten_libraries() -> None:
    """Keep the model libraries' progress bars and advice off the terminal; errors still show."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        library.set_verbosity_error()


def on_gpu() -> bool:
    """Whether this process has used PyTorch and there is a GPU."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_available())
