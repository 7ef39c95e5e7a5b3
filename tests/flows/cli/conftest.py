from __future__ import annotations

from collections.abc import Callable

import pytest
import typer.testing

import flows.cli.doctor
import flows.cli.round
import flows.cli.store
from flows.cli.app import app

COMMANDS = (flows.cli.doctor, flows.cli.round, flows.cli.store)


@pytest.fixture
def vidloop() -> Callable[..., str]:
    """The command line in this process; what it printed."""

    def run(*args: object) -> str:
        result = typer.testing.CliRunner().invoke(app, [str(arg) for arg in args])
        assert result.exit_code == 0, result.output
        return result.output

    return run
