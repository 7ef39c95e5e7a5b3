"""Which sizes a model takes, by its configurations alone: asked before any weights are read. No torch here.

A pipeline would round a size that is off its grid and only warn, or fail after minutes of loading. The same
rules are asked twice: where a recipe is opened, of the configurations that are on this machine, and by the
families, of the pipeline itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from data.errors import ConfigError
from models.families.settings import SampleSettings

Read = Callable[[str], dict[str, Any]]
"""Name of a part ("vae", "scheduler", ...) -> its configuration; {} where it is not at hand."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What sizes and steps a model takes.

    Raises ValueError: a number is none above 0, as in a configuration of another class or a damaged one.

    Attributes:
        frames: video frames are 1 + a multiple of this.
        height, width: pixels are multiples of these.
        depth: latent frames, 1 + (frames - 1) / `frames`, are a multiple of this.
        steps: fewest sampling steps.
        tokens: the only length of text, if there is only one.
    """

    frames: int
    height: int
    width: int
    depth: int = 1
    steps: int = 1
    tokens: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (value is None and field.name == "tokens") and not (type(value) is int and value > 0):
                raise ValueError(f"{field.name} {value!r}")

    def check(self, settings: SampleSettings) -> None:
        """Raise ConfigError if `settings` are off the grid."""
        if settings.frames < 1 or (settings.frames - 1) % self.frames:
            raise ConfigError(
                f"generate.frames is {settings.frames}; this model needs 1 + a multiple of {self.frames}"
            )
        latents = (settings.frames - 1) // self.frames + 1
        if latents % self.depth:
            raise ConfigError(
                f"generate.frames is {settings.frames}: {latents} latent frames, which is no multiple of "
                f"{self.depth}"
            )
        for name, value, cell in (
            ("height", settings.height, self.height), ("width", settings.width, self.width)
        ):  # fmt: skip
            if value < cell or value % cell:
                raise ConfigError(f"generate.{name} is {value}; this model needs a multiple of {cell}")
        if settings.steps < self.steps:
            raise ConfigError(
                f"generate.steps is {settings.steps}; this model's schedule needs at least {self.steps}"
            )
        if self.tokens is not None:
            check_tokens(settings.max_sequence_length, self.tokens)


def check_tokens(length: int, trained: int) -> None:
    """Raise ConfigError if text is not as long as in training: the network sees the padding."""
    if length != trained:
        raise ConfigError(f"generate.max_sequence_length is {length}; this model was trained with {trained}")


def shift_key(kind: str, config: dict[str, Any]) -> str:
    """What a scheduler calls its constant shift: flow schedulers "shift", multistep ones "flow_shift".

    Args:
        kind: class of the scheduler; config: its configuration, whole.

    Raises:
        ConfigError: it has none.
    """
    key = "flow_shift" if "flow_shift" in config else "shift"
    if key not in config or config.get("use_dynamic_shifting"):
        raise ConfigError(
            f"generate.flow_shift is set, but {kind} as this model was saved has no constant shift: remove "
            "flow_shift"
        )
    return key
