"""Pairs compared in segments of their clips: the masked error, the losses made of it, and whole runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data.errors import UserError
from models.families.base import Family
from models.training.batches import Units
from models.training.equations import error, frame_weights
from models.training.loss import Passes, loss_of
from models.training.reference import ErrorTable
from models.training.settings import TrainSettings
from models.training.train_data import TrainData
from models.training.trainer import TrainJob, train

MASK = torch.tensor([[True, False, False, True, False], [True] * 5, [False, False, True, False, False]])


def units(frames: Tensor | None) -> Units:
    pairs = 3
    return Units(
        torch.zeros(pairs, 2, dtype=torch.int64), torch.ones(pairs), torch.tensor([[True, False]] * pairs),
        torch.full((pairs,), 0.5), torch.zeros(pairs, 2, 5, 3, 3), torch.zeros(pairs, dtype=torch.int64),
        torch.zeros(pairs, dtype=torch.bool), frames,
    )  # fmt: skip


def passes() -> Passes:
    """Six clips: three chosen, then their rejected ones."""
    draw = torch.Generator().manual_seed(3)
    prediction, target = (torch.randn(6, 2, 5, 3, 3, generator=draw) for _ in range(2))
    return Passes(prediction.requires_grad_(), target)


def by_hand(seen: Passes, clip: int, kept: list[bool]) -> float:
    """Mean squared error of one clip over the kept latent frames, in numpy and double precision."""
    apart = (seen.prediction[clip] - seen.target[clip]).detach().double().numpy()
    return float(np.mean(apart[:, np.flatnonzero(kept)] ** 2))


@pytest.mark.parametrize("anchored", [False, True])
def test_the_loss_of_segments_is_that_of_their_frames_alone(*, anchored: bool) -> None:
    seen, beta, weight = passes(), 5.0, 0.7
    reference_error = torch.tensor([1.9, 2.1, 2.0, 2.2, 1.8, 2.05])
    settings = TrainSettings(objective="dpo", beta=beta, sft_weight=weight if anchored else 0.0)
    rows = units(frame_weights(MASK)).per_clip()
    loss, logs = loss_of(settings, rows, replace(seen, reference_error=reference_error), 1.0, None)
    expected = 0.0
    for pair, kept in enumerate(MASK.tolist()):
        gaps = [by_hand(seen, clip, kept) - reference_error[clip].item() for clip in (pair, pair + 3)]
        expected += math.log1p(math.exp(beta / 2 * (gaps[0] - gaps[1]))) / 3
    if anchored:
        whole = sum(by_hand(seen, clip, [True] * 5) for clip in range(3)) / 3
        assert logs["anchor"].item() == pytest.approx(whole, rel=1e-5)
        expected += weight * whole
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_kl_is_the_squared_distance_to_the_reference_prediction() -> None:
    settings, seen, rows = TrainSettings(objective="sft", kl=2.0), passes(), units(None).per_clip()
    plain, _ = loss_of(settings.changed(kl=0.0), rows, seen, 1.0, None)
    for apart in (0.0, 3.0):
        loss, logs = loss_of(
            settings, rows, replace(seen, reference=seen.prediction.detach() + apart), 1.0, None
        )
        assert logs["kl"].item() == pytest.approx(apart**2, rel=1e-5)
        assert (loss - plain).item() == pytest.approx(2 * apart**2, rel=1e-5)


def test_a_mask_of_all_frames_changes_no_bit() -> None:
    seen = passes()
    full = frame_weights(torch.ones(6, 5, dtype=torch.bool))
    assert full.dtype == torch.float32
    plain = error(seen.prediction, seen.target)
    assert torch.equal(error(seen.prediction, seen.target, full), plain)
    assert not torch.equal(error(seen.prediction, seen.target, full * MASK.repeat(2, 1)), plain)
    settings = TrainSettings(objective="dpo", beta=5.0)
    found = []
    for frames in (None, full[:3]):
        prediction = seen.prediction.detach().clone().requires_grad_()
        held = replace(seen, prediction=prediction, reference_error=torch.full((6,), 2.0))
        loss, _ = loss_of(settings, units(frames).per_clip(), held, 1.0, None)
        found.append((loss, *torch.autograd.grad(loss, prediction)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_frames_follow_their_pairs_into_parts_and_halves() -> None:
    weights = frame_weights(MASK)
    parts = list(units(weights).split(2))
    assert [len(part) for part in parts] == [2, 1]
    assert parts[1].frames is not None
    assert torch.equal(parts[1].frames, weights[2:])
    halves = parts[0].per_clip().frames
    assert halves is not None
    assert torch.equal(halves, torch.cat([weights[:2], weights[:2]]))
    assert next(units(None).split(2)).frames is None


def run(
    make: Callable[[], nn.Module], family: Family, data: TrainData, settings: TrainSettings
) -> tuple[bytes, list[dict[str, float]]]:
    result = train(make(), family, TrainJob(data, settings, "b"))
    return result.adapter, result.curve


@pytest.mark.parametrize("objective", ["dpo", "dpo-anchor"])
def test_training_starts_without_a_gap_and_whole_masks_train_the_same_adapter(
    make_transformer: Callable[[], nn.Module], family: Family, train_data: TrainData,
    tune: Callable[..., TrainSettings], objective: str,
) -> None:  # fmt: skip
    settings = tune(objective=objective, steps=3, micro_batch=2)
    plain = run(make_transformer, family, train_data, settings)
    full = replace(train_data, pair_frames=torch.ones(6, 5, dtype=torch.bool))
    assert run(make_transformer, family, full, settings) == plain
    some = replace(train_data, pair_frames=MASK.repeat(2, 1))
    adapter, curve = run(make_transformer, family, some, settings)
    assert curve[0]["gap/max"] == 0.0
    assert curve[0]["dpo"] == pytest.approx(math.log(2))
    assert adapter != plain[0]
    if objective == "dpo-anchor":  # at step 0 the policies are one: the anchor is of the whole clip in both
        assert curve[0]["anchor"] == plain[1][0]["anchor"]
        assert curve[0]["error/chosen"] != plain[1][0]["error/chosen"]


def test_unpaired_objectives_know_no_segments(
    make_transformer: Callable[[], nn.Module], family: Family, train_data: TrainData,
    tune: Callable[..., TrainSettings],
) -> None:  # fmt: skip
    settings = tune(objective="kto", steps=2)
    some = replace(train_data, pair_frames=MASK.repeat(2, 1))
    assert run(make_transformer, family, some, settings)[0] == run(
        make_transformer, family, train_data, settings
    )[0]  # fmt: skip


def test_stored_reference_errors_are_refused(
    transformer: nn.Module, family: Family, train_data: TrainData, tune: Callable[..., TrainSettings]
) -> None:
    settings = tune(objective="dpo", fixed_noise_samples=2, reference_errors="stored")
    table = ErrorTable(train_data.clip_ids, {clip: torch.ones(2) for clip in train_data.clip_ids})
    some = replace(train_data, pair_frames=MASK.repeat(2, 1))
    with pytest.raises(UserError, match=r"reference_errors: inline, or curate\.segments: ignore"):
        train(transformer, family, TrainJob(some, settings, "b", reference_errors=table))


@pytest.mark.parametrize("wrong", [torch.ones(6, 4), torch.ones(5, 5), torch.zeros(6, 5)])
def test_masks_that_fit_no_pair_or_keep_nothing_are_refused(train_data: TrainData, wrong: Tensor) -> None:
    with pytest.raises(UserError, match="a latent frame for every pair"):
        replace(train_data, pair_frames=wrong.bool())
