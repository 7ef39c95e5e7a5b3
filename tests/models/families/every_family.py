"""A tiny random model of every family, as ours and as plain diffusers load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from models.families import get_family
from models.families.base import Family
from models.families.settings import ModelSettings
from tests.models.families.tiny import CASES, Tiny


@pytest.fixture(scope="session", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Tiny:
    tiny: Tiny = request.param
    return tiny


@pytest.fixture(scope="session")
def folder(case: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(case.name)
    case.save(path)
    return path


@pytest.fixture
def model(case: Tiny, folder: Path) -> ModelSettings:
    return ModelSettings(device="cpu", family=case.family, path=str(folder), **case.model)


@pytest.fixture
def family(case: Tiny) -> Family:
    return get_family(case.family)


@pytest.fixture
def network(family: Family, model: ModelSettings) -> nn.Module:
    return family.load_transformer(model)


@pytest.fixture
def plain(case: Tiny, folder: Path) -> Any:
    """The same model as anyone would load it."""
    pipeline = case.pipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
