"""A finished round in a real store: the one that the report's tests read."""

from tests.flows.reporting.conftest import make_round

__all__ = ["make_round"]
