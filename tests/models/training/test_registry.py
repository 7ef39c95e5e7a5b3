"""The table of objectives: each is whole, none is taken for another, and a plan loads no torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from data.errors import ConfigError
from models.families.base import Family
from models.training.objectives import Objective, get_objective, names
from models.training.objectives.base import ACCEPTED, ALL, LABELS, PAIRS, WEIGHTED
from models.training.settings import TrainSettings
from models.training.train_data import TrainData
from models.training.trainer import TrainJob, train

Tune = Callable[..., TrainSettings]
# What the loop adds to every entry of a curve.
COMMON = {"step", "loss", "grad_norm", "lr"}


def test_every_objective_says_what_it_needs() -> None:
    found = {name: get_objective(name) for name in names()}
    assert {name: (one.data, one.reference, one.curation_weight) for name, one in found.items()} == {
        "sft": (ACCEPTED, "none", "uniform"),
        "unfiltered": (ALL, "none", "uniform"),
        "rwr": (WEIGHTED, "none", "reward"),
        "rwr-exp": (WEIGHTED, "none", "exp"),
        "dpo": (PAIRS, "error", "uniform"),
        "sdpo": (PAIRS, "error", "uniform"),
        "kto": (LABELS, "error", "uniform"),
        "nft": (LABELS, "prediction", "uniform"),
    }
    assert [name for name, one in found.items() if one.pairwise] == ["dpo", "sdpo"]


@pytest.mark.parametrize("name", names())
def test_the_curve_holds_what_the_objective_says_it_logs(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune, name: str
) -> None:
    result = train(transformer, family, TrainJob(train_data, tune(objective=name, batch_size=6), "b"))
    expected = COMMON | {name, f"pull/{name}"} | get_objective(name).logs.keys()
    if get_objective(name).reference != "none":
        expected |= {"kl"}
    assert {key for entry in result.curve for key in entry} == expected


def test_names_needs_and_checks_cost_no_torch() -> None:
    code = """if True:
        import sys
        from models.training.objectives import get_objective, names
        from models.training.settings import FinetuneSettings
        for name in names():
            settings = FinetuneSettings(objective=name)
            assert settings.algorithm.lacking([], []) and settings.label
        FinetuneSettings.model_json_schema()
        assert "torch" not in sys.modules, "torch was loaded"
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_objective_that_nobody_implements_trains_nothing() -> None:
    # It was a name in a list, and every place that asked for its branch fell through to rwr's.
    with pytest.raises(ValueError, match="it must be one of dpo, kto"):
        TrainSettings(objective="ipo")
    with pytest.raises(ConfigError, match="there is no objective 'ipo'"):
        get_objective("ipo")
    fields = {name: getattr(get_objective("dpo"), name) for name in Objective.__dataclass_fields__}
    for left_out in ("data", "reference", "curation_weight", "loss", "logs"):
        with pytest.raises(TypeError, match=left_out):
            Objective(**{name: value for name, value in fields.items() if name != left_out})


def test_a_loss_that_reads_what_it_did_not_ask_for_is_told(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    import models.training.objectives.dpo as module

    monkeypatch.setattr(module, "OBJECTIVE", replace(module.OBJECTIVE, reference="none"))
    with pytest.raises(TypeError, match=r'reads reference_errors says so.*reference="error"'):
        train(transformer, family, TrainJob(train_data, tune(objective="dpo"), "b"))


PLUGIN = """
from models.training.objectives.base import ACCEPTED, Objective

def loss(seen, settings):
    return seen.errors.square().mean(), {}

OBJECTIVE = Objective(
    name="squared", title="Squared errors.", data=ACCEPTED, reference="none", curation_weight="uniform",
    loss=loss, logs={},
)
"""


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str = PLUGIN) -> None:
    """A package beside the path that brings an objective."""
    (folder / "squared_objective.py").write_text(text)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "squared"\nversion = "1"\n[project.entry-points."vidloop.objectives"]\n'
        f'{name} = "squared_objective:OBJECTIVE"\n'
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "squared_objective", raising=False)


def test_an_objective_of_another_package_trains_with_the_same_rights(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    installed(tmp_path, monkeypatch, "squared")
    assert names()[-1] == "squared"
    assert "squared" in TrainSettings.model_json_schema()["properties"]["objective"]["enum"]
    result = train(transformer, family, TrainJob(train_data, tune(objective="squared", kl=0.1), "b"))
    assert result.curve[-1]["squared"] > 0
    assert result.curve[-1]["kl"] > 0
    assert torch.isfinite(torch.tensor(result.curve[-1]["loss"]))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("dpo", PLUGIN, "has the name of an objective of vidloop's"),
        ("other", PLUGIN, "is Objective.*not an `Objective` of that name"),
        ("squared", "OBJECTIVE = 1", "is 1, not an `Objective`"),
    ],
)
def test_a_plug_in_that_is_none_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, said: Any
) -> None:
    installed(tmp_path, monkeypatch, name, text)
    with pytest.raises(ConfigError, match=said):
        get_objective(name)
