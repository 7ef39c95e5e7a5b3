"""Errors a user can act on: each says what was wrong, where, and what to do.

    VidloopError                  2   raised on purpose; printed without a traceback
      UserError                   2   something that was given is wrong; trying again changes nothing
        ConfigError               2   a recipe, a setting, an argument or a query
        DataError                 2   prompts, clips, labels or a table
        StoreError                2   a store that is missing, too new, read-only, full or damaged
        ModelError                2   weights or the configuration of a model
        ServiceError              2   a server or a device that is needed is not to be had
      VideoError                  2   one clip cannot be decoded; it is set aside, the round goes on
      StageFailed                 3   a stage failed after its retries

The number is the exit code of the command that ends with the error. A `UserError` in one unit of a stage
ends the stage at once: the other units would meet it too.
"""

from __future__ import annotations

from typing import ClassVar


class VidloopError(Exception):
    """Base of every error this program raises on purpose; the command line prints it without a traceback."""

    exit_code: ClassVar[int] = 2


class UserError(VidloopError):
    """Something that was given is wrong, and trying again changes nothing (exit code 2)."""


class ConfigError(UserError):
    """A recipe, a setting, an argument or a query is wrong."""


class DataError(UserError):
    """Prompts, clips, labels or a table are not what they should be."""


class StoreError(UserError):
    """The store is missing, newer than this program, read-only, full or damaged."""


class ModelError(UserError):
    """Weights, or the configuration of a model, are missing or do not fit."""


class ServiceError(UserError):
    """A server or a device that is needed is not to be had; says how to get it, or how to do without."""


class VideoError(VidloopError):
    """One clip cannot be decoded; the clip is quarantined, the round goes on."""


class StageFailed(VidloopError):
    """A stage failed after its retries (exit code 3).

    Attributes:
        stage: name of the stage, as in `summary.json`.
    """

    exit_code = 3

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage

    def __reduce__(self) -> tuple[type[StageFailed], tuple[str, str]]:
        return type(self), (self.stage, str(self))  # so that it can come from another process


class Diverged(StageFailed):
    """A training's loss or gradient is no number any more: its settings did it, and would do it again."""
