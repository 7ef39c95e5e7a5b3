"""The end of a flow run does not wait for the thread that sent its heartbeats.

Prefect 3.8 lets that thread sleep in steps of a second, and a synchronous flow run joins it: half a second on
average at each of a round's six ends, in which nothing happens. No setting changes it. Its asynchronous flow
runs do not join the thread, by an argument of the same function; ours take that one too. Heartbeats go out as
before: of every run, as often, and none after its end.
"""

from __future__ import annotations

import functools

from prefect import flow_engine


def do_not_wait() -> None:
    """Have flow runs of this process end without waiting; to be called once, before the first one."""
    # Assigned by name: it is Prefect's own, and typed as the function it replaces.
    vars(flow_engine)["_send_heartbeats"] = functools.partial(
        flow_engine._send_heartbeats, join_on_exit=False
    )
