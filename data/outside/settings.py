"""What a clip from outside is brought to."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from data.settings import Settings, setting
from data.video import VideoSettings


class ConversionSettings(Settings):
    """The form of every clip of an imported set; what cannot be brought to it is refused."""

    fps: float | None = setting(
        None,
        "Frames per second",
        "Pictures are chosen by their time stamps; null: each file's own mean rate.",
        unit="frames/s",
        gt=0,
        le=240,
    )
    frames: int | None = setting(
        None, "Frames", "The first so many of a file; null: all.", unit="frames", ge=1, le=100_000
    )
    width: int | None = setting(None, "Width", "Null: each file's own.", unit="px", ge=1, le=8192)
    height: int | None = setting(None, "Height", "Null: each file's own.", unit="px", ge=1, le=8192)
    fit: Literal["crop", "pad", "stretch", "exact"] = setting(
        "crop",
        "Fit",
        "To another size: crop scales and cuts off what is too much, evenly; pad scales and adds black bars; "
        "stretch scales both ways apart; exact refuses it.",
    )
    repeats: float = setting(
        0.1,
        "Repeated frames",
        "Share of a clip's frames that may repeat the one before, where a file has too few a second or ends "
        "too soon. A clip that stands still while it should move teaches just that.",
        ge=0.0,
        lt=1.0,
    )
    video: VideoSettings = setting(VideoSettings(), "Video file", "How clips are written.")

    @model_validator(mode="after")
    def _both_sides(self) -> Self:
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height go together: say both or neither")
        return self
