"""Where a browser that shows the UI finds a round's report: `/reports/<round id>?key=...`.

`flows.serving.reports` answers there. The key is one that only those who know the auth string can make.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import Final

PATH: Final = "/reports/{round_id}"
AUTH_VARIABLE: Final = "PREFECT_API_AUTH_STRING"
# The store whose reports the server shows.
REPORTS: Final = "VIDLOOP_REPORTS"


def key_of(auth: str, round_id: str) -> str:
    """What opens one round's report: 32 hex digits of HMAC-SHA256."""
    return hmac.new(auth.encode(), f"report {round_id}".encode(), hashlib.sha256).hexdigest()[:32]


def link(store: str, round_id: str) -> str | None:
    """The address below the UI's own; None if no server shows this store.

    The environment says so: that of a worker of `vidloop serve`.
    """
    shown, auth = os.environ.get(REPORTS), os.environ.get(AUTH_VARIABLE)
    if not shown or not auth or (shown != store and Path(shown).resolve() != Path(store).resolve()):
        return None
    return f"{PATH.format(round_id=round_id)}?key={key_of(auth, round_id)}"
