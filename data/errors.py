"""Errors a user can act on: each says what was wrong, where, and what to do."""

from __future__ import annotations


class VidloopError(Exception):
    """Base of every error this program raises on purpose; the command line prints it without a traceback."""


class BadInput(VidloopError):
    """A recipe, a file, an argument or a query is wrong (exit code 2)."""


class StoreError(BadInput):
    """The store is missing, newer than this program, read-only, full or damaged (exit code 2)."""


class VideoError(VidloopError):
    """One clip cannot be decoded; the clip is quarantined, the round goes on."""


class StageFailed(VidloopError):
    """A stage failed after its retries (exit code 3).

    Attributes:
        stage: name of the stage, as in `summary.json`.
    """

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage

    def __reduce__(self) -> tuple[type[StageFailed], tuple[str, str]]:
        return type(self), (self.stage, str(self))  # so that it can come from another process
