"""Clips of the world for its reward's tests."""

from tests.rewards.conftest import world_clip

__all__ = ["world_clip"]
