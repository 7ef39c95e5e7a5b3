"""Command `doctor`: what this machine can run, and what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from data.errors import VidloopError
from data.plugins import GROUPS, plugins
from data.resources import find
from data.store import Store
from flows.cli.app import BAD_INPUT, answers, app
from flows.cli.options import StoreOption
from flows.config.load import load_recipe, shipped
from flows.reporting.messages import DEFAULT_STORE
from flows.serving.checks import Finding, check_serving
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
    looked_at = (_python(), _devices(), _judge(), _plugins(), _recipes(), _store(store), check_serving(serve))
    findings = [finding for one in looked_at for finding in one]
    for finding in findings:
        print(f"ok    {finding.what}" if finding.fine else f"MISS  {finding.what}: {finding.remedy}")
    if not all(finding.fine for finding in findings):
        raise typer.Exit(BAD_INPUT)


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 12)
    yield Finding(f"Python {version}", fits, "vidloop runs on 3.11 and 3.12")
    for name in _LIBRARIES:
        try:
            yield Finding(f"{name} {importlib.metadata.version(name)}", True)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, False, "not installed; `make setup` installs it")


def _devices() -> Iterator[Finding]:
    yield Finding(
        f"{os.cpu_count()} CPU cores, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}", True
    )
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", False, f"does not start: {error}")
        return
    if not torch.cuda.is_available():
        yield Finding("no CUDA device: the miniature runs on the CPU, larger models need a GPU", True)
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding(f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB", True)


def _judge() -> Iterator[Finding]:
    """What a vLLM server of the run's own needs; a run without one does without it."""
    try:
        yield Finding(f"vLLM's environment {environment_python(JudgeSettings().venv).parents[1]}", True)
    except VidloopError:
        yield Finding("no environment with vLLM; judge.backend vllm needs one: `make judge` makes it", True)
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        flags = ""
    if "avx2" not in flags.split():
        yield Finding("no AVX2: vLLM does not run on this CPU, judge.backend local does", True)
    if shutil.which("g++") is None:
        yield Finding("no g++: vLLM compiles with it on a CPU; judge.backend local does without", True)


def _plugins() -> Iterator[Finding]:
    """What rewards there are, and what installed packages, and those on the path, add to the loop."""
    try:
        for name, source in sources().items():
            yield Finding(f"reward {name} of {source}", True)
    except VidloopError as error:
        yield Finding("rewards", False, str(error))
    for group in GROUPS:
        try:
            found = plugins(group).values()
        except VidloopError as error:
            yield Finding(f"plug-ins {group}", False, str(error))
            continue
        for plugin in found:
            try:
                plugin.load()
            except VidloopError as error:
                yield Finding(f"plug-in {group}: {plugin.name}", False, str(error))
            else:
                yield Finding(f"plug-in {group}: {plugin.name} ({plugin.target}) of {plugin.source}", True)


def _recipes() -> Iterator[Finding]:
    for path in shipped():
        try:
            recipe = load_recipe(path)
        except VidloopError as error:
            yield Finding(path, False, str(error))
            continue
        model, local = recipe.model, find(recipe.model.path)
        if (local / "model_index.json").exists():
            yield Finding(f"{path}: model {model.path}", True)
        elif model.path.count("/") == 1 and not local.is_absolute():  # a hub id
            lacks = "" if model.revision else "; before its first round, name a commit in model.revision"
            yield Finding(f"{path}: model {model.path} of the hub{lacks}", True)
        else:
            yield Finding(path, False, f"no model at {local}")


def _store(store: str) -> Iterator[Finding]:
    root = Path(store).expanduser().absolute()
    if not (root / "format.json").exists():
        yield Finding(f"no store at {root} yet; a round makes one", True)
        root = next(parent for parent in root.parents if parent.exists())
    else:
        try:
            opened = Store.open(root)
            broken = [
                key for key in (m.key for m in opened.manifests()) if opened.verify(key, "size") is not None
            ]
        except VidloopError as error:
            yield Finding(f"store {root}", False, str(error))
            return
        yield Finding(
            f"store {root}: {len(opened.manifests())} units",
            not broken,
            f"{len(broken)} do not verify, a round computes them again: {', '.join(k[:12] for k in broken)}",
        )
    free = shutil.disk_usage(root).free
    yield Finding(
        f"{free / 2**30:.1f} GiB free at {root}", free > 2**30, "less than 1 GiB: make room, or give --store"
    )
    yield Finding(
        f"{root} is writable", os.access(root, os.W_OK), "make it writable for this user, or give --store"
    )
