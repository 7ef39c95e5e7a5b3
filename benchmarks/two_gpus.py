"""Generation on all GPUs of a machine against one of them: `benchmarks.generation --two-gpus`.

Both are the product's generate stage over the same weights: in one process on one GPU, and spread over a
process for each GPU (`tasks.spread`, `model.device: cuda:all`). Models are loaded and warm before the clock
runs. The clips must be the same, byte for byte: batches are cut before they are shared out.
"""

from __future__ import annotations

import atexit
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.result import Result, command_line, device_name, show, versions, write
from benchmarks.workload import LIBRARIES, NO_POLICY, Workload, ours
from data.store import Store
from tasks import spread
from tasks.generate import shards
from tasks.units import Runner

# Batches at a time in one process: one is computed while the files of another are written.
SLOTS: Final = 2

# In a worker process: what `Ready` has loaded, until the process ends.
_LOADED: Final = ExitStack()


@dataclass(frozen=True)
class Ready:
    """A unit that has its process build the model and warm up."""

    work: Workload
    spreads: bool = True

    def run(self) -> None:
        """See the class."""
        _LOADED.enter_context(ours(self.work.pipeline(), self.work))
        atexit.register(_LOADED.close)


def compare(work: Workload, clips: int, out: Path) -> None:
    """Measure both, write `generation-two-gpus.json`, print the table."""
    devices = spread.visible() if work.device.startswith("cuda") else ["0", "1"]
    if len(devices) < 2:
        raise SystemExit(f"this machine shows {len(devices)} GPU; two are needed")
    batches = max(len(devices), clips // work.batch_size // len(devices) * len(devices))
    jobs = work.jobs(batches * work.batch_size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ours(work.pipeline(), work) as mine:
            alone = mine.run(jobs, folder / "one").seconds
            how = mine.how
        with spread.spread_over(devices, SLOTS):
            with ThreadPoolExecutor(len(devices)) as pool:
                list(pool.map(spread.run, [Ready(work)] * len(devices)))
            store = Store.open(folder / "all", create=True)
            units = shards(replace(how, root=str(folder / "all")), NO_POLICY, jobs)
            begun = time.monotonic()
            Runner(workers=SLOTS * len(devices))(store, "generate", units)
            spread_out = time.monotonic() - begun
        single, shared = (_files(folder / phase) for phase in ("one", "all"))
    same = sum(single[seed] == shared.get(seed) for seed in single)
    plain, theirs = 3600 * len(jobs) / alone, 3600 * len(jobs) / spread_out
    path = write(
        Result(
            name="generation-two-gpus",
            device=device_name(),
            plain=plain,
            ours=theirs,
            ratio=theirs / plain,
            unit=f"clips per hour, prompt to mp4 on disk: one GPU against {len(devices)}",
            shape={**work.as_json(), "clips": len(jobs)},
            equality={"clips of the same bytes": same, "clips": len(jobs), "same": same == len(jobs)},
            command=command_line(),
            versions=versions(*LIBRARIES),
            details={"seconds": {"one": alone, "all": spread_out}},
        ),
        out,
    )
    show(
        f"Generation on all GPUs, {work.shape}, {work.sample.steps} steps",
        ["GPUs", "clips", "seconds", "clips an hour", "ratio"],
        [
            ["1", str(len(jobs)), f"{alone:.1f}", f"{plain:.1f}", "1.00"],
            [
                str(len(devices)),
                str(len(jobs)),
                f"{spread_out:.1f}",
                f"{theirs:.1f}",
                f"{theirs / plain:.2f}",
            ],
        ],
    )
    print(f"{same} of {len(jobs)} clips have the same bytes; written to {path}")


def _files(root: Path) -> dict[int, tuple[str, str]]:
    """Digests of file and latents by seed."""
    store = Store.open(root)
    keys = [manifest.key for manifest in store.manifests("generate")]
    return {
        row.seed: (row.video_sha256, f"{row.latent_path}:{row.latent_row}")
        for key in keys
        for row in store.read(key, "clips")
    }
