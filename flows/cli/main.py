"""Entry point of the command `vidloop`: all commands, signals, and an end that does not dawdle."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

import typer

from data.plugins import plugins
from flows.cli import output
from flows.cli.app import BAD_INPUT, FAILED, app

# Importing one adds its commands, in this order.
_COMMANDS: Final = (
    "calibrate", "campaign", "compare", "copy", "doctor", "import_clips", "import_labels", "rate", "remake",
    "round", "serve", "store",
)  # fmt: skip

_exit_code = FAILED  # unless the command says something else


def _on_sigterm(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def commands() -> typer.Typer:
    """The command line with all commands, ours and the plug-ins'."""
    for module in _COMMANDS:
        importlib.import_module(f"flows.cli.{module}")
    for plugin in plugins("vidloop.commands").values():
        plugin.load()
    return app


def run() -> None:
    """Answer the command line of this process; ends in SystemExit with the exit code."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    commands()()


def main() -> None:
    """Entry point of the `vidloop` command: `run`, and then an end without taking the process apart."""
    global _exit_code
    output.keep_writable()
    # First come, last called: what the libraries want to do at the end is done before.
    atexit.register(_end)
    try:
        run()
    except SystemExit as end:
        _exit_code = end.code if isinstance(end.code, int) else FAILED
        raise


def _end() -> None:
    """End the process as it is, for its memory goes back with it.

    Python would first look through a million objects and destroy the libraries' modules one by one: up to two
    seconds, and some of those that bring threads or C++ of their own are not good at it.
    """
    logging.shutdown()
    code = _exit_code
    with contextlib.suppress(ValueError):  # a library has closed it
        sys.stdout.flush()
    if why := output.not_shown():
        print(f"vidloop: standard output could not be written to the end: {why}", file=sys.stderr)
        code = code or BAD_INPUT
    with contextlib.suppress(ValueError):
        sys.stderr.flush()
    os._exit(code)
