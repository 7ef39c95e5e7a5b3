"""One trial: a job, a fault in it, the same job again, and the question whether all is as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final

from data.errors import VidloopError
from data.store import Store, gc
from tests.chaos.crash_states import CUTS, Content, Kept, Record, State, Sync
from tests.chaos.file_layer import LIVE, Fault, FileLayer, PretendKilled, applies

LIMIT_S: Final = 300.0
# Faults after which the system's error must have become words that name the place.
WORDED: Final = ("EIO", "EIO and dead", "ENOSPC", "short write, ENOSPC", "EROFS")
KILLS: Final = ("killed", "torn write, killed")
LOTS: Final = 3
WHOLE: Final = ("whole", "smaller batches", "told", "not promised")
"""Outcomes as they should be; the others are `lost`, `torn`, `stuck`, `changed`, `left`, `wordless`.

    whole     the same command gives every byte that the undisturbed one gives
    smaller batches  a batch that failed once was tried in halves: values are the same but for rounding
    told      a disk that lied about a sync: the command, or `vidloop scrub`, says which file is damaged, and
              what to do; after that every byte is there again
    not promised  a disk that lied: a file that a person may edit, and so has no digest, is cut short
    lost      something committed is gone and does not come back
    torn      something half done can be seen
    stuck     the same command fails, or does not end
    changed   the bytes are others
    left      something stays behind that the collector does not take
    wordless  an error of the system reached the person as it was
"""


class Job(ABC):
    """A command whose durable writes are disturbed.

    Attributes:
        name: in tables.
        lies: whether after a sync that did nothing a person may be told of a damaged file.
        promises: whether what it wrote is safe when it has ended.
        unpromised: files that carry no digest of themselves, which a disk that lies may cut short.
    """

    name: ClassVar[str]
    lies: ClassVar[bool] = False
    promises: ClassVar[bool] = True
    unpromised: ClassVar[tuple[str, ...]] = ()

    def ready(self) -> None:  # noqa: B027  (most need nothing)
        """Load what the command needs, once a process."""

    def before(self, root: Path) -> None:
        """Make the folder with what the command finds; by default there is nothing."""
        root.mkdir(parents=True)

    @abstractmethod
    def run(self, root: Path) -> None:
        """The command."""

    @abstractmethod
    def kept(self, root: Path) -> dict[str, bytes]:
        """What must be the same as if nothing had been."""

    def heal(self, root: Path) -> list[str]:
        """Have `vidloop scrub --heal` set aside what is damaged; what that was."""
        return []

    def check(self, root: Path) -> None:  # noqa: B027  (some look at the end only)
        """Nothing half done can be seen, whatever happened. Raises AssertionError."""

    def left(self, root: Path) -> list[str]:
        """What stays behind after the collector; nothing may."""
        return []


def store_is_whole(root: Path) -> None:
    """Every committed unit of the store below `root` holds what it says."""
    if (root / "format.json").exists():
        store = Store.open(root)
        for manifest in store.manifests():
            reason = store.verify(manifest.key)
            assert reason is None, f"{manifest.stage} {manifest.key[:12]}: {reason}"


def committed(root: Path, more: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Bytes of everything committed below a store, and of the named files."""
    tops = ("manifests", "parts", "media")
    found = [path for top in tops for path in (root / top).rglob("*") if path.is_file()]
    found = [path for path in found if path.suffix != ".tmp"]  # of which see `not_collected`
    found += [root / name for name in more]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(found)}


def not_collected(root: Path) -> list[str]:
    """Files of a store that no manifest reaches and the collector leaves."""
    store = Store.open(root)
    gc.collect(store, delete=True, min_age_s=0)
    reached = {item.path for manifest in store.manifests() for item in manifest.files}
    held = committed(root)
    found = [name for name in held if not name.startswith("manifests/") and name not in reached]
    tops = (root / "tmp", root / "scratch")
    found += [path.name for top in tops for path in top.rglob("*") if path.is_file()]
    return found + [path.name for path in root.rglob("*.tmp") if not path.is_relative_to(root / "tmp")]


@dataclass(frozen=True)
class Ended:
    """How a child process ended: "ok", "told" (words for a person), "raised", "stopped", "killed", "hangs"."""

    how: str
    said: str = ""


def in_this_process(work: Callable[[], str | None]) -> Ended:
    """Do something here: a process costs more than what it is to do."""

    def late(*_: object) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(int(LIMIT_S))
    try:
        return Ended("ok", work() or "")
    except _Late:
        return Ended("hangs")
    except VidloopError as error:
        return Ended("told", str(error))
    except KeyboardInterrupt:
        return Ended("stopped")
    except BaseException:
        return Ended("raised", traceback.format_exc())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def in_child(work: Callable[[], str | None]) -> Ended:
    """Do something in a process of its own, which has all that this one has loaded."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        os.close(reads)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        ended = in_this_process(work)
        os.write(writes, json.dumps([ended.how, ended.said[-20_000:]]).encode())
        os._exit(0)
    os.close(writes)
    until, said = time.monotonic() + LIMIT_S, b""
    while True:
        ready, _, _ = select.select([reads], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reads)
            return Ended("hangs")
        chunk = os.read(reads, 65_536)
        said += chunk
        if not chunk:
            break
    os.close(reads)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended("killed", str(code)) if code or not said else Ended(*json.loads(said))


@dataclass(frozen=True)
class Trial:
    """A fault: which kind, and where."""

    kind: str
    place: str

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.place}"


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: one of `WHOLE` or another, and the reason."""

    outcome: str
    reason: str = ""


class Bench:
    """A job on the bench: its operations, and the trials that they allow.

    Args:
        job: the command.
        folder: for the stores of trials; what is in it goes.
        seed: of what is left to chance.
    """

    def __init__(self, job: Job, folder: Path, seed: int = 0) -> None:
        self.job, self.folder, self.seed = job, folder, seed
        self._number = 0
        self._do: Callable[[Callable[[], str | None]], Ended] = in_child
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        job.ready()
        root = folder / "undisturbed"
        job.before(root)
        layer = FileLayer(root, keep=True)
        self.record = Record().begin(root)
        with layer():
            job.run(root)
        self.operations = layer.operations
        Record.of(root, self.operations, self.record)
        job.check(root)
        self.undisturbed = job.kept(root)
        self.remember(root)
        shutil.rmtree(root)

    def remember(self, root: Path) -> None:
        """Look at what the undisturbed command has made, before it goes."""

    # -- what can be tried ---------------------------------------------------------------------------------

    @cached_property
    def states(self) -> dict[str, Callable[[], State]]:
        """Every different state that a power cut can leave, by the trial's id."""
        found: dict[str, Callable[[], State]] = {}
        seen: set[str] = set()

        def add(trial: Trial, make: Callable[[], State]) -> None:
            told = make().digest
            if told not in seen:
                seen.add(told)
                found[trial.id] = make

        record, count = self.record, len(self.operations)
        for end in range(1, count + 1):
            for how in CUTS:
                add(Trial(f"power cut, {how}", str(end)), lambda how=how, end=end: record.cut(how, end))
            for number in range(LOTS):
                name = f"{end}.{self.seed * LOTS + number}"
                lot = f"{self.job.name}/{name}"
                add(
                    Trial("power cut, by lot", name),
                    lambda end=end, lot=lot: record.by_lot(end, random.Random(lot)),
                )
        contents = {one.file for one in record.steps if isinstance(one, Content)}
        for place, step in enumerate(record.steps):
            if isinstance(step, Sync):
                fates: tuple[Kept, ...] = ("lost", "torn", "zeros") if step.what in contents else ("lost",)
                for fate in fates:
                    name = f"{place}.{fate}"
                    add(Trial("lost fsync", name), lambda place=place, fate=fate: record.lie(place, fate))
        return found

    def trials(self) -> list[Trial]:
        """All of them, in an order that the seed decides, so that the first thousand are a fair sample."""
        found = [
            Trial(fault, str(place))
            for place, operation in enumerate(self.operations)
            for fault in LIVE
            if applies(fault, operation.kind)
        ]
        found += [Trial(*name.split("/")) for name in self.states]
        lot = random.Random(f"{self.seed}/{self.job.name}")
        count = len(self.operations)
        for place in range(1, count):
            found.append(Trial("killed twice", f"{place}.{lot.randrange(count)}"))
            found += [Trial("killed, run again, power cut", f"{place}.{lot.random():.6f}") for _ in range(2)]
        lot.shuffle(found)
        return found

    # -- trying --------------------------------------------------------------------------------------------

    def attempt(self, trial: Trial) -> Outcome:
        """Do it, and say what came of it: what is not whole, from another try in fresh processes."""
        self._do = in_this_process
        found = self._attempt(trial)
        if found.outcome != "whole":
            self._do = in_child
            found = self._attempt(trial)
        return found

    def _attempt(self, trial: Trial) -> Outcome:
        self._number += 1
        root = self.folder / f"trial-{self._number}"  # this process remembers things of paths
        try:
            if trial.id in self.states:
                self.states[trial.id]().write(root)
                return self._after(root, trial)
            self.job.before(root)
            if trial.kind == "killed, run again, power cut":
                return self._cut_after_kill(root, trial)
            if trial.kind == "killed twice":
                first, second = map(int, trial.place.split("."))
                for place in (first, second):  # the second may come too late: then it is one kill
                    in_child(lambda place=place: self._disturbed(root, Fault("killed", place)))
                return self._after(root, trial)
            return self._live(root, trial)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def _disturbed(self, root: Path, fault: Fault) -> None:
        with FileLayer(root, fault)():
            self.job.run(root)

    def _live(self, root: Path, trial: Trial) -> Outcome:
        before = set(root.rglob("*.tmp"))
        do = in_child if trial.kind in KILLS else self._do
        ended = do(lambda: self._disturbed(root, Fault(trial.kind, int(trial.place))))
        if ended.how == "hangs":
            return Outcome("stuck", "the disturbed command does not end")
        if trial.kind in WORDED and ended.how == "raised":
            return Outcome("wordless", ended.said)
        if "ENOSPC" in trial.kind and (found := sorted(set(root.rglob("*.tmp")) - before)):
            return Outcome("left", f"on a full disk: {found}")
        return self._after(root, trial)

    def _cut_after_kill(self, root: Path, trial: Trial) -> Outcome:
        """A kill takes nothing back, a power cut later does: also of what the killed run had not synced."""
        place, _, share = trial.place.partition(".")
        state = self.folder / "state"

        def play() -> str:
            record = Record().begin(root)
            killed = FileLayer(root, Fault("pretend killed", int(place)), keep=True)
            try:
                with killed():
                    self.job.run(root)
            except PretendKilled:
                pass
            again = FileLayer(root, keep=True)
            with again():
                self.job.run(root)
            Record.of(root, [*killed.operations, *again.operations], record)
            first, count = len(killed.operations), len(record.steps)
            end = count if share < "0.5" else first + int(float(share) * (count - first))
            lot = random.Random(trial.id)
            (record.cut("lost", end) if share < "0.25" else record.by_lot(end, lot)).write(state)
            return ""

        ended = self._do(play)
        if ended.how != "ok":
            return Outcome("stuck", f"{ended.how}: {ended.said}")
        shutil.rmtree(root)
        state.rename(root)
        # A command that ended well has promised its bytes: no power cut may take them.
        if self.job.promises and share < "0.5" and (reason := self._differs(root)):
            return reason
        return self._after(root, trial)

    def _after(self, root: Path, trial: Trial) -> Outcome:
        """The same command again, undisturbed, and what is there then."""
        lied = trial.kind == "lost fsync"

        def again() -> str:
            if not lied:
                self.job.check(root)
            try:
                self.job.run(root)
                # Of a file of its right size a start reads nothing; scrub does.
                if found := self.job.heal(root) if lied else []:
                    self.job.run(root)
            except VidloopError:
                raise
            except Exception as error:
                raise _Again(traceback.format_exc()) from error
            self.job.check(root)
            reason = self._differs(root)
            if lied and reason is not None and set(reason.reason.split(", ")) <= set(self.job.unpromised):
                return f"not promised|{reason.reason}"
            left = self.job.left(root) if reason is None else []
            reason = Outcome("left", ", ".join(left)) if left else reason
            if reason is not None:
                return f"{reason.outcome}|{reason.reason}"
            return f"told|{', '.join(found)}" if found else ""

        ended = self._do(again)
        match ended.how:
            case "ok":
                outcome, _, reason = ended.said.partition("|")
                return Outcome(outcome or "whole", reason)
            case "told" if lied and self.job.lies:
                return Outcome("told", ended.said)
            case "raised" if "_Again" not in ended.said and "AssertionError" in ended.said:
                return Outcome("torn", ended.said)
        return Outcome("stuck", f"{ended.how}: {ended.said}")

    def _differs(self, root: Path) -> Outcome | None:
        found = self.job.kept(root)
        if found == self.undisturbed:
            return None
        if missing := sorted(self.undisturbed.keys() - found.keys()):
            return Outcome("lost", ", ".join(missing))
        names = sorted(name for name in found if found[name] != self.undisturbed.get(name))
        return Outcome("changed", ", ".join(names))


class _Late(BaseException):
    """A command does not end."""


class _Again(Exception):
    """The undisturbed command failed, and not in words."""


def sample(bench: Bench, count: int) -> Iterator[tuple[Trial, Outcome]]:
    """Some of the trials, as many of each kind as there can be, and what came of them."""
    by_kind: dict[str, list[Trial]] = {}
    for trial in bench.trials():
        by_kind.setdefault(trial.kind, []).append(trial)
    for place in range(count):
        kinds: list[Any] = [trials for trials in by_kind.values() if place < len(trials)]
        for trials in kinds[: max(0, count - place * len(by_kind))]:
            yield trials[place], bench.attempt(trials[place])
