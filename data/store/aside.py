"""What is taken out of a store: moved to `aside/`, never deleted, with a line that says when and why.

    aside/<path that it had>[~2]      the file, link or folder as it was
    aside/log.jsonl                   {"time", "path", "now", "why"} a line

Nothing reads from there. A person may look at it, put it back, or delete it.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from data.store.durable_files import make_folder, storage_errors, sync_folder

FOLDER: Final = "aside"
LOG: Final = f"{FOLDER}/log.jsonl"


def set_aside(root: Path, path: Path, why: str) -> Path | None:
    """Move a file, a link (not what it leads to) or a folder of the store at `root` to `aside/`.

    Returns:
        Where it is now; None if there is nothing at `path`.

    Raises:
        StoreError: the store cannot be written.
    """
    relative = path.relative_to(root)
    target = root / FOLDER / relative
    with storage_errors(path):
        make_folder(target.parent)
        now = _free(target)
        try:
            os.rename(path, now)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.move(path, now)  # a folder of the store that lies on another disk
        sync_folder(path.parent)
        sync_folder(now.parent)
        note(root, relative.as_posix(), now.relative_to(root).as_posix(), why)
    return now


def note(root: Path, path: str, now: str, why: str) -> None:
    """Add a line to the log. Raises OSError as the system does."""
    log = root / LOG
    if os.path.lexists(log) and (log.is_symlink() or not log.is_file()):
        os.rename(log, _free(log))
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "path": path, "now": now, "why": why}
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _free(path: Path) -> Path:
    """`path`, or the first of path~2, path~3, ... where nothing lies."""
    places = itertools.chain([path], (path.with_name(f"{path.name}~{n}") for n in itertools.count(2)))
    return next(place for place in places if not os.path.lexists(place))
