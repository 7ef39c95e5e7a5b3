"""What may teach, and how much: the settings of curation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

from data.errors import ConfigError
from data.settings import Settings, Several, setting

Weight = Literal["uniform", "reward", "exp"]


def _in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


class ShapingSettings(Settings):
    """The one recorded step between a raw reward and anything that learns: r' in [0, 1].

    Furuta et al. 2024, arXiv 2412.02617, section 4.
    """

    kind: Literal["binary", "graded"] = setting(
        "binary",
        "Kind",
        "binary: r' = 1 from the threshold on, else 0. graded: r' = clip(eta (value - gamma), 0, 1).",
    )
    threshold: float | Literal["auto"] | None = setting(
        "auto",
        "Threshold",
        "The value that passes, in the reward's units; for graded it gives the share accepted where "
        "curate.accept_fraction does not. auto: the reward's own, if it knows one: a rubric of yes and no "
        "does. Of any other reward it is said here, or shaping is graded. null, for graded only: none.",
    )
    eta: float | None = setting(
        None,
        "Eta",
        "Slope of graded shaping; null: 1 / (95th - 5th percentile) of the clips at hand.",
        gt=0.0,
    )
    gamma: float | None = setting(
        None, "Gamma", "Value at which graded shaping leaves 0; null: the 5th percentile."
    )
    label_noise: float = setting(
        0.0,
        "Label noise",
        "For experiments: this share of the clips, drawn by the seed, is taught the other way round (r' "
        "becomes 1 - r'), as by a judge that errs without bias.",
        ge=0.0,
        le=0.5,
    )


class SelectionSettings(Settings):
    """Which clips are accepted, and which make pairs."""

    pairs_per_prompt: int = setting(4, "Pairs per prompt", "At most so many pairs a prompt.", ge=0, le=10_000)
    margin: float = setting(
        0.1,
        "Margin",
        "A pair needs r'(chosen) - r'(rejected) above this; at 0 only ties are dropped.",
        ge=0.0,
        lt=1.0,
    )
    accept_fraction: float | None = setting(
        None,
        "Share accepted",
        "Accept this share of each prompt's clips, at least one. null: for binary all that pass, for graded "
        "the share of all clips whose value reaches the threshold.",
        formerly="top_q",
        gt=0.0,
        le=1.0,
    )
    max_per_prompt: int | None = setting(
        None,
        "Accepted per prompt",
        "Accept at most so many clips a prompt; null: no limit.",
        ge=1,
        le=10_000,
    )
    beta: float = setting(1.0, "Temperature", "Of the exp weight, and so of rwr-exp.", gt=0.0)
    segments: Literal["ignore", "differing"] = setting(
        "differing",
        "Segments",
        "differing: of clips that the feedback judged in segments, a pair teaches in those in which the "
        "chosen one is better, and is none if there are none (see `data.curation.segments`). ignore: pairs "
        "are of whole clips. Without segments both do the same.",
    )
    exclude_categories: Annotated[Several[str], AfterValidator(_in_order)] = setting(
        (),
        "Excluded categories",
        "For experiments: categories whose clips do not teach, as if they had not been made.",
        formerly="leave_out",
    )


class CurateSettings(ShapingSettings, SelectionSettings):
    """All that curation decides by: shaping and selection as a recipe says them, resolved."""

    feedback: str = setting(
        ..., "Feedback", "Name of the reward that teaches.", named_by="the reward and its version"
    )
    threshold: float | None = setting(
        0.5, "Threshold", "The value that passes, in the reward's units; null, for graded only: none."
    )
    weight: Weight = setting(
        "uniform",
        "Weight",
        "uniform: 1 if accepted else 0. reward: r'. exp: exp(r'/beta) / Z, Z the mean over the prompt's "
        "scored clips, so that weights average 1 in every prompt.",
    )
    seed: int = setting(0, "Seed", "Breaks ties and chooses among possible pairs.")

    @model_validator(mode="after")
    def _decides(self) -> CurateSettings:
        if self.kind == "binary" and self.threshold is None:
            raise ConfigError(
                "shaping.threshold is needed for binary shaping: say from which value a clip passes"
            )
        if self.kind == "graded" and self.threshold is None and self.accept_fraction is None:
            raise ConfigError(
                "graded shaping needs curate.accept_fraction (0.5: the better half of each prompt's clips) "
                "or shaping.threshold, to know how many clips to accept"
            )
        return self
