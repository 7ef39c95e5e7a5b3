"""The part `improve` of a recipe: rounds in a row, from champion to champion."""

from __future__ import annotations

from typing import Literal

from data.settings import Settings, setting


class ImproveSettings(Settings):
    """What `vidloop improve` does; a single round does not read it. The reference is `finetune.reference`."""

    rounds: int = setting(3, "Rounds", "At most this many; --rounds says it too.", ge=1, le=1000)
    patience: int = setting(
        2, "Patience", "Rounds in a row that promote nobody before it stops.", ge=1, le=1000
    )
    error: float = setting(
        0.05,
        "Error budget",
        "Chance of any false promotion in the whole series, where no candidate changes anything: every round "
        "spends its part, and a gate that errs more often is confirmed at the part, with fresh clips.",
        gt=0.0,
        le=1.0,
    )
    horizon: int = setting(
        365,
        "Nights",
        "That the error budget is spent over; `vidloop improve` spends it over `rounds`.",
        ge=1,
        le=100_000,
    )
    reexamine_every: int | None = setting(
        7,
        "Re-examination",
        "Rounds from one comparison of the champion with the start of the series to the next, on fresh "
        "seeds; also at the end of `improve`; null: none.",
        ge=1,
        le=100_000,
    )
    data: Literal["fresh", "aggregated", "windowed"] = setting(
        "fresh",
        "Data",
        "Learn from the round's own clips, from those of all rounds so far, or of the last ones.",
    )
    window: int = setting(
        2, "Window", "Rounds that windowed learns from, this one among them.", ge=1, le=1000
    )
    later_lr: float = setting(
        1.0,
        "Learning rate of later rounds",
        "As a share of finetune.lr, in rounds that start from a policy that was trained: it is mostly right, "
        "and large steps undo more than they teach.",
        gt=0.0,
        le=10.0,
    )
    prompts_per_round: int | None = setting(
        None,
        "Prompts per round",
        "Chosen from generate.prompts by how much they can teach; null: all of them.",
        ge=1,
        le=1_000_000,
    )
    explore_fraction: float = setting(
        0.2,
        "Exploration",
        "Share of the chosen prompts drawn by lot from those not known to be teachable.",
        formerly="explore",
        ge=0.0,
        le=1.0,
    )
    max_clips: int | None = setting(
        None,
        "Most clips",
        "Training and evaluation clips of all rounds; no round begins that would pass it.",
        ge=1,
    )
    max_minutes: float | None = setting(
        None,
        "Most minutes",
        "Of the stages of all rounds; no round begins once they are spent.",
        unit="min",
        gt=0.0,
    )
