"""Generation over two workers, a GPU and a process each, against one: `benchmarks.generation --two-gpus`.

Both workers build the same weights and warm up; then one makes all clips while the other waits, and then each
makes half of them into one store, as two workers of one store do. The clips must be the same, byte for byte:
batches are cut before they are shared out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.result import Result, command_line, device_name, show, versions, write
from benchmarks.workload import LIBRARIES, Workload, ours
from data.store import Store
from models.settings import SampleSettings

WORKERS: Final = 2
_PATIENCE: Final = 900.0


def compare(work: Workload, clips: int, out: Path) -> None:
    """Measure both, write `generation-two-gpus.json`, print the table."""
    batches = max(WORKERS, clips // work.batch_size // WORKERS * WORKERS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "work.json").write_text(json.dumps({**asdict(work), "batches": batches}))
        workers = [_start(folder, index, work.device) for index in range(WORKERS)]
        try:
            for index in range(WORKERS):
                _await(folder / f"ready-{index}", workers)
            alone = _phase(folder, "one", [0], workers)
            both = _phase(folder, "two", list(range(WORKERS)), workers)
        finally:
            for worker in workers:
                if worker.poll() is None:
                    worker.terminate()
                worker.wait(30)
        single, shared = (_files(folder / phase) for phase in ("one", "two"))
    same = sum(single[seed] == shared.get(seed) for seed in single)
    count = batches * work.batch_size
    plain, mine = 3600 * count / alone, 3600 * count / both
    path = write(
        Result(
            name="generation-two-gpus",
            device=device_name(),
            plain=plain,
            ours=mine,
            ratio=mine / plain,
            unit="clips per hour, prompt to mp4 on disk: one worker against two",
            shape={**work.as_json(), "clips": count},
            equality={"clips of the same bytes": same, "clips": count, "same": same == count},
            command=command_line(),
            versions=versions(*LIBRARIES),
            details={"seconds": {"one worker": alone, "two workers": both}},
        ),
        out,
    )
    show(
        f"Generation over two workers, {work.shape}, {work.sample.steps} steps",
        ["", "clips", "seconds", "clips an hour", "ratio"],
        [
            ["one worker", str(count), f"{alone:.1f}", f"{plain:.1f}", "1.00"],
            ["two workers", str(count), f"{both:.1f}", f"{mine:.1f}", f"{mine / plain:.2f}"],
        ],
    )
    print(f"{same} of {count} clips have the same bytes; written to {path}")


def _start(folder: Path, index: int, device: str) -> subprocess.Popen[bytes]:
    visible = {"CUDA_VISIBLE_DEVICES": str(index)} if device.startswith("cuda") else {}
    checkout = Path(__file__).resolve().parent.parent
    path = os.pathsep.join([str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.two_gpus", str(folder), str(index)],
        env={**os.environ, **visible, "PYTHONPATH": path},
    )


def _phase(folder: Path, name: str, who: Sequence[int], workers: Sequence[Any]) -> float:
    """Seconds from the word go until the last of `who` is done."""
    Store.open(folder / name, create=True)
    begun = time.monotonic()
    (folder / f"go-{name}").touch()
    for index in who:
        _await(folder / f"done-{name}-{index}", workers)
    return time.monotonic() - begun


def _await(path: Path, workers: Sequence[Any]) -> None:
    begun = time.monotonic()
    while not path.exists():
        dead = [worker for worker in workers if worker.poll() not in (None, 0)]
        if dead:
            raise SystemExit(f"a worker ended with status {dead[0].returncode}; its error stands above")
        if time.monotonic() - begun > _PATIENCE:
            raise SystemExit(f"no worker wrote {path.name} within {_PATIENCE:.0f} s")
        time.sleep(0.05)


def _files(root: Path) -> dict[int, tuple[str, str]]:
    """Digests of file and latents by seed."""
    store = Store.open(root)
    keys = [manifest.key for manifest in store.manifests("generate")]
    return {
        row.seed: (row.video_sha256, f"{row.latent_path}:{row.latent_row}")
        for key in keys
        for row in store.read(key, "clips")
    }


def _worker(folder: Path, index: int) -> None:
    facts = json.loads((folder / "work.json").read_text())
    batches = facts.pop("batches")
    sample = SampleSettings(**facts.pop("sample"))
    work = Workload(sample=sample, **facts)
    jobs = work.jobs(batches * work.batch_size)
    with ours(work.pipeline(), work) as mine:
        (folder / f"ready-{index}").touch()
        for phase, share in (("one", jobs if index == 0 else []), ("two", _half(jobs, work, index))):
            if share:
                _await(folder / f"go-{phase}", [])
                mine.run(share, folder / phase)
                (folder / f"done-{phase}-{index}").touch()


def _half(jobs: Sequence[Any], work: Workload, index: int) -> list[Any]:
    """Every second batch, whole: a batch keeps its clips whoever makes it."""
    size = work.batch_size
    return [
        job for start in range(index * size, len(jobs), WORKERS * size) for job in jobs[start : start + size]
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="one worker of benchmarks.generation --two-gpus")
    parser.add_argument("folder", type=Path)
    parser.add_argument("index", type=int)
    options = parser.parse_args()
    _worker(options.folder, options.index)
