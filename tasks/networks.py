"""What networks a unit ran, and how: said by the unit, kept by whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Tell = Callable[[str, str], None]
"""Told what a network is for, and how it computes in a line."""

_tell: ContextVar[Tell] = ContextVar("tell", default=lambda role, line: None)


def report_network(role: str, line: str) -> None:
    """Say that the running unit uses a network; does nothing when nobody listens.

    Args:
        role: for example "policy", or "reward clip".
        line: see `data.networks.network_line`.
    """
    _tell.get()(role, line)


@contextmanager
def networks_told(tell: Tell) -> Iterator[None]:
    """Within, and in this thread: `tell` hears what units report."""
    before = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(before)
