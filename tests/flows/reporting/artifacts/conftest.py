"""A finished round in a real store: the one that the report's tests read."""

from tests.flows.reporting.conftest import hostile, make_round, reported

__all__ = ["hostile", "make_round", "reported"]
