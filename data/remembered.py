"""What was once found in order on this machine, so that it is not looked at again: empty files, named by key.

Nothing depends on them but time: they lie in a folder of this user's under the system's temporary one, and
where that cannot be had nothing is remembered.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

_NAME: Final = "vidloop-in-order"


def is_known(key: str) -> bool:
    """Whether `note` was told this key on this machine."""
    folder = _folder()
    return folder is not None and (folder / key).exists()


def note(key: str) -> None:
    """Remember a key, a digest of all that decides what was found."""
    folder = _folder()
    if folder is not None:
        try:
            (folder / key).touch()
        except OSError:
            return  # a full disk: it will be looked at again


def _folder() -> Path | None:
    folder = Path(tempfile.gettempdir()) / f"{_NAME}-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()
    return folder if ours else None
