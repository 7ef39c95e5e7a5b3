"""Units of work: what they are, when they count as done, and how a stage works through them."""

from __future__ import annotations

import contextvars
import functools
import logging
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from data.errors import StageFailed, UserError, VidloopError
from data.keys import digest
from data.records import Input
from data.store import Store
from tasks import lookups, spread
from tasks.networks import networks_told

log = logging.getLogger("vidloop.tasks")

U = TypeVar("U", bound="Unit")

RETRIES = 3
# A stage whose units keep failing is stopped: what is done is kept, and the rest would most likely fail too.
FAILURES_ALLOWED = 3


class Unit(ABC):
    """One resumable piece of a stage. Plain data, so that it could be sent to another process.

    Attributes:
        task: kind of unit, for example "generate-shard": the name of its Prefect task.
        label: what a person calls this unit, for example "clips 1-16 of 960".
        spreads: whether it may run in another process, one with a GPU of its own; see `tasks.spread`.
        clips_scored: how many clips it has scored when it is done, for whoever tells how fast that goes.
    """

    task: ClassVar[str]
    label: str

    @property
    @abstractmethod
    def questions(self) -> tuple[dict[str, Any], ...]:
        """The questions it answers; their digests are its keys."""

    @cached_property
    def places(self) -> tuple[tuple[str, str], ...]:
        """Stage and key of each manifest that this unit commits."""
        return tuple((question["stage"], digest(question)) for question in self.questions)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the manifests that this unit commits."""
        return tuple(key for _, key in self.places)

    @property
    def spreads(self) -> bool:
        return False

    @property
    def clips_scored(self) -> int:
        return 0

    @abstractmethod
    def run(self) -> None:
        """Compute what is missing and commit it. Raises what went wrong."""


class Inputs(NamedTuple):
    """Manifests that a unit reads: by their keys; its question holds their digests, or the list's digest."""

    keys: tuple[str, ...]
    digests: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Digest of the list of digests."""
        return digest(self.digests)

    @classmethod
    def of(cls, store: Store, stage: str, keys: Sequence[str]) -> Inputs:
        """The manifests of `keys`. Raises StageFailed: `stage` needs one that is not in the store."""
        found = []
        for key, one in zip(keys, lookups.known(store, keys), strict=True):
            if one is None:
                lacking = f"stage {stage} needs unit {key}, which is not in {store.url}"
                raise StageFailed(stage, f"{lacking}: run the round again")
            found.append(one.digest)
        return cls(tuple(keys), tuple(found))

    @classmethod
    def joined(cls, parts: Iterable[Inputs]) -> Inputs:
        """Those of all parts, one after the other."""
        keys, digests = zip(*parts, strict=True)
        return cls(sum(keys, ()), sum(digests, ()))


class OneAnswer(Unit):
    """A unit that answers one question, with one manifest."""

    @property
    @abstractmethod
    def question(self) -> dict[str, Any]:
        """What decides the answer."""

    @property
    def questions(self) -> tuple[dict[str, Any], ...]:
        return (self.question,)

    @property
    def key(self) -> str:
        """Key of its manifest."""
        return self.keys[0]

    @property
    def inputs(self) -> Mapping[str, Inputs]:
        """The lists of which its question holds a digest, by what they are to it."""
        return {}

    def listed(self, **more: Inputs) -> list[Input]:
        """Rows of table `inputs`: what it read; `more` is no part of its question."""
        return [
            Input(self.key, role, place, *one)
            for role, some in {**self.inputs, **more}.items()
            for place, one in enumerate(zip(some.keys, some.digests, strict=True))
        ]


@dataclass(frozen=True)
class StageResult:
    """What a stage did, in the form that `summary.json` shows; `networks`: lines of those that computed."""

    stage: str
    key: str
    seconds: float = 0.0
    shards: int = 0
    cached_shards: int = 0
    failed: int = 0
    networks: dict[str, str] = field(default_factory=dict)

    def plus(self, other: StageResult) -> StageResult:
        """Both together, under this one's name and key."""
        return replace(
            self,
            seconds=self.seconds + other.seconds,
            shards=self.shards + other.shards,
            cached_shards=self.cached_shards + other.cached_shards,
            failed=self.failed + other.failed,
            networks=self.networks | other.networks,
        )


# Told (steps done, steps in all) by a unit that is one long computation. The runner sets it around each unit.
_steps: ContextVar[Callable[[int, int], None]] = ContextVar("steps", default=lambda done, total: None)
# Whether the stage has been interrupted: what fails then failed for that. Set likewise.
_given_up: ContextVar[Callable[[], bool]] = ContextVar("given_up", default=lambda: False)


def report_steps(done: int, total: int) -> None:
    """Say how far the running unit is; does nothing when nobody listens."""
    _steps.get()(done, total)


class Listener:
    """Sees the work go by, and by itself does nothing with it: base of the terminal's, and of the UI's."""

    def on_phase_start(self, stage: str, task: str, total: int) -> None:
        """A list of units of one kind begins."""

    def on_unit_end(self, stage: str, unit: Unit, cached: bool, seconds: float) -> None:
        """A unit is done."""

    def on_steps(self, stage: str, unit: Unit, done: int, total: int) -> None:
        """A unit that is one long computation got so far."""

    def on_network(self, stage: str, role: str, line: str) -> None:
        """A unit computes with a network that this list had not named yet, or not so."""

    def on_phase_end(self, stage: str, task: str) -> None:
        """The list is done, or was given up."""


def unit_key(unit: Unit) -> str:
    """One key for the whole unit, whatever the number of its manifests."""
    return unit.keys[0] if len(unit.keys) == 1 else digest(list(unit.keys))


def stage_key(units: Sequence[Unit]) -> str:
    """One key for a list of units: what `summary.json` calls the stage's key."""
    return unit_key(units[0]) if len(units) == 1 else digest([unit_key(unit) for unit in units])


def each_once(units: Sequence[U]) -> list[U]:
    """Those with different keys, in their order: a list works through each unit by itself."""
    found: dict[tuple[str, ...], U] = {}
    for unit in units:
        found.setdefault(unit.keys, unit)
    return list(found.values())


def are_there(store: Store, units: Sequence[Unit]) -> list[bool]:
    """Of each unit, whether the store holds its manifests with files of the right sizes. Changes nothing."""
    said = lookups.look(store, [place for unit in units for place in unit.places], "size")
    return [all(said[key] is None for key in unit.keys) for unit in units]


def are_whole(store: Store, units: Sequence[Unit]) -> list[bool]:
    """As `are_there`, before units are computed: a manifest that does not verify is set aside, and said so.

    Then its unit is computed again, and no other. Bytes are hashed by whoever reads them (see
    `tasks.healing`), and not here: a start would read the store.
    """
    said = verified(store, {place: unit.label for unit in units for place in unit.places}, "size")
    return [all(said[key] is None for key in unit.keys) for unit in units]


def only_whole(store: Store, units: Sequence[U]) -> list[U]:
    """Those of which `are_whole` says so."""
    return [unit for unit, whole in zip(units, are_whole(store, units), strict=True) if whole]


def holds(store: Store, key: str, label: str) -> bool:
    """Whether the store holds a manifest whose bytes are what they should be, for one who reads them next.

    What does not verify is set aside, and said so.
    """
    return verified(store, {(None, key): label}, "hash")[key] is None


def verified(
    store: Store, labels: Mapping[lookups.Place, str], level: Literal["hash", "size"]
) -> dict[str, str | None]:
    """What `lookups.look` says of manifests; those that are there and do not verify are set aside.

    Args:
        store: where they may be.
        labels: what a person calls each, by stage, or None, and key.
        level: how their files are looked at.
    """
    said = lookups.look(store, labels, level)
    for (_, key), label in labels.items():
        reason = said[key]
        if reason is not None and reason != lookups.NOT_THERE:
            log.warning("%s (%s) does not verify and is computed again: %s", label, key[:12], reason)
            lookups.set_aside(store, key, reason)
    return said


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a moment later: connections, time-outs, 429 and 503."""
    if isinstance(error, VidloopError):
        return False
    status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(error, ConnectionError | TimeoutError) or status in (429, 503)


def retry_delay(attempt: int, base: float = 2.0) -> float:
    """Seconds before attempt number `attempt` (from 1): doubling, with half of it left to chance."""
    return base * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311  (spreads load, hides nothing)


def run_with_retries(unit: Unit, sleep: Callable[[float], object] = time.sleep) -> None:
    """Run `unit`, again up to `RETRIES` times when what failed is transient and nobody has interrupted."""
    for attempt in range(1, RETRIES + 2):
        try:
            return spread.run(unit)
        except Exception as error:
            if attempt > RETRIES or not is_transient(error):
                raise
            log.warning("%s: %s; attempt %d of %d follows", unit.label, error, attempt + 1, RETRIES + 1)
            sleep(retry_delay(attempt))
            if _given_up.get()():
                raise


@dataclass
class Failures:
    """What went wrong in a stage, collected so that the rest can finish, but for `FAILURES_ALLOWED`."""

    stage: str
    found: list[tuple[Unit, BaseException]] = field(default_factory=list)
    interrupted: bool = False

    def add(self, unit: Unit, error: BaseException) -> None:
        """Note that `unit` failed with `error`."""
        self.found.append((unit, error))
        if not isinstance(error, UserError) and not self.interrupted:
            log.error("%s failed: %s: %s", unit.label, type(error).__name__, error)

    @property
    def users(self) -> UserError | None:
        """The first that says that something given is wrong: the other units would meet it too."""
        return next((error for _, error in self.found if isinstance(error, UserError)), None)

    @property
    def enough(self) -> bool:
        """Whether the units not yet begun should stay so."""
        return len(self.found) >= FAILURES_ALLOWED or self.users is not None

    def raise_if_any(self, total: int) -> None:
        """Raise the error the stage ends with, if a unit failed."""
        if not self.found:
            return
        if self.users is not None:
            raise self.users
        unit, error = self.found[0]
        reason = str(error) if isinstance(error, VidloopError) else f"{type(error).__name__}: {error}"
        raise StageFailed(
            self.stage,
            f"stage {self.stage}: {len(self.found)} of {total} units failed. First: {unit.label}: {reason}. "
            "What was finished is kept; the same command continues from there",
        ) from error


@dataclass
class _Networks:
    """What the units of a list reported, each network once."""

    tell: Callable[[str, str], None]
    found: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, role: str, line: str) -> None:
        with self.lock:
            new = self.found.get(role) != line
            self.found[role] = line
        if new:
            self.tell(role, line)


def do_nothing(*_: object) -> None:
    """What a runner does before it computes, and with units that are whole, unless it is told otherwise."""


@dataclass(frozen=True)
class Runner:
    """Works through the units of a stage, one after the other or in `workers` threads.

    Attributes:
        workers: units computed at the same time.
        listener: told of every unit.
        execute: computes one unit; `tasks.prefect_runner` has the other one.
        recall: told of those units of a list that are whole, all at once, before the others are computed.
        ready: called before a list in which something must be computed, for example to wait for the device.
    """

    workers: int = 1
    listener: Listener = field(default_factory=Listener)
    execute: Callable[[Unit], None] = run_with_retries
    recall: Callable[[Sequence[Unit]], None] = do_nothing
    ready: Callable[[], None] = do_nothing

    def __call__(self, store: Store, stage: str, units: Sequence[Unit]) -> StageResult:
        """Have every unit's answer in the store.

        Raises:
            StageFailed: units failed after their retries; everything that succeeded is kept.
            ConfigError: a unit found that what it was given is wrong, or the store cannot be written.
        """
        begun = time.monotonic()
        failures = Failures(stage)
        networks = _Networks(functools.partial(self.listener.on_network, stage))
        self.listener.on_phase_start(stage, units[0].task, len(units))
        try:
            known = list(zip(units, are_whole(store, units), strict=True))
            whole = [unit for unit, there in known if there]
            missing = [unit for unit, there in known if not there]
            if whole:
                store.settle(stage for unit in whole for stage, _ in unit.places)
                self.recall(whole)
                for unit in whole:
                    self.listener.on_unit_end(stage, unit, True, 0.0)
            if missing:
                self.ready()
            if self.workers == 1 or len(missing) == 1:
                # In this thread, so that Ctrl-C stops a unit at once.
                for unit in missing:
                    self._run(stage, unit, failures, networks)
            elif missing:
                self._run_in_threads(stage, missing, failures, networks)
        finally:
            self.listener.on_phase_end(stage, units[0].task)
        failures.raise_if_any(len(units))
        seconds = time.monotonic() - begun
        return StageResult(
            stage,
            stage_key(units),
            seconds,
            len(units),
            len(whole),
            networks=dict(sorted(networks.found.items())),
        )

    def _run(self, stage: str, unit: Unit, failures: Failures, networks: _Networks) -> None:
        if failures.enough:
            return
        begun = time.monotonic()
        listening = _steps.set(lambda done, total: self.listener.on_steps(stage, unit, done, total))
        giving_up = _given_up.set(lambda: failures.interrupted)
        try:
            with networks_told(networks.note):
                self.execute(unit)
        except Exception as error:
            failures.add(unit, error)
        else:
            self.listener.on_unit_end(stage, unit, False, time.monotonic() - begun)
        finally:
            _given_up.reset(giving_up)
            _steps.reset(listening)

    def _run_in_threads(
        self, stage: str, units: Sequence[Unit], failures: Failures, networks: _Networks
    ) -> None:
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix=stage)
        try:
            futures = [
                # Each in a copy of this thread's context: by it Prefect knows the flow run of a task.
                pool.submit(contextvars.copy_context().run, self._run, stage, unit, failures, networks)
                for unit in units
            ]
            for future in futures:
                future.result()
        except BaseException:
            failures.interrupted = True
            raise
        finally:
            # After Ctrl-C: what runs may finish its shard, nothing new begins.
            pool.shutdown(wait=True, cancel_futures=True)
