"""Generation on all GPUs of a machine against one of them: `benchmarks.generation --two-gpus`.

Both are the product's generate stage in processes of `tasks.spread`, one a GPU, which have loaded their
models and are warm before the clock runs. First every GPU works while the others are idle, one after the
other: on its part of the clips, so that together they take what one GPU takes, or (`--whole`) on all of them,
so that what a process spends once is in the comparison too: each measurement begins with every prompt still
to be encoded. Whichever it is, no GPU is taken for the other (two cards of a host need not be equally fast).
Then all make all clips at once. The clips must be the same, byte for byte: batches are cut before they are
shared out.
"""

from __future__ import annotations

import atexit
import queue
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.harness import Result, write
from benchmarks.workload import LIBRARIES, NO_POLICY, Workload, ours
from data.store import Store
from data.threads import cores
from models.sampling.sampler import Sampler
from tasks import spread
from tasks.context import ClipJob
from tasks.generate import shards
from tasks.units import Runner, Unit
from tasks.worker_pool import WorkerPool

# Batches at a time in one process: one is computed while the files of another are written.
SLOTS: Final = 2

# In a worker process: what `Ready` has loaded, until the process ends.
_LOADED: Final = ExitStack()
_SAMPLERS: Final[list[Sampler]] = []


@dataclass(frozen=True)
class Ready:
    """A unit that has its process build the model and warm up."""

    work: Workload
    spreads: bool = True

    def run(self) -> None:
        """See the class."""
        _SAMPLERS.append(_LOADED.enter_context(ours(self.work.pipeline(), self.work)).sampler)
        atexit.register(_LOADED.close)


@dataclass(frozen=True)
class Forget:
    """A unit that has its process encode every prompt again."""

    spreads: bool = True

    def run(self) -> None:
        """See the class."""
        for sampler in _SAMPLERS:
            if sampler.texts is not None:
                sampler.texts.forget()


def compare(work: Workload, clips: int, out: Path, whole: bool = False) -> None:
    """Measure both, write the result, print the table.

    Args:
        work: what is made, and on which kind of device.
        clips: of all GPUs together; whole batches for each.
        out: folder of `generation-two-gpus.json`, or of `generation-two-gpus-whole.json`.
        whole: each GPU alone makes all clips, not its part of them.
    """
    devices = spread.visible() if work.device.startswith("cuda") else ["0", "1"]
    if len(devices) < 2:
        raise SystemExit(f"this machine shows {len(devices)} GPU; two are needed")
    jobs = work.jobs(work.whole(clips // len(devices)) * len(devices))
    parts = [jobs if whole else jobs[start :: len(devices)] for start in range(len(devices))]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        crews = [WorkerPool([device], SLOTS, max(1, cores() // len(devices))) for device in devices]
        for crew in crews:
            stack.callback(crew.close)
        with ThreadPoolExecutor(len(crews)) as pool:
            list(pool.map(lambda crew: crew.run(Ready(work)), crews))
        alone = [
            _seconds(work, [crew], part, folder / f"alone-{place}")
            for place, (crew, part) in enumerate(zip(crews, parts, strict=True))
        ]
        # In the order in which the parts were cut into batches: only then are the batches the same.
        order = jobs if whole else [job for part in parts for job in part]
        together = _seconds(work, crews, order, folder / "all")
        made = [_files(folder / f"alone-{place}") for place in range(len(crews))]
        shared = _files(folder / "all")
    same = sum(
        all(files.get(seed, file) == file for files in made) and any(seed in files for files in made)
        for seed, file in shared.items()
    )
    # Seconds of one GPU for all clips.
    one = sum(alone) / (len(alone) if whole else 1)
    result = Result(
        "generation-two-gpus-whole" if whole else "generation-two-gpus",
        3600 * len(jobs) / one,
        3600 * len(jobs) / together,
        f"clips per hour, prompt to mp4 on disk: one GPU against {len(devices)}",
        more_is_better=True,
        libraries=LIBRARIES,
        shape={**work.as_json(), "clips": len(jobs)},
        equality={"clips of the same bytes": same, "clips": len(jobs), "same": same == len(jobs)},
        details={
            "seconds": {f"each alone, {'all' if whole else 'its part'}": alone, "all at once": together}
        },
    )
    write(result, out)


def _seconds(work: Workload, crews: Sequence[WorkerPool], jobs: Sequence[ClipJob], root: Path) -> float:
    """Of these clips by these processes, files and manifests included."""
    for crew in crews:
        crew.run(Forget())
    store = Store.open(root, create=True)
    units = shards(replace(work.generation(), root=str(root)), NO_POLICY, jobs)
    begun = time.monotonic()
    Runner(workers=SLOTS * len(crews), execute=_shared_out(crews))(store, "generate", units)
    return time.monotonic() - begun


def _shared_out(crews: Sequence[WorkerPool]) -> Callable[[Unit], None]:
    """Give each unit to the process that has had a free slot for longest, as a pool does with its own."""
    free: queue.SimpleQueue[WorkerPool] = queue.SimpleQueue()
    for crew in [*crews] * SLOTS:
        free.put(crew)

    def execute(unit: Unit) -> None:
        crew = free.get()
        try:
            crew.run(unit)
        finally:
            free.put(crew)

    return execute


def _files(root: Path) -> dict[int, tuple[str, str]]:
    """Digests of file and latents by seed."""
    store = Store.open(root)
    return {
        row.seed: (row.video_sha256, f"{row.latent_path}:{row.latent_row}")
        for manifest in store.manifests("generate")
        for row in store.read(manifest.key, "clips")
    }
