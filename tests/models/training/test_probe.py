"""The fixed measurement: same clips, levels and noise whatever was trained, and it changes nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from models.families.base import Family
from models.training.equations import error
from models.training.noise import seed_of
from models.training.probe import SIGMAS, kinds, probe
from models.training.settings import TrainSettings
from models.training.train_data import TrainData
from models.training.trainer import TrainJob, train
from tests.models.conftest import prediction_and_target

Tune = Callable[..., TrainSettings]
Make = Callable[[], nn.Module]


@pytest.mark.parametrize("objective", ["sft", "dpo-anchor", "nft"])
def test_probing_changes_no_adapter_and_no_curve(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune, objective: Any
) -> None:
    bare, probed = (
        train(make_transformer(), family, TrainJob(train_data, tune(objective=objective, probe=size), "b"))
        for size in (0, 3)
    )
    assert bare.adapter == probed.adapter
    assert bare.curve == probed.curve
    assert "probe" not in bare.diagnostics
    measured = probed.diagnostics["probe"]
    assert measured["sigmas"] == list(SIGMAS)
    assert all(value > 0 for values in measured["drift"].values() for value in values)


def test_kinds_are_told_apart_by_what_the_objective_does_with_a_clip(
    train_data: TrainData, tune: Tune
) -> None:
    def found(data: TrainData, **fields: Any) -> dict[str, list[int]]:
        return {name: rows.tolist() for name, rows in kinds(data, tune(probe=99, **fields)).items()}

    even, odd = list(range(0, 12, 2)), list(range(1, 12, 2))
    assert found(train_data, objective="sft") == {"taught": even, "held out": odd}
    assert found(train_data, objective="kto") == {"taught": even, "avoided": odd}
    assert found(train_data, objective="unfiltered") == {"taught": list(range(12))}
    few = replace(train_data, pairs=torch.tensor([[0, 1], [2, 3], [1, 3]]))
    # 1 is rejected in one pair and chosen in another: neither
    assert found(few, objective="dpo") == {"taught": [0, 2], "avoided": [3], "held out": list(range(4, 12))}
    assert [len(rows) for rows in kinds(train_data, tune(objective="kto", probe=2)).values()] == [2, 2]


def test_the_numbers_are_errors_at_stated_noise(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    settings = tune(objective="sft", probe=2)
    reference, policy = make_transformer(), make_transformer()
    with torch.no_grad():
        policy.proj_out.bias += 0.1  # type: ignore[operator, union-attr]
    measured = probe(policy, reference, family, train_data, settings, rows=1)
    assert measured["clips"] == {"taught": 2, "held out": 2}
    assert measured["drift"]["taught"] == pytest.approx([0.01] * 5, rel=1e-3)
    taught = [0, 10]
    errors = []
    for row in taught:
        seed = seed_of(settings.seed, "probe", f"c{row}", "0.3")
        noise = torch.randn(1, 16, 5, 4, 4, generator=torch.Generator().manual_seed(seed))
        embeds = train_data.embeds[train_data.prompt_index[row]][None]
        with torch.no_grad():
            pair = prediction_and_target(
                family, reference, train_data.latents[row][None], embeds, torch.tensor([0.3]), noise
            )
        errors.append(error(*pair).item())
    assert measured["reference"]["taught"][1] == pytest.approx(sum(errors) / 2, rel=1e-5)


def test_the_probe_is_the_same_for_every_objective_that_teaches_the_same_clips(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune
) -> None:
    one, other = (
        probe(transformer, transformer, family, train_data, tune(objective=name, probe=3, lr=lr), rows=2)
        for name, lr in (("dpo", 1e-3), ("kto", 1.0))
    )
    assert one == other
    assert one["reference"] == one["policy"]
    assert {value for values in one["drift"].values() for value in values} == {0.0}
