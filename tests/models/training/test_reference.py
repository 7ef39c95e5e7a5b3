"""Stored reference errors: the same numbers as the reference beside training, measured once."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data.errors import StageFailed, UserError
from models.families.base import Family
from models.families.settings import ModelSettings
from models.families.wan import Wan
from models.training.reference import ErrorTable, errors_at, measure, reference_network, rounding
from models.training.settings import TrainSettings
from models.training.train_data import Clips, TrainData
from models.training.trainer import TrainJob, TrainResult, train

Tune = Callable[..., TrainSettings]
Make = Callable[[], nn.Module]


def clips_of(data: TrainData) -> Clips:
    return Clips(data.clip_ids, data.prompt_ids, data.latents, data.embeds, data.prompt_index)


def table_of(
    network: nn.Module, data: TrainData, settings: TrainSettings, rows: int, start: bytes | None = None
) -> ErrorTable:
    errors = measure(reference_network(network, start, "b"), Wan(), clips_of(data), settings, rows)
    return ErrorTable(data.clip_ids, dict(zip(data.clip_ids, errors, strict=True)))


class Counting(Wan):
    """Wan that counts the passes without a gradient: those of the reference."""

    def __init__(self) -> None:
        self.still = 0

    def predict(self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        self.still += not torch.is_grad_enabled()
        return super().predict(transformer, noisy, sigma, embeds)


class SamePasses(ErrorTable):
    """Errors that are measured when they are asked for, in a pass of the rows that are asked for."""

    def __init__(self, network: nn.Module, data: TrainData, settings: TrainSettings) -> None:
        self.measure = partial(errors_at, network, Wan(), clips_of(data), settings)

    def __call__(self, clips: Tensor, fixed_draws: Tensor) -> Tensor:
        with torch.no_grad():
            return self.measure(clips, fixed_draws)


def without_distance(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    """A curve less what only a reference in the run can say: how far the prediction lies from its own."""
    assert curve[-1]["kl"] > 0
    return [{name: value for name, value in entry.items() if name != "kl"} for entry in curve]


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize("objective", ["dpo-anchor", "sdpo-anchor", "kto"])
def test_errors_of_the_same_passes_give_the_adapter_of_inline_errors_bit_for_bit(
    make_transformer: Make, train_data: TrainData, tune: Tune, objective: Any, micro_batch: int | None
) -> None:
    """The same operations in the same order: so on every processor."""
    settings = tune(
        objective=objective, fixed_noise_samples=4, steps=5, batch_size=4, micro_batch=micro_batch, probe=0
    )
    table = SamePasses(reference_network(make_transformer(), None, "b"), train_data, settings)
    family = Counting()
    inline = train(make_transformer(), Wan(), TrainJob(train_data, settings, "b"))
    stored = train(make_transformer(), family, TrainJob(train_data, settings, "b", reference_errors=table))
    assert stored.adapter == inline.adapter
    assert stored.curve == without_distance(inline.curve)
    assert stored.diagnostics["gap_at_start"] == 0.0
    # kto measures its reference point without gradient where a batch is cut, with the policy
    assert family.still == (5 * 2 if objective == "kto" and micro_batch else 0), "no reference pass"


def test_stored_errors_of_passes_of_one_clip_give_the_adapter_of_inline_errors_bit_for_bit(
    make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    """Where a clip is alone in every pass, there is one order of sums: so on every processor."""
    settings = tune(objective="kto", fixed_noise_samples=4, steps=5, batch_size=4, micro_batch=1, probe=0)
    table = table_of(make_transformer(), train_data, settings, rows=1)
    inline = train(make_transformer(), Wan(), TrainJob(train_data, settings, "b"))
    stored = train(make_transformer(), Wan(), TrainJob(train_data, settings, "b", reference_errors=table))
    assert stored.adapter == inline.adapter
    assert stored.curve == without_distance(inline.curve)


@pytest.mark.parametrize("rows", [2, 4, 7, 8])
def test_what_else_is_in_a_pass_changes_an_error_by_rounding_alone(
    make_transformer: Make, train_data: TrainData, tune: Tune, rows: int
) -> None:
    """Kernels choose the order of sums by shape and place; some give one bit less or more for it."""
    settings = tune(fixed_noise_samples=4)
    alone, among = (table_of(make_transformer(), train_data, settings, many).table for many in (1, rows))
    apart = (among - alone).abs() / alone
    assert apart.max() <= rounding(make_transformer(), train_data.latents[0].numel())
    assert apart.max() < 1e-4, "a bound that says something: other noise makes a tenth of an error"


def test_stored_errors_of_a_champion_are_those_of_its_adapter(
    make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    champion = train(
        make_transformer(), Wan(), TrainJob(train_data, tune(objective="sft", lr=5e-3), "b")
    ).adapter
    settings = tune(objective="dpo", fixed_noise_samples=3, batch_size=4, probe=0)
    table = table_of(make_transformer(), train_data, settings, 8, champion)
    base = table_of(make_transformer(), train_data, settings, 8)
    clips, fixed = torch.arange(12), torch.zeros(12, dtype=torch.int64)
    assert not torch.allclose(table(clips, fixed), base(clips, fixed), atol=1e-3)
    stored = train(
        make_transformer(), Wan(), TrainJob(train_data, settings, "b", start=champion, reference_errors=table)
    )
    spread = rounding(make_transformer(), train_data.latents[0].numel()) * float(table.table.max())
    assert stored.diagnostics["gap_at_start"] <= spread
    inline = train(make_transformer(), Wan(), TrainJob(train_data, settings, "b", start=champion))
    assert inline.diagnostics["gap_at_start"] == 0.0
    assert_losses_agree(stored, inline, settings.beta, spread)
    # the base's errors beside a champion are another reference: the gap before the first step says so
    with pytest.raises(StageFailed, match="differ by"):
        train(
            make_transformer(),
            Wan(),
            TrainJob(train_data, settings, "b", start=champion, reference_errors=base),
        )


def assert_losses_agree(one: TrainResult, other: TrainResult, beta: float, spread: float) -> None:
    """A logit is beta/2 times the errors of at most two clips, and no objective is steeper in it than 1."""
    for a, b in zip(one.curve, other.curve, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0, abs=beta * spread)


def test_one_table_serves_every_objective_beta_and_batch_size(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    made_for = tune(objective="dpo", fixed_noise_samples=4, beta=500.0, probe=0)
    table = table_of(make_transformer(), train_data, made_for, rows=7)  # no shape that training uses
    spread = rounding(make_transformer(), train_data.latents[0].numel()) * float(table.table.max())
    for change in (
        {"objective": "kto", "beta": 20.0},
        {"sft_weight": 1.0, "beta": 50.0, "batch_size": 6},
    ):
        settings = made_for.changed(**change)
        inline = train(make_transformer(), family, TrainJob(train_data, settings, "b"))
        stored = train(
            make_transformer(), family, TrainJob(train_data, settings, "b", reference_errors=table)
        )
        assert_losses_agree(stored, inline, settings.beta, spread)


def test_the_draws_of_the_table_are_the_draws_of_training(
    make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    settings = tune(fixed_noise_samples=3)
    same = settings.changed(objective="kto", beta=7.0, lr=0.5, steps=99, rank=2, batch_size=11)
    first, again, other = (
        measure(make_transformer(), Wan(), clips_of(train_data), one, 6)
        for one in (settings, same, settings.changed(seed=1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (12, 3)
    assert first.dtype == torch.float32


def test_a_table_needs_draws_that_are_the_same_at_every_step(
    make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    table = table_of(make_transformer(), train_data, tune(fixed_noise_samples=2), 4)
    with pytest.raises(UserError, match="stored reference errors need"):
        train(
            make_transformer(),
            Wan(),
            TrainJob(train_data, tune(objective="dpo"), "b", reference_errors=table),
        )


def test_a_clip_without_errors_is_noticed(train_data: TrainData) -> None:
    with pytest.raises(KeyError, match="c1"):
        ErrorTable(train_data.clip_ids, {"c0": torch.zeros(2)})


def test_a_reference_that_rounds_otherwise_is_said_with_what_helps(
    family: Family, model: ModelSettings, train_data: TrainData, tune: Tune, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it may be rounding, in bfloat16, it is no defect; but what is learned from must not be noise."""
    settings = tune(objective="dpo", fixed_noise_samples=2, steps=1, beta=500.0, probe=0)
    network = family.load_transformer(model.changed(dtype="bfloat16"))
    draw = torch.Generator().manual_seed(0)
    off = {clip: 1 + torch.rand(2, generator=draw) for clip in train_data.clip_ids}
    train(
        network,
        family,
        TrainJob(train_data, settings, "b", reference_errors=ErrorTable(train_data.clip_ids, off)),
    )
    (told,) = [line.getMessage() for line in caplog.records if "before the first step the logit" in line.msg]
    assert "finetune.reference_errors 'inline', or lower finetune.beta" in told
