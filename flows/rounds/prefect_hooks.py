"""Where we reach into Prefect behind its public API: every such place, and what it answers.

pyproject.toml pins Prefect to 3.8 for these. Each raises RuntimeError where Prefect is built otherwise, and
tests/flows/rounds/test_prefect_hooks.py fails where Prefect no longer needs it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.routing import BaseRoute


def do_not_join_heartbeats() -> None:
    """Have flow runs of this process end without waiting for the thread that sends their heartbeats.

    The thread sleeps in steps of a second, and a synchronous flow run joins it at its end
    (PrefectHQ/prefect#19641 introduced both): half a second on average at each of a round's six ends.
    Asynchronous flow runs do not join it, by an argument of the same function, and no setting says the same.
    Heartbeats go out as before: of every run, as often, and none after its end. To be called once.
    """
    from prefect import flow_engine

    send: Any = getattr(flow_engine, "_send_heartbeats", None)
    _require(
        send is not None and "join_on_exit" in inspect.signature(send).parameters,
        "prefect.flow_engine._send_heartbeats(engine, join_on_exit)",
    )
    vars(flow_engine)["_send_heartbeats"] = functools.partial(send, join_on_exit=False)


def leave_parameters_to_the_flow() -> None:
    """Have the flow itself refuse the parameters of a run that it does not take.

    Prefect 3.8 fits a run's parameters to the flow's signature before the run has begun. A name that is not
    in it ends the process there: the run is Crashed, "exited with status code: 1", and the worker's log alone
    says why. Left as they are, `Flow.validate_parameters` refuses them, and the run is Failed with its words.
    To be called once.
    """
    from prefect import flow_engine
    from prefect.exceptions import SignatureMismatchError

    fit: Any = getattr(flow_engine, "_flow_parameters", None)
    _require(
        fit is not None and [*inspect.signature(fit).parameters] == ["flow", "flow_run", "parameters"],
        "prefect.flow_engine._flow_parameters(flow, flow_run, parameters)",
    )

    def fitted(flow: Any, flow_run: Any, parameters: Any) -> dict[str, Any]:
        try:
            found: dict[str, Any] = fit(flow=flow, flow_run=flow_run, parameters=parameters)
            return found
        except SignatureMismatchError:
            return dict(flow_run.parameters)

    vars(flow_engine)["_flow_parameters"] = functools.wraps(fit)(fitted)


def begin_immediate() -> None:
    """Have every transaction on SQLite in this process wait for its turn to write when it begins.

    Prefect says BEGIN DEFERRED. Such a transaction that has read and then writes fails at once with "database
    is locked", whatever the timeout, if another one has written in between (SQLITE_BUSY_SNAPSHOT,
    https://sqlite.org/rescode.html#busy_snapshot). PrefectHQ/prefect#10188 (open) collects such errors;
    PrefectHQ/prefect#23051 is one for which the timeout is no cure. BEGIN IMMEDIATE waits in line instead, up
    to the timeout. Postgres sees neither. To be called before the first transaction.
    """
    from prefect.server.database import configurations
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    _require(hasattr(configurations, "SQLITE_BEGIN_MODE"), "a mode of BEGIN on SQLite")
    event.listen(Engine, "before_cursor_execute", _immediate, retval=True)


def _immediate(
    connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
) -> tuple[str, Any]:
    return ("BEGIN IMMEDIATE" if statement == "BEGIN DEFERRED" else statement), parameters


def add_route(make: Callable[[], BaseRoute]) -> None:
    """Have Prefect's server, about to be started in this process, answer at one path more.

    Prefect 3.8 has no setting and no plug-in for it (none was found among its issues either).

    Args:
        make: gives the route; called for each application that is made.
    """
    import prefect.server.api.server as server

    create = server.create_app
    _require("ephemeral" in inspect.signature(create).parameters, "prefect.server.api.server.create_app")

    @functools.wraps(create)
    def with_route(*args: Any, **given: Any) -> FastAPI:
        app = create(*args, **given)
        # First: the UI takes every path that nobody else does.
        app.router.routes.insert(0, make())
        return app

    server.create_app = with_route


def temporary_app() -> FastAPI:
    """The application that Prefect's own temporary server is made of.

    Prefect 3.8.8 (its source) ends that one when the run exits, so not after SIGKILL of the run;
    `flows.serving.temporary_server` starts the same application in its own way.
    """
    from prefect.server.api.server import create_app

    return create_app(ephemeral=True, final=True)


def _require(found: bool, what: str) -> None:
    if not found:
        from prefect import __version__

        raise RuntimeError(f"Prefect {__version__} has no {what} any more: see {__name__}")
