"""Curation: what is worth learning from, and which prompts are worth asking again."""

from data.curation.curate import CurateResult, curate, labels
from data.curation.settings import CurateSettings, SelectionSettings, ShapingSettings, Weight

__all__ = [
    "CurateResult",
    "CurateSettings",
    "SelectionSettings",
    "ShapingSettings",
    "Weight",
    "curate",
    "labels",
]
