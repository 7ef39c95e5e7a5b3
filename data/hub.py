"""What of the hub's cache is on this machine."""

from __future__ import annotations

from pathlib import Path


def cached(name: str, revision: str | None = None) -> Path | None:
    """The folder of a hub id (org/name) in the hub's cache on this machine, whole or in part; or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None
