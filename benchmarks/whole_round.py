"""A whole round of a model of published size, as `vidloop round --plain` plays it.

    python -m benchmarks.whole_round                              Wan2.1-1.3B, a small round: some minutes
    python -m benchmarks.whole_round --recipe recipes/cogvideox-2b.yaml --size 2b --set generate.frames=49

The other benchmarks measure stages by themselves, with the model made on the spot. This one writes a model
with random weights into a folder, as a user has it, and gives that folder to a shipped recipe: what is asked
is whether the stages get along on one GPU (who holds its memory when the next one begins), what each costs,
and that a second round takes everything from the store. CLIP is ViT-B-32 and RAFT the large one, with random
weights too. So the clips are noise, and the verdict means nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.full_size import build_pipeline
from benchmarks.result import RESULTS, Result, command_line, device_name, show, versions, write
from benchmarks.scoring import save_networks
from benchmarks.workload import LIBRARIES
from data.resources import INSTALLED as ROOT
from data.store import Store
from flows.config.load import load_recipe
from tasks.stages import STAGES

# A recipe as shipped, but for how much of everything.
SMALL: Final = (
    "generate.clips_per_prompt=4", "generate.steps=10", "finetune.steps=8", "finetune.batch_size=4",
    "finetune.warmup=2", "evaluate.clips=8", "curate.margin=0.0",
)  # fmt: skip
# Seconds between two looks at the GPUs' memory.
_LOOK_S: Final = 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="a whole round of a model of published size")
    parser.add_argument("--recipe", default="recipes/wan2.1-1.3b.yaml")
    parser.add_argument("--size", default="1.3b", help="see benchmarks/full_size.py; tiny is for tests")
    parser.add_argument("--prompts", type=int, default=4, help="of the recipe's training set")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument(
        "--work", type=Path, help="folder for the model and the store (default: the system's)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="only write the model and the networks")
    options = parser.parse_args(arguments)
    if options.write:
        write_models(load_recipe(options.recipe).model.family, options.size, options.write)
        return
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        run(options, Path(name))


def run(options: argparse.Namespace, work: Path) -> None:
    """Write the model, play the round twice, write `whole-round.json`, print the table."""
    begun = time.monotonic()
    settings = [
        *SMALL, f"generate.only={json.dumps(_names(options.recipe, options.prompts))}",
        f"model.path={work / 'model'}", "model.revision=null", f"clip.model={work / 'clip'}",
        "clip.pretrained=''", f"flow.model={work / 'flow'}", "flow.pretrained=''", *options.set,
    ]  # fmt: skip
    recipe = load_recipe(options.recipe, settings)
    # In a process of its own: what it held on the GPU is gone before the round begins.
    _python(
        "-m",
        "benchmarks.whole_round",
        "--write",
        str(work),
        "--recipe",
        options.recipe,
        "--size",
        options.size,
    )
    written = time.monotonic() - begun
    print(f"model and networks written: {written:.1f} s", flush=True)
    store = work / "store"
    command = ["-m", "flows", "round", "--plain", "--recipe", options.recipe, "--store", str(store)]
    command += [word for one in settings for word in ("--set", one)]
    with memory() as looks:
        first = _python(*command)
    stages = _stages(Store.open(store), looks)
    summary = _newest(store)
    again = _python(*command)
    second = _newest(store)["stages"]
    units = sum(stage["shards"] for stage in second.values())
    cached = sum(stage["cached_shards"] for stage in second.values())
    path = write(
        Result(
            name="whole-round",
            device=device_name(),
            plain=first,
            ours=again,
            ratio=first / again,
            unit="s a round: the first, and the same again from the store",
            shape={
                "model": f"{recipe.model.family}-{options.size}, random weights",
                "recipe": options.recipe,
                "settings": [*SMALL, *options.set],
                "prompts": options.prompts,
            },
            equality={"units": units, "from the store the second time": cached, "same": units == cached},
            command=command_line(),
            versions=versions(*LIBRARIES),
            details={
                "model and networks written (s)": round(written, 1),
                "stages": stages,
                "verdict": summary["verdict"],
                "learned": summary["policy_after"] is not None,
            },
        ),
        options.out,
    )
    show(
        f"A whole round, {recipe.model.family}-{options.size} (random weights)",
        ["stage", "units", "seconds", "peak GiB of a GPU"],
        [
            [name, str(one["units"]), f"{one['seconds']:.1f}", "-" if one["peak GiB"] is None else
             f"{one['peak GiB']:.1f}"]
            for name, one in stages.items()
        ],
    )  # fmt: skip
    print(f"{first:.1f} s, and again {again:.1f} s with {cached} of {units} units from the store: {path}")


def write_models(family: str, size: str, work: Path) -> None:
    """A pipeline in diffusers layout and the networks of two rewards, below `work`."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    build_pipeline(family, size, device).save_pretrained(work / "model", safe_serialization=True)
    save_networks(work / "clip", work / "flow")


@contextmanager
def memory() -> Iterator[list[tuple[float, float]]]:
    """While the block runs, GiB used of the fullest GPU, with the time (Unix seconds) of each look."""
    looks: list[tuple[float, float]] = []
    done = threading.Event()

    def look() -> None:
        ask = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while not done.wait(_LOOK_S):
            try:
                answer = subprocess.run(ask, capture_output=True, text=True, timeout=10, check=True)
                looks.append((time.time(), max(float(line) for line in answer.stdout.split()) / 1024))
            except (OSError, subprocess.SubprocessError, ValueError):
                return  # no GPU: the table says "-"

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield looks
    finally:
        done.set()
        thread.join(15)


def _stages(store: Store, looks: Sequence[tuple[float, float]]) -> dict[str, dict[str, Any]]:
    """What each stage of the only round so far cost, from the run's log."""
    (log,) = sorted((store.root / "runs").glob("*.jsonl"))
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    found = {}
    for event in events:
        if event["event"] == "stage":
            end = datetime.fromisoformat(event["time"]).timestamp()
            used = [gib for at, gib in looks if end - event["seconds"] <= at <= end]
            found[event["stage"]] = {
                "units": event["shards"],
                "seconds": round(event["seconds"], 1),
                "peak GiB": round(max(used), 1) if used else None,
            }
    assert list(found) == list(STAGES), found
    return found


def _names(recipe: str, count: int) -> list[str]:
    """The first prompts of the recipe's training set, taken from its categories in turn."""
    from data.prompts import load_prompts

    prompts = load_prompts(load_recipe(recipe).generate.prompts)
    return [prompt.prompt_id for prompt in prompts[:: max(1, len(prompts) // count)][:count]]


def _newest(store: Path) -> Mapping[str, Any]:
    newest = max((store / "rounds").glob("*/summary.json"), key=lambda path: path.stat().st_mtime_ns)
    summary: Mapping[str, Any] = json.loads(newest.read_text(encoding="utf-8"))
    return summary


def _python(*arguments: str) -> float:
    """Seconds of `python <arguments>` in the checkout. Raises SystemExit if it fails; it has said why."""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env={"OMP_NUM_THREADS": "1", **os.environ})
    if done.returncode != 0:
        raise SystemExit(f"python {' '.join(arguments[:4])} failed")
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
