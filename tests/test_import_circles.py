"""No module of the tree imports itself by a detour, whatever file the detour goes through."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

PACKAGES = ("flows", "tasks", "models", "rewards", "data", "miniature", "studies", "benchmarks")


def circle(imports: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring; [] if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as found:
        return list(found.args[1])
    return []


def test_there_is_no_import_circle() -> None:
    graph = grimp.build_graph(*PACKAGES)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 250
    assert circle(imports) == []


@pytest.mark.parametrize(("third", "found"), [("a", 4), ("d", 0)])
def test_a_circle_would_be_seen(third: str, found: int) -> None:
    assert len(circle({"a": {"b"}, "b": {"c"}, "c": {third}})) == found
