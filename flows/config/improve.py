"""The part `improve` of a recipe: rounds in a row, from champion to champion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.config.part import Part


class ImprovePart(Part):
    """What `vidloop improve` does; a single round does not read it. The reference is `finetune.reference`."""

    rounds: int = Field(
        default=3, ge=1, le=1000, title="Rounds", description="At most this many; --rounds says it too."
    )
    patience: int = Field(
        default=2,
        ge=1,
        le=1000,
        title="Patience",
        description="Rounds in a row that promote nobody before it stops.",
    )
    data: Literal["fresh", "aggregated", "windowed"] = Field(
        default="fresh",
        title="Data",
        description="Learn from the round's own clips, from those of all rounds so far, or of the last ones.",
    )
    window: int = Field(
        default=2,
        ge=1,
        le=1000,
        title="Window",
        description="Rounds that windowed learns from, this one among them.",
    )
    prompts_per_round: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        title="Prompts per round",
        description="Chosen from generate.prompts by how much they can teach; null: all of them.",
    )
    explore: float = Field(
        default=0.2,
        ge=0.0,
        le=1.0,
        title="Exploration",
        description="Share of the chosen prompts drawn by lot from those not known to be teachable.",
    )
    max_clips: int | None = Field(
        default=None,
        ge=1,
        title="Most clips",
        description="Training and evaluation clips of all rounds; no round begins that would pass it.",
    )
    max_minutes: float | None = Field(
        default=None,
        gt=0.0,
        title="Most minutes",
        description="Of the stages of all rounds; no round begins once they are spent.",
    )
