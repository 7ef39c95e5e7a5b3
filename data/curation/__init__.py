"""Curation: what is worth learning from, and which prompts are worth asking again."""

from data.curation.curate import CurateResult, CurateSettings, curate, labels

__all__ = ["CurateResult", "CurateSettings", "curate", "labels"]
