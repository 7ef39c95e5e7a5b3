"""Command `doctor`: what this machine can run, and what is missing."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from data.errors import VidloopError
from data.plugins import GROUPS, Plugin, plugins
from data.resources import find
from data.store import Store, backend_of, format
from data.store.backend import Backend
from data.store.durable_files import storage_errors
from data.store.folder import Folder
from data.store.trials import file_systems, trials
from flows.cli.app import BAD_INPUT, answers, app
from flows.cli.options import StoreOption
from flows.config.load import load_recipe, shipped
from flows.reporting.messages import DEFAULT_STORE
from flows.serving.checks import Finding, check_serving, tried
from flows.serving.server_config import DEFAULT_FOLDER
from rewards.judge.server import environment_python
from rewards.judge.settings import JudgeSettings
from rewards.registry import sources

_LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "duckdb",
    "av",
    "opencv-python-headless",
    "prefect",
    "fastapi",
)


@app.command("doctor")
@answers
def doctor(
    store: StoreOption = DEFAULT_STORE,
    serve: Annotated[
        str, typer.Option("--serve", help="Folder that `vidloop serve` was given.")
    ] = DEFAULT_FOLDER,
) -> None:
    """Look at Python, libraries, devices, plug-ins, recipes, store, server; exit code 2 if one is wrong."""
    backend = backend_of(store)
    looked_at = (
        _python(),
        _devices(),
        _judge(),
        _plugins(),
        *(tried(path, partial(_recipe, path)) for path in shipped()),
        tried(f"store {backend.url}", partial(_store, backend)),
        check_serving(serve),
    )
    wrong = False
    for finding in itertools.chain.from_iterable(looked_at):
        print(f"ok    {finding.what}" if finding.fine else f"MISS  {finding.what}: {finding.remedy}")
        wrong |= not finding.fine
    if wrong:
        raise typer.Exit(BAD_INPUT)


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 12)
    yield Finding(f"Python {version}", fits, "vidloop runs on 3.11 and 3.12")
    for name in _LIBRARIES:
        try:
            yield Finding(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, False, "not installed; `make setup` installs it")


def _devices() -> Iterator[Finding]:
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    yield Finding(f"{os.cpu_count()} CPU cores, OMP_NUM_THREADS {threads}")
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", False, f"does not start: {error}")
        return
    if not torch.cuda.is_available():
        yield Finding("no CUDA device: the miniature runs on the CPU, larger models need a GPU")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding(f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB")


def _judge() -> Iterator[Finding]:
    """What a vLLM server of the run's own needs; a run without one does without it."""
    try:
        yield Finding(f"vLLM's environment {environment_python(JudgeSettings().venv).parents[1]}")
    except VidloopError:
        yield Finding("no environment with vLLM; judge.backend vllm needs one: `make judge` makes it")
    processors = Path("/proc/cpuinfo")
    if not processors.exists() or "avx2" not in processors.read_text("utf-8", "replace").split():
        yield Finding("no AVX2: vLLM does not run on this CPU, judge.backend local does")
    if shutil.which("g++") is None:
        yield Finding("no g++: vLLM compiles with it on a CPU; judge.backend local does without")


def _plugins() -> Iterator[Finding]:
    """What rewards there are, and what installed packages, and those on the path, add to the loop."""
    yield from tried(
        "rewards", lambda: [Finding(f"reward {name} of {source}") for name, source in sources().items()]
    )
    for group in GROUPS:
        yield from tried(f"plug-ins {group}", partial(_group, group))


def _group(group: str) -> Iterator[Finding]:
    for plugin in plugins(group).values():
        yield from tried(f"plug-in {group}: {plugin.name}", partial(_plugin, plugin))


def _plugin(plugin: Plugin) -> Iterator[Finding]:
    plugin.load()
    yield Finding(f"plug-in {plugin.group}: {plugin.name} ({plugin.target}) of {plugin.source}")


def _recipe(path: str) -> Iterator[Finding]:
    model = load_recipe(path).model
    local = find(model.path)
    if (local / "model_index.json").exists():
        yield Finding(f"{path}: model {model.path}")
    elif model.path.count("/") == 1 and not local.is_absolute():  # a hub id
        lacks = "" if model.revision else "; before its first round, name a commit in model.revision"
        yield Finding(f"{path}: model {model.path} of the hub{lacks}")
    else:
        yield Finding(path, False, f"no model at {local}")


def _store(backend: Backend) -> Iterator[Finding]:
    if not format.is_missing(backend):
        opened = Store.open(backend.url)
        keys = [manifest.key for manifest in opened.manifests()]
        broken = [key[:12] for key in keys if opened.verify(key, "size") is not None]
        yield Finding(
            f"store {backend.url}: {len(keys)} units",
            not broken,
            f"{len(broken)} do not verify, a round computes them again: {', '.join(broken)}",
        )
    else:
        yield Finding(f"no store at {backend.url} yet; a round makes one")
    if not isinstance(backend, Folder):
        backend.make()  # the bucket is there, and answers
        yield from (Finding(one.what, not one.fault, one.fault) for one in backend.trials())
    elif not format.is_missing(backend):
        yield from _file_systems(backend.root, backend.root)
    else:
        place = next(parent for parent in backend.root.parents if parent.exists())
        with storage_errors(place), TemporaryDirectory(dir=place) as folder:
            yield from _file_systems(Path(folder), place)


def _file_systems(root: Path, named: Path) -> Iterator[Finding]:
    """Whether a store can lie at `root`, tried on the spot; `named` is what a person calls it."""
    for name, folder in file_systems(root).items():
        if folder.exists():
            free = shutil.disk_usage(folder).free
            lacks = "less than 1 GiB: make room, or give --store"
            yield Finding(f"{free / 2**30:.1f} GiB free at {folder if name else named}", free > 2**30, lacks)
    yield from (Finding(f"{named}: {one.what}", not one.fault, one.fault) for one in trials(root))
