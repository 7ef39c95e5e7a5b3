"""Wan2.2 A14B over diffusers' `WanPipeline`, from text: one expert for high noise, another for low.

The pipeline asks `transformer` from `boundary_ratio` on (0.875 in the published model, of 1000 timesteps) and
`transformer_2` below it. Everything else is Wan2.1's. Each expert is trained on its own, at the noise levels
at which sampling asks it, and has an adapter of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from data.errors import ModelError
from models.families.base import EXPERT_PARTS, load_config
from models.families.settings import Expert, ModelSettings, SampleSettings
from models.families.wan import Wan, refuse_network
from models.lazy import LazyModule

if TYPE_CHECKING:
    import diffusers
    from torch import Tensor
else:
    diffusers = LazyModule("diffusers")


class WanExperts(Wan):
    """Wan2.2 T2V A14B: `Wan` with two networks."""

    name = "wan-experts"
    experts: tuple[Expert, ...] = ("high", "low")

    def told(
        self, pipeline: Any, embeds: Tensor, negative: Tensor | None, settings: SampleSettings
    ) -> dict[str, Any]:
        """See `Family.told`."""
        return {"guidance_scale_2": settings.guidance_2}

    def sigma_range(self, settings: ModelSettings) -> tuple[float, float]:
        """See `Family.sigma_range`: the pipeline's own rule, t >= boundary_ratio x 1000, as a noise level."""
        boundary = _boundary(settings, load_config(settings, diffusers.WanPipeline))
        return (boundary, 1.0) if settings.expert == "high" else (0.0, boundary)

    def network_part(self, settings: ModelSettings) -> str:
        """See `Family.network_part`."""
        if settings.expert is None:
            raise ModelError(f"{settings.path} has two experts: say finetune.expert: high, low or both")
        return EXPERT_PARTS[settings.expert]

    def _refuse_networks(self, settings: ModelSettings, index: dict[str, Any]) -> None:
        _boundary(settings, index)
        for part in EXPERT_PARTS.values():
            refuse_network(settings, part, index)


def _boundary(settings: ModelSettings, index: dict[str, Any]) -> float:
    """From which noise level on the first expert is asked."""
    boundary = index.get("boundary_ratio")
    if boundary is None or not any(index.get("transformer_2") or ()):
        raise ModelError(
            f"{settings.path} has no second expert (transformer_2, boundary_ratio in its index): say "
            "model.family: wan"
        )
    if not 0 < boundary < 1:
        raise ModelError(f"boundary_ratio of {settings.path} is {boundary}; it must lie between 0 and 1")
    return float(boundary)


FAMILY: Final = WanExperts()
