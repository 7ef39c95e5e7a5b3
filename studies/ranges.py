"""Settings drawn from ranges, in place of settings that a study names one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, Field, model_validator

from data.settings import Settings
from models.training.settings import ObjectiveLabel

# A value in this share of its range, at either end, lies on its edge.
_EDGE: Final = 0.05
_DIGITS: Final = 2


def _rises(given: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= given[0] < given[1]:
        raise ValueError(f"{list(given)} is no range: two numbers, the first below the second, none below 0")
    return given


Range = Annotated[tuple[float, float], Field(strict=False), AfterValidator(_rises)]
"""Drawn from evenly in the logarithm, or, where it begins at 0, evenly."""
Key = Annotated[str, Field(pattern=r"^(finetune|curate)\.[a-z_]+$")]


class SearchPart(Settings):
    """As many settings for each objective, drawn over its ranges all at once."""

    draws: int = Field(ge=2, le=1000, title="Draws", description="Of settings for each objective.")
    seed: int = Field(default=0, ge=0, title="Seed", description="Of the draws.")
    ranges: dict[ObjectiveLabel, dict[Key, Range]] = Field(
        min_length=1, title="Ranges", description="By objective: key of the recipe, least and largest value."
    )

    @model_validator(mode="after")
    def _spans(self) -> Self:
        for name, ranges in self.ranges.items():
            if not ranges:
                raise ValueError(f"ranges.{name} names no setting to be drawn")
        return self

    def drawn(self) -> dict[str, list[dict[str, Any]]]:
        """Settings by objective, as `Study.objectives` has them.

        A Latin hypercube: of each setting, one value from each of `draws` equal shares of its range, so that
        few draws reach everywhere. An objective's draws are its own: another one beside it changes none.
        """
        import numpy as np

        found = {}
        for name, ranges in self.ranges.items():
            rng = np.random.default_rng([self.seed, *map(ord, name)])
            shares = [rng.permutation(self.draws) + rng.random(self.draws) for _ in ranges]
            trees: list[dict[str, Any]] = [{} for _ in range(self.draws)]
            for (key, span), column in zip(ranges.items(), shares, strict=True):
                part, _, setting = key.partition(".")
                for tree, share in zip(trees, column, strict=True):
                    tree.setdefault(part, {})[setting] = _at(span, float(share) / self.draws)
            found[str(name)] = trees
        return found

    def edges(self, objective: str, settings: Mapping[str, Any]) -> list[str]:
        """Which of an objective's settings lie on an edge of their range, as "finetune.lr 0.0001"."""
        found = []
        for key, span in self.ranges[objective].items():
            part, _, setting = key.partition(".")
            value = settings[part][setting]
            if not _at(span, _EDGE) < value < _at(span, 1 - _EDGE):
                found.append(f"{key} {value:g}")
        return found


def _at(span: tuple[float, float], share: float) -> float:
    low, high = span
    value = low * (high / low) ** share if low > 0 else high * share
    return float(f"{value:.{_DIGITS}g}")
