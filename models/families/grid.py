"""Which sizes a model takes, by its configurations alone: asked before any weights are read. No torch here.

A pipeline would round a size that is off its grid and only warn, or fail after minutes of loading. The same
rules are asked twice: where a recipe is opened, of the configurations that are on this machine, and by the
families, of the pipeline itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from data.errors import ConfigError
from models.families.settings import ModelSettings, SampleSettings

# What `WanPipeline.check_inputs` and `LTXPipeline.check_inputs` ask of height and width.
_WAN_PIXELS: Final = 16
_LTX_PIXELS: Final = 32
# An even number of latent frames decodes to more frames than were asked for: CogVideoX' VAE treats the first
# frame apart only where their number is odd.
_COGVIDEOX_LATENTS: Final = 2
_COGVIDEOX_TIMESTEPS: Final = 1000

Read = Callable[[str], dict[str, Any]]
"""Name of a part ("vae", "scheduler", ...) -> its configuration; {} where it is not at hand."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What sizes and steps a model takes.

    Attributes:
        frames: video frames are 1 + a multiple of this.
        height, width: pixels are multiples of these.
        depth: latent frames, 1 + (frames - 1) / `frames`, are a multiple of this.
        steps: fewest and most sampling steps.
        tokens: the only length of text, if there is only one.
    """

    frames: int
    height: int
    width: int
    depth: int = 1
    steps: tuple[int, float] = (1, math.inf)
    tokens: int | None = None

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
        least, most = self.steps
        if settings.steps < least:
            raise ConfigError(
                f"generate.steps is {settings.steps}; this model's schedule needs at least {least}"
            )
        if settings.steps > most:
            raise ConfigError(f"generate.steps is {settings.steps}; it must lie between {least} and {most}")
        self.check_tokens(settings.max_sequence_length)

    def check_tokens(self, length: int) -> None:
        """Raise ConfigError if text must have another length: the network sees the padding."""
        if self.tokens is not None and length != self.tokens:
            raise ConfigError(
                f"generate.max_sequence_length is {length}; this model was trained with {self.tokens}"
            )


def wan(temporal: int, spatial: int, patch: tuple[int, int, int]) -> Grid:
    """Of Wan: strides of the VAE, and the patch (T, H, W) of latent cells that is a token."""
    return Grid(
        frames=temporal,
        height=math.lcm(_WAN_PIXELS, spatial * patch[1]),
        width=math.lcm(_WAN_PIXELS, spatial * patch[2]),
        depth=patch[0],
    )


def cogvideox(temporal: int, spatial: int, patch: int, tokens: int) -> Grid:
    """Of CogVideoX: strides of the VAE, side of a patch, tokens of text."""
    side = spatial * patch
    return Grid(_COGVIDEOX_LATENTS * temporal, side, side, steps=(1, _COGVIDEOX_TIMESTEPS), tokens=tokens)


def ltx(temporal: int, spatial: int, *, stretched: bool) -> Grid:
    """Of LTX-Video: strides of the VAE, and whether the schedule is stretched to a last level.

    With a single step that would divide zero by zero.
    """
    side = math.lcm(_LTX_PIXELS, spatial)
    return Grid(temporal, side, side, steps=(2 if stretched else 1, math.inf))


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


def check_fit(model: ModelSettings, settings: SampleSettings, *, fetch: bool = False) -> None:
    """Whether a model takes these settings, by the configurations that are on this machine.

    Of a hub id those are in the hub's cache. What is not at hand is not asked: the family asks it again.

    Args:
        fetch: get the configurations of a hub id that are not in the cache.

    Raises:
        ConfigError: the model does not take them.
    """

    def read(part: str) -> dict[str, Any]:
        return _read(model, f"{part}/{'scheduler_config' if part == 'scheduler' else 'config'}.json", fetch)

    grid = _grid_of(model.family, read)
    if grid is not None:
        grid.check(settings)
    scheduler = read("scheduler")
    if settings.flow_shift is not None and scheduler.get("_class_name"):
        # The file may leave out what the class has a default for, so only what it says counts.
        named = {"shift": None} if not scheduler["_class_name"].startswith("CogVideoX") else {}
        shift_key(scheduler["_class_name"], {**named, **scheduler})


def _grid_of(family: str, read: Read) -> Grid | None:
    vae, network = read("vae"), read("transformer")
    if not vae or not network:
        return None
    try:
        # The defaults are those of diffusers' classes, for files that leave them out.
        match family:
            case "wan" | "wan-experts":
                first, second, third = network.get("patch_size", (1, 2, 2))
                temporal, spatial = vae.get("scale_factor_temporal", 4), vae.get("scale_factor_spatial", 8)
                return wan(temporal, spatial, (first, second, third))
            case "cogvideox":
                spatial = 2 ** (len(vae["block_out_channels"]) - 1)
                temporal = int(vae.get("temporal_compression_ratio", 4))
                tokens = network.get("max_text_seq_length", 226)
                return cogvideox(temporal, spatial, network.get("patch_size", 2), tokens)
            case "ltx":
                halvings = sum(vae["spatio_temporal_scaling"])
                temporal = vae.get("temporal_compression_ratio") or vae["patch_size_t"] * 2**halvings
                spatial = vae.get("spatial_compression_ratio") or vae["patch_size"] * 2**halvings
                return ltx(temporal, spatial, stretched=bool(read("scheduler").get("shift_terminal")))
    except (KeyError, TypeError, ValueError):
        pass  # another class' configuration: the family says so when it opens it
    return None


def _read(model: ModelSettings, name: str, fetch: bool) -> dict[str, Any]:
    path = Path(model.path) / name if Path(model.path).is_dir() else _cached(model, name, fetch)
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError):
        return {}  # the family says what is wrong with it
    return found if isinstance(found, dict) else {}


def _cached(model: ModelSettings, name: str, fetch: bool) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model.path, name, revision=model.revision, local_files_only=not fetch))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None
