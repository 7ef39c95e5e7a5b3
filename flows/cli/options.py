"""What commands have in common: options, reports on the terminal, and Prefect made ready."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from data.store import Store
from flows.reporting import console
from flows.reporting.messages import DEFAULT_RECIPE
from tasks.stages import STAGES


def _known_stage(name: str | None) -> str | None:
    if name is not None and name not in STAGES:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(STAGES)}")
    return name


RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="YAML file with every setting.")]
StoreOption = Annotated[
    str, typer.Option("--store", "-s", help="Folder, or s3://BUCKET/PREFIX, that keeps everything.")
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="Change a setting: a.b=c, any number of times. A text is c to the letter, all else YAML.",
        metavar="KEY=VALUE",
    ),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from-stage",
        help="Start here; the stages before must be whole in the store.",
        metavar="|".join(STAGES),
        callback=_known_stage,
    ),
]
PlainOption = Annotated[
    bool, typer.Option("--plain", help="Without Prefect: the same work, the same results.")
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Only show what would run.")]

NOTHING_SET: list[str] = []


def report_on_terminal(recipe: str, set_: Sequence[str], plain: bool) -> None:
    """Have a round told on this command's terminal; what it was told itself, it names for the next one."""
    changes = (word for change in set_ if _stays(change) for word in ("--set", change))
    chosen = [] if recipe == DEFAULT_RECIPE else ["--recipe", recipe]
    console.choose(console.to_console(Console(), [*chosen, *(["--plain"] if plain else []), *changes]))


def _stays(change: str) -> bool:
    """Whether `key=value` is said of the next round too, which has a start and a seed of its own."""
    return change.partition("=")[0].strip().split(".")[0] not in ("policy", "seed")


@contextmanager
def prefect_ready(store: Store, run_id: str) -> Iterator[None]:
    """Prefect as vidloop needs it: set, with a server to talk to (a temporary one where none is named)."""
    from flows.serving import prefect_settings

    prefect_settings.apply()
    if named := prefect_settings.named_server():
        prefect_settings.check_server(named)
        yield
        return
    from flows.serving.temporary_server import TemporaryServer

    server = TemporaryServer(store.backend.workspace / f"runs/{run_id}.prefect.log")
    # Both take seconds: at the same time, on two cores.
    from prefect.settings import PREFECT_API_URL, temporary_settings

    server.wait()
    with temporary_settings({PREFECT_API_URL: server.url}):
        yield
