"""Ids of rounds and of series: a time and a short digest, in the order in which they began.

Every reader takes the greatest id for the newest, so a new one is always greater than those the store holds:
its time is that of the clock, or a second after the newest where the clock says less. A clock that was far
ahead once, or was set back, therefore hides nothing. The price is that such a time is no time any more:
`hours_ahead` tells, and `runs/<id>.jsonl` has what the clock said.
"""

from __future__ import annotations

import os
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Final

from data.keys import digest
from data.store import Store

_TIME: Final = "%Y%m%dT%H%M%S"
# Where the store holds something under an id, be it half written.
_FOLDERS: Final = ("rounds", "improvements", "runs")
_ID: Final = re.compile(r"(\d{8}T\d{6})Z?-[0-9a-f]+")


def new_round_id(store: Store) -> str:
    """An id greater than all that the store holds; no two runs share one."""
    now = datetime.now(UTC)
    names = [name for folder in _FOLDERS for name in store.backend.names(folder)]
    held = [time for name in names if (time := time_of(name)) is not None]
    newest = max(held, default=None)
    time = now.replace(microsecond=0)
    if newest is not None and time <= newest:
        time = min(newest, datetime.max.replace(tzinfo=UTC) - timedelta(seconds=1)) + timedelta(seconds=1)
    return f"{time:{_TIME}}-{digest([now.isoformat(), os.getpid(), secrets.token_hex(8)])[:8]}"


def time_of(round_id: str) -> datetime | None:
    """The time in an id, UTC; None if it is no id of ours."""
    found = _ID.fullmatch(round_id.split(".")[0])
    if found is None:
        return None
    try:
        return datetime.strptime(found[1], _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def hours_ahead(round_id: str) -> float:
    """Hours by which the time in an id lies in the future; 0 if it does not."""
    time = time_of(round_id)
    return max(0.0, (time - datetime.now(UTC)).total_seconds() / 3600) if time is not None else 0.0
