"""Every target: all parsers that take what other people, programs or machines have written."""

from __future__ import annotations

from typing import Final

from tests.fuzz.target import Target
from tests.fuzz.targets import (
    judges,
    model_folders,
    queries,
    servers,
    settings,
    stores,
    tables,
    video,
    weights,
)

_ALL: Final = (settings, tables, judges, video, weights, model_folders, stores, servers, queries)
TARGETS: Final[dict[str, Target]] = {target.name: target for module in _ALL for target in module.TARGETS}
MODULES: Final = {target.name: module.__name__ for module in _ALL for target in module.TARGETS}
