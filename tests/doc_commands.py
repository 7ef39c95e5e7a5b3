"""What the lines of a shell in the documentation call, and whether it would be understood.

Bash itself reads the lines, in a folder of the test's; a program of ours or one that reaches out is a stand-in
there, which notes how it was called. Each call is then held to the real thing: to vidloop's own command line and
recipes, to `make -n`, to a module's own options, to the services of docker-compose.yml, to Prefect's routes.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock
from urllib.parse import urlsplit

import typer
import yaml

from flows.cli.main import commands
from flows.config.load import load_recipe
from flows.serving import prefect_settings
from tests.doc_blocks import ROOT

# Programs with a stand-in. Any other runs as it is: cp, cat, echo, sha256sum.
_NOTED: Final = ("vidloop", "make", "docker", "prefect", "curl", "pip")
_NOTE: Final = """#!/bin/bash
printf '%s\\x1f' "${0##*/}" "$@" >> "$CALLS"
printf '\\x1e' >> "$CALLS"
"""
_PYTHON: Final = (
    f'#!/bin/bash\nif [ "$1" = -c ]; then exec {sys.executable} -I "$@"; fi\n' + _NOTE.split("\n", 1)[1]
)
_DUCKDB: Final = (
    f"#!/bin/bash\nexec {sys.executable} -I -c 'import duckdb, sys; print(duckdb.sql(sys.stdin.read()))'\n"
)


def called(lines: str, folder: Path) -> list[list[str]]:
    """Every call of a program of ours in `lines`, run by bash in `folder`; AssertionError if bash fails."""
    bin_ = folder / ".venv/bin"
    bin_.mkdir(parents=True, exist_ok=True)
    stand_ins = (
        dict.fromkeys(_NOTED, _NOTE) | dict.fromkeys(("python", "python3"), _PYTHON) | {"duckdb": _DUCKDB}
    )
    for name, text in stand_ins.items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    (folder / ".venv-fuzz").unlink(missing_ok=True)
    (folder / ".venv-fuzz").symlink_to(".venv")
    calls = folder / "calls"
    calls.write_bytes(b"")
    environment = {"PATH": f"{bin_}:/usr/bin:/bin", "HOME": os.environ["HOME"], "CALLS": str(calls)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [call.split("\x1f")[:-1] for call in calls.read_text("utf-8").split("\x1e")[:-1]]


@dataclass(frozen=True)
class Asked:
    """One call of `vidloop` as its own command line understands it: "champion show", and every option's value."""

    command: str
    words: tuple[str, ...]
    options: dict[str, Any]

    @property
    def only_looks(self) -> bool:
        """Whether it computes next to nothing, so that a quick test runs it as it stands."""
        looks = {"query", "report", "compare", "plan", "explain", "doctor", "champion show", "gc", "remake"}
        return self.command in looks or bool(self.options.get("dry_run"))


def vidloop(words: list[str]) -> Asked | None:
    """Hold a call of `vidloop` to its options and its recipe; None of one that only asks for help."""
    seen: list[tuple[str, dict[str, Any]]] = []

    def note(name: str, command: Any) -> None:
        if command.callback is not None and name:
            command.callback = lambda **options: seen.append((name, options))
        for word, inner in getattr(command, "commands", {}).items():
            note(f"{name} {word}".strip(), inner)

    tree = typer.main.get_command(commands())
    note("", tree)
    tree.main(list(words), prog_name="vidloop", standalone_mode=False)
    if not seen:
        return None
    name, options = seen[-1]
    if name.startswith("study"):
        from studies.recipe import load_study

        load_study(options["recipe"], options.get("set_", ()))
    elif options.get("recipe"):
        load_recipe(options["recipe"], options.get("set_", ()))
    return Asked(name, tuple(words), options)


def make(words: list[str]) -> list[list[str]]:
    """Hold a call of `make` to the Makefile; what it would call of `vidloop`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "-n", "-C", str(ROOT), *words], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^(?!echo).*?\S+bin/vidloop (.*)$", done.stdout, re.MULTILINE)
    return [shlex.split(line) for line in told]


def python(words: list[str]) -> None:
    """Hold `python -m MODULE OPTIONS` to the module's own options; one without options is looked for.

    The module runs up to where it has read its options, or, if it has no parser, to its end.
    """
    flag, module, *options = words
    assert flag == "-m"
    if module == "flows":
        vidloop(options)
        return
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"there is no module {module}"
    if not options:
        return
    understood = argparse.ArgumentParser.parse_args

    class Understood(BaseException):  # which no module takes for an error of its own
        pass

    def only_parse(parser: argparse.ArgumentParser, given: Any = None, namespace: Any = None) -> None:
        understood(parser, given, namespace)
        raise Understood

    ended: int | str | None = None
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", only_parse),
        mock.patch.object(sys, "argv", [module, *options]),
        mock.patch.dict(os.environ, {**prefect_settings.DEFAULTS, **prefect_settings.ALWAYS}),
        warnings.catch_warnings(action="ignore", category=RuntimeWarning),  # the module was imported before
    ):
        try:
            runpy.run_module(module, run_name="__main__")
        except Understood:
            pass  # it would begin its work now
        except SystemExit as end:
            ended = end.code
    assert not ended, f"{module} does not understand {options}"


def docker(words: list[str]) -> None:
    """Hold `docker compose WHAT SERVICE ...` to docker-compose.yml, and what runs in a service to its program."""
    compose, what, *rest = words
    assert compose == "compose"
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    named = [word for word in rest if not word.startswith("-")]
    if what == "exec":
        assert named[0] in services
        inner = rest[rest.index(named[0]) + 1 :]
        if inner[0] == "python":
            python(inner[1:])
        return
    assert what in ("up", "down", "ps", "logs")
    assert set(named) <= {*services, "judge"}  # the judge's is in the file that judge_command makes


def prefect(words: list[str]) -> None:
    """Hold a call of Prefect's command to its options."""
    from prefect.cli._app import _app

    _app.parse_args(words, exit_on_error=False, print_error=False)


def curl(words: list[str]) -> None:
    """Hold a call of Prefect's API to its routes, and an answer to a suspended run to its form."""
    from prefect.server.api.flow_runs import router

    from flows.rounds.approval import Approval

    (address,) = (word for word in words if word.startswith("http"))
    path = urlsplit(address).path.removeprefix("/api").replace("/ID/", "/{id}/")
    assert path in {re.sub(r"{\w+:\w+}", "{id}", getattr(route, "path", "")) for route in router.routes}
    body = json.loads(words[words.index("-d") + 1])
    Approval.model_validate(body["run_input"])


def pip(words: list[str]) -> None:
    """Hold `pip install -r FILE ...` to the files of the checkout."""
    what, *rest = words
    assert what == "install"
    assert all((ROOT / file).is_file() for option, file in itertools.pairwise(rest) if option == "-r")


_HELD: Final = {
    "python": python, "python3": python, "docker": docker, "prefect": prefect, "curl": curl, "pip": pip,
}  # fmt: skip


def asked(calls: list[list[str]]) -> Iterator[Asked]:
    """Hold every call to its program; those of `vidloop`, also where `make` calls it."""
    for program, *words in calls:
        if program in ("vidloop", "make"):
            for one in [words] if program == "vidloop" else make(words):
                if found := vidloop(one):
                    yield found
        else:
            _HELD[program](words)
