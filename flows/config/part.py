"""The base of parts that have no component of their own yet."""

from __future__ import annotations

from data.settings import Settings


class Part(Settings):
    """A part of a recipe."""
