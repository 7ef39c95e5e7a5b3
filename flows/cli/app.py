"""The command line: `vidloop`. The other files here hold its commands.

Exit codes: 0 done, 2 bad input, 3 a stage failed, 130 interrupted.
"""

from __future__ import annotations

import functools
import logging
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, TextIO

import typer

from data.errors import VidloopError
from data.version import VERSION

BAD_INPUT, FAILED, INTERRUPTED = 2, 3, 130

Parameters = ParamSpec("Parameters")

app = typer.Typer(
    name="vidloop",
    help="A text-to-video model that rehearses: generate, score, curate, finetune, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
champion_app = typer.Typer(help="The best policy so far.", no_args_is_help=True)
app.add_typer(champion_app, name="champion")
import_app = typer.Typer(help="Bring in what was made elsewhere.", no_args_is_help=True)
app.add_typer(import_app, name="import")

_debug = False


class _Terminal(logging.StreamHandler[TextIO]):
    """Warnings on standard error, whatever that is when they come."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        self.setLevel(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        self.stream = sys.stderr
        super().emit(record)


_terminal = _Terminal()


def _version(asked: bool) -> None:
    if asked:
        print(VERSION)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    global _debug
    _debug = debug
    # Our own rooms only: Prefect's and the model libraries' loggers have their own handlers.
    for room in ("vidloop", "models", "rewards"):
        logging.getLogger(room).addHandler(_terminal)  # of a second command in this process: it is there


def answers(command: Callable[Parameters, Any]) -> Callable[Parameters, None]:
    """Decorator of a command: whatever it raises becomes a message a user can act on, and an exit code."""

    @functools.wraps(command)
    def answered(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.BadParameter):
            raise
        except BaseException as error:
            raise typer.Exit(_report(error)) from None

    return answered


def _report(error: BaseException) -> int:
    """Say what went wrong on stderr; returns the exit code."""
    if _debug:
        traceback.print_exception(error)
    # Prefect turns SIGTERM into an exception of its own inside a flow.
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "TerminationSignal":
        code = INTERRUPTED
        said = "interrupted; everything that was finished is kept, the same command continues from there"
    elif isinstance(error, VidloopError):
        code, said = error.exit_code, str(error)
    else:
        code = FAILED
        said = (
            f"{type(error).__name__}: {error}\n"
            "This was not foreseen. `vidloop --debug ...` shows where it happened"
        )
    sys.stdout.flush()
    print(f"vidloop: {said}", file=sys.stderr, flush=True)
    return code
