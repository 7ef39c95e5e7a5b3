import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data.errors import StageFailed, UserError
from data.store import failpoints
from models import lora
from models.families.base import Family
from models.families.settings import ModelSettings
from models.families.wan import Wan
from models.lora import LoraSpec
from models.parameterization import Epsilon, Parameterization, VPrediction
from models.training.batches import Batches
from models.training.equations import error
from models.training.objectives import names
from models.training.settings import TrainSettings
from models.training.step import Run
from models.training.train_data import TrainData
from models.training.trainer import TrainJob, TrainResult, train
from tests.models.conftest import prediction_and_target

Tune = Callable[..., TrainSettings]
Make = Callable[[], nn.Module]


def mean_errors(family: Family, network: nn.Module, data: TrainData, levels: int = 8) -> Tensor:
    """[N] errors of every clip, on draws that training never saw."""
    found = []
    for k in range(levels):
        draw = torch.Generator().manual_seed(1000 + k)
        noise = torch.randn(data.latents.shape[1:], generator=draw).expand_as(data.latents)
        sigma = torch.full((len(data.latents),), (k + 0.5) / levels)
        with torch.no_grad():
            pair = prediction_and_target(
                family, network, data.latents, data.embeds[data.prompt_index], sigma, noise
            )
        found.append(error(*pair))
    return torch.stack(found).mean(0)


@pytest.mark.parametrize(
    "kind", [Wan.parameterization, Epsilon(), VPrediction()], ids=lambda k: type(k).__name__
)
def test_training_reduces_the_error_of_one_clip(
    transformer: nn.Module, train_data: TrainData, tune: Tune, kind: Parameterization
) -> None:
    family = Wan()
    family.parameterization = kind  # type: ignore[assignment]  # the same network, taught another target
    one = replace(
        train_data,
        examples=torch.zeros(1, dtype=torch.int64),
        weights=torch.ones(1),
        accepted=torch.ones(1, dtype=torch.bool),
    )
    before = mean_errors(family, transformer, one)[0]
    train(transformer, family, TrainJob(one, tune(objective="sft", steps=30, batch_size=6, lr=2e-2), "b"))
    assert mean_errors(family, transformer, one)[0] < 0.9 * before


@pytest.mark.parametrize(
    "objective",
    [*names(), "rwr-anchor", "rwr-exp-anchor", "dpo-anchor", "sdpo-anchor", "kto-anchor", "nft-anchor"],
)
def test_every_objective_learns_what_it_is_for(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune, objective: Any
) -> None:
    exp = objective.startswith("rwr-exp")
    data = replace(train_data, weights=train_data.accepted.float() + (0.2 if exp else 0.0))
    before = mean_errors(family, transformer, data)
    settings = tune(objective=objective, steps=24, batch_size=6, lr=8e-3, beta=50.0)
    result = train(transformer, family, TrainJob(data, settings, "b"))
    change = mean_errors(family, transformer, data) - before
    chosen, rejected = change[data.accepted].mean(), change[~data.accepted].mean()
    if settings.objective in ("dpo", "sdpo", "kto") and not settings.sft_weight:
        assert result.curve[-1]["rewards/margins"] > 0.05
    elif objective == "nft":
        assert chosen < 0 < rejected, "towards the accepted and away from the rejected"
    else:
        assert chosen < -0.02, "kept clips became more likely"
    if objective == "unfiltered":
        assert rejected < -0.02, "and so did the others"
    else:
        assert chosen < rejected, "and more so than the others"
    assert len(result.curve) == 24
    assert all(math.isfinite(value) for entry in result.curve for value in entry.values())


def first_weight(data: TrainData, settings: TrainSettings) -> float:
    """Mean weight of the first batch."""
    return Batches(data, settings, torch.device("cpu")).at(0).weights.mean().item()


@pytest.mark.parametrize("objective", ["dpo", "dpo-anchor", "sdpo", "kto", "nft"])
def test_gap_to_the_reference_is_exactly_zero_before_the_first_step(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune, objective: Any
) -> None:
    result = train(transformer, family, TrainJob(train_data, tune(objective=objective, steps=2), "b"))
    assert result.diagnostics["gap_at_start"] == 0.0
    first = result.curve[0]
    if objective == "kto":
        assert first["kto"] == pytest.approx(
            0.5 * first_weight(train_data, tune(objective=objective)), rel=1e-5
        )
        assert first["reference_point"] == 0.0
    elif objective == "nft":
        assert first["nft"] == pytest.approx(first["error"], rel=1e-6)
    else:
        assert first[objective.removesuffix("-anchor")] == pytest.approx(math.log(2))
        assert first["rewards/margins"] == 0.0
    assert first["kl"] == 0.0 < result.curve[1]["kl"]
    assert result.curve[1]["gap/max"] > 0


class Watched(Wan):
    """Wan that remembers what the network was shown and whether gradients were on."""

    def __init__(self) -> None:
        self.seen: list[tuple[bool, Tensor, Tensor, Tensor]] = []

    def predict(self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        self.seen.append((torch.is_grad_enabled(), noisy.clone(), sigma.clone(), embeds.clone()))
        return super().predict(transformer, noisy, sigma, embeds)


@pytest.mark.parametrize("fixed", [0, 4])
def test_both_halves_and_the_reference_see_the_same_level_and_noise(
    transformer: nn.Module, train_data: TrainData, tune: Tune, fixed: int
) -> None:
    # pitfall: drawing them apart for winner and loser, or for policy and reference
    family = Watched()
    data = replace(train_data, unconditional=torch.ones(16, 32))
    train(
        transformer,
        family,
        TrainJob(data, tune(objective="dpo", steps=2, prompt_dropout=0.5, fixed_noise_samples=fixed), "b"),
    )
    assert [grad for grad, *_ in family.seen] == [False, True, False, True]
    dropped = 0
    for reference, policy in zip(family.seen[::2], family.seen[1::2], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(reference[1:], policy[1:], strict=True))
        _, noisy, sigma, embeds = policy
        assert torch.equal(sigma[:3], sigma[3:])
        assert len(set(sigma[:3].tolist())) == 3
        assert torch.equal(embeds[:3], embeds[3:]), "one drop-out mask for both halves"
        dropped += int((embeds[:3] == 1).all(-1).all(-1).sum())
        # x_s = (1-s) x0 + s n: with one n, the difference of the halves is (1-s) times that of their latents
        apart = (noisy[:3] - noisy[3:]) / (1 - sigma[:3]).view(-1, 1, 1, 1, 1)
        known = train_data.latents[train_data.pairs[:, 0]] - train_data.latents[train_data.pairs[:, 1]]
        for row in apart:
            assert (known - row).abs().flatten(1).amax(1).min() < 1e-3
    assert 0 < dropped < 6


@pytest.mark.parametrize("fixed", [0, 3])
@pytest.mark.parametrize("objective", ["sft", "dpo-anchor", "kto-anchor", "nft"])
def test_resumed_run_equals_an_uninterrupted_one_byte_for_byte(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune, tmp_path: Path, objective: Any, fixed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = tune(objective=objective, fixed_noise_samples=fixed, steps=7)
    whole = train(make_transformer(), family, TrainJob(train_data, settings, "b"))

    monkeypatch.setattr(failpoints, "_passes", Counter())
    monkeypatch.setenv("VIDLOOP_FAILPOINT", "finetune.after_checkpoint:2")
    monkeypatch.setenv("VIDLOOP_FAILPOINT_ACTION", "raise")
    with pytest.raises(RuntimeError, match="failpoint"):
        train(make_transformer(), family, TrainJob(train_data, settings, "b", tmp_path))
    monkeypatch.delenv("VIDLOOP_FAILPOINT")
    torch.manual_seed(1234)
    steps: list[float] = []
    resumed = train(
        make_transformer(),
        family,
        TrainJob(train_data, settings, "b", tmp_path),
        lambda entry: steps.append(entry["step"]),
    )
    assert steps == [4, 5, 6], "nothing before the checkpoint was computed again"
    assert resumed == whole


@pytest.mark.parametrize("change", ["settings", "data"])
def test_a_checkpoint_of_other_data_or_settings_is_not_resumed(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune, tmp_path: Path, change: str
) -> None:
    settings = tune(objective="sft", steps=3)
    train(make_transformer(), family, TrainJob(train_data, settings, "b", tmp_path))
    if change == "settings":
        settings = settings.changed(lr=2e-3)
    else:
        train_data = replace(train_data, accepted=~train_data.accepted)
    steps: list[float] = []
    train(
        make_transformer(),
        family,
        TrainJob(train_data, settings, "b", tmp_path),
        lambda e: steps.append(e["step"]),
    )
    assert steps == [0, 1, 2]


def test_base_weights_are_frozen_and_stay_what_they_were(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune
) -> None:
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    train(transformer, family, TrainJob(train_data, tune(objective="dpo"), "b"))
    assert not transformer.training
    after = {name.replace(".base_layer", ""): value for name, value in transformer.state_dict().items()}
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_training_from_a_champion_starts_at_it_and_refers_to_it(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    champion = train(
        make_transformer(), family, TrainJob(train_data, tune(objective="sft", steps=20, lr=5e-3), "b")
    ).adapter
    network = make_transformer()
    lora.play(network, champion)
    expected = mean_errors(family, network, train_data)

    to_start, to_base = (
        train(make_transformer(), family, TrainJob(train_data, tune(objective="dpo", reference=reference, steps=1), "b", start=champion))
        for reference in ("start", "base")
    )  # fmt: skip
    assert to_start.curve[0]["gap/max"] == 0.0
    assert to_base.curve[0]["gap/max"] > 1e-3, "against the base, the champion has moved already"
    again = make_transformer()
    lora.play(
        again,
        train(
            make_transformer(),
            family,
            TrainJob(train_data, tune(objective="sft", steps=1, lr=1e-12), "b", start=champion),
        ).adapter,
    )
    assert torch.allclose(mean_errors(family, again, train_data), expected, atol=1e-4)


def test_champion_of_another_base_is_refused(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    champion = train(
        make_transformer(), family, TrainJob(train_data, tune(objective="sft", steps=1), "one")
    ).adapter
    with pytest.raises(UserError, match="made for base model one"):
        train(make_transformer(), family, TrainJob(train_data, tune(objective="sft"), "two", start=champion))


def test_a_champion_of_another_rank_is_refused_not_trained_in_silence(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    settings = tune(objective="sft", steps=1)
    champion = train(make_transformer(), family, TrainJob(train_data, settings, "b")).adapter
    other = settings.changed(rank=settings.rank + 1)
    with pytest.raises(UserError, match=rf"rank is {other.rank}, but .* say finetune.rank: {settings.rank},"):
        train(make_transformer(), family, TrainJob(train_data, other, "b", start=champion))


def test_adapter_knows_its_size_and_base(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune
) -> None:
    file = lora.read(
        train(transformer, family, TrainJob(train_data, tune(objective="sft", steps=1), "base-9")).adapter
    )
    assert (file.spec.rank, file.spec.alpha, file.base_id) == (4, 8.0, "base-9")
    assert file.spec.targets == tuple(sorted(family.lora_targets))


@pytest.mark.parametrize("objective", ["dpo-anchor", "sdpo-anchor", "rwr-anchor", "kto-anchor", "nft-anchor"])
def test_micro_batches_give_the_gradient_of_the_whole_batch(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune, objective: Any
) -> None:
    whole, parts = (
        train(
            make_transformer(),
            family,
            TrainJob(train_data, tune(objective=objective, batch_size=5, micro_batch=size), "b"),
        )
        for size in (None, 2)
    )
    for a, b in zip(whole.curve, parts.curve, strict=True):
        assert a.keys() == b.keys()
        assert all(a[name] == pytest.approx(b[name], rel=1e-2, abs=1e-4) for name in a)
        if "gap/max" not in a:
            a, b = {**a, "gap/max": 0.0}, {**b, "gap/max": 0.0}
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)
        assert a["gap/max"] == pytest.approx(b["gap/max"], rel=1e-2, abs=1e-7)


@pytest.mark.parametrize("objective", ["sft", "dpo-anchor", "kto", "nft"])
def test_threads_share_the_work_and_change_nothing(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune, objective: Any
) -> None:
    settings = tune(objective=objective, batch_size=5, micro_batch=2)
    before = torch.get_num_threads()
    one, three = (
        train(make_transformer(), family, TrainJob(train_data, settings, "b", threads=threads))
        for threads in (1, 3)
    )
    assert one == three
    assert torch.get_num_threads() == before


def test_threads_without_a_micro_batch_get_equal_shares(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    found = train(make_transformer(), family, TrainJob(train_data, tune(batch_size=5), "b", threads=2))
    assert found.diagnostics["micro_batch"] == 3


def test_on_anything_but_a_cpu_one_thread_has_the_whole_batch(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    """`workers` of a recipe is also for a GPU, where threads would share one device's memory and time."""
    settings = tune(batch_size=5, attention="default")
    for device, share in (("meta", 5), ("cpu", 2)):
        network = make_transformer().to(device)
        adapter = lora.attach(network, LoraSpec(2, 2.0, ("to_q",)), seed=0)
        with Run(network, family, train_data, settings, adapter, threads=3) as run:
            assert run.micro_batch == share


def test_gradient_checkpointing_changes_memory_not_results(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    plain, *saving = (
        train(
            make_transformer(),
            family,
            TrainJob(train_data, tune(objective="dpo", gradient_checkpointing=on, probe=2), "b"),
        )
        for on in (False, True, "attention", "auto")
    )
    assert all(run.adapter == plain.adapter for run in saving)


class Small(Wan):
    """Wan on a card that holds `room` clips at once: what CUDA raises, where there is no CUDA."""

    def __init__(self, room: int) -> None:
        self.room = room

    def predict(self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
        if len(noisy) > self.room:
            raise torch.OutOfMemoryError(f"{len(noisy)} clips do not fit")
        return super().predict(transformer, noisy, sigma, embeds)


def test_a_full_gpu_halves_the_micro_batch_and_goes_on(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    settings = tune(objective="dpo", batch_size=6)
    squeezed = train(make_transformer(), Small(room=4), TrainJob(train_data, settings, "b"))
    assert squeezed.diagnostics["micro_batch"] == 2
    whole = train(make_transformer(), family, TrainJob(train_data, settings, "b"))
    assert [e["loss"] for e in squeezed.curve] == pytest.approx([e["loss"] for e in whole.curve], rel=1e-4)


def test_a_gpu_that_holds_one_clip_takes_the_halves_of_a_pair_one_after_the_other(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    settings = tune(objective="dpo", steps=3)
    squeezed = train(make_transformer(), Small(room=1), TrainJob(train_data, settings, "b"))
    assert squeezed.diagnostics["micro_batch"] == 1
    whole = train(make_transformer(), family, TrainJob(train_data, settings, "b"))
    assert [e["loss"] for e in squeezed.curve] == pytest.approx([e["loss"] for e in whole.curve], rel=1e-4)


def test_a_gpu_too_small_for_one_clip_says_what_would_fit(
    transformer: nn.Module, train_data: TrainData, tune: Tune
) -> None:
    with pytest.raises(
        StageFailed, match=r"step 0: one clip does not fit.*gradient_checkpointing.*bfloat16.*rank"
    ):
        train(transformer, Small(room=0), TrainJob(train_data, tune(objective="dpo"), "b"))


def test_nan_loss_names_the_step_and_loses_nothing(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune, tmp_path: Path
) -> None:
    class Breaks(Wan):
        calls = 0

        def predict(self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, embeds: Tensor) -> Tensor:
            self.calls += 1
            return super().predict(transformer, noisy, sigma, embeds) * (math.nan if self.calls == 4 else 1.0)

    settings = tune(objective="sft", steps=6)
    with pytest.raises(StageFailed, match=r"step 3: loss.*became nan"):
        train(make_transformer(), Breaks(), TrainJob(train_data, settings, "b", tmp_path))
    steps: list[float] = []
    mended = train(
        make_transformer(),
        family,
        TrainJob(train_data, settings, "b", tmp_path),
        lambda e: steps.append(e["step"]),
    )
    assert steps == [2, 3, 4, 5]
    assert mended == train(make_transformer(), family, TrainJob(train_data, settings, "b"))


@pytest.mark.parametrize("objective", ["rwr", "rwr-exp", "dpo", "kto", "nft"])
def test_kl_and_anchor_are_terms_of_their_own_in_the_log(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune, objective: Any
) -> None:
    settings = tune(objective=objective, kl=0.7, sft_weight=0.3, steps=3)
    for entry in train(make_transformer(), family, TrainJob(train_data, settings, "b")).curve:
        terms = entry[objective] + 0.3 * entry["anchor"] + 0.7 * entry["kl"]
        assert entry["loss"] == pytest.approx(terms, rel=1e-5)
    assert entry["kl"] > 0


def test_kl_holds_the_policy_near_the_reference(
    family: Family, make_transformer: Make, train_data: TrainData, tune: Tune
) -> None:
    far, near = (
        train(
            make_transformer(),
            family,
            TrainJob(train_data, tune(objective="sft", kl=weight, steps=12, lr=5e-3), "b"),
        )
        for weight in (1e-6, 100.0)
    )
    assert near.curve[0]["kl"] == 0.0
    assert near.curve[-1]["kl"] < 0.1 * far.curve[-1]["kl"]


@pytest.mark.parametrize(
    ("objective", "change"),
    [
        ("dpo", {"pairs": torch.zeros(0, 2, dtype=torch.int64)}),
        ("sft", {"accepted": torch.zeros(12, dtype=torch.bool)}),
        ("rwr", {"weights": torch.zeros(12)}),
        ("kto", {"accepted": torch.ones(12, dtype=torch.bool)}),
        ("nft-anchor", {"accepted": torch.zeros(12, dtype=torch.bool)}),
    ],
)
def test_nothing_to_learn_from_is_said_before_anything_is_done(
    family: Family,
    transformer: nn.Module,
    train_data: TrainData,
    tune: Tune,
    objective: Any,
    change: dict[str, Tensor],
) -> None:
    with pytest.raises(UserError, match=f"no training data: {objective} needs"):
        train(transformer, family, TrainJob(replace(train_data, **change), tune(objective=objective), "b"))
    assert not any(".lora_" in name for name, _ in transformer.named_parameters())


def test_prompt_dropout_needs_the_unconditional_embedding(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune
) -> None:
    with pytest.raises(UserError, match="embedding of the negative prompt"):
        train(transformer, family, TrainJob(train_data, tune(objective="sft", prompt_dropout=0.1), "b"))


def test_rwr_reports_how_many_clips_count(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune
) -> None:
    weights = torch.zeros(12)
    weights[:3] = torch.tensor([1.0, 1.0, 2.0])
    result: TrainResult = train(
        transformer,
        family,
        TrainJob(replace(train_data, weights=weights), tune(objective="rwr", steps=1), "b"),
    )
    assert result.diagnostics["effective_sample_size"] == pytest.approx(16 / 6)
    assert result.diagnostics["units"] == 3
    assert result.diagnostics["prompts"] == 1


def test_a_bfloat16_base_still_has_a_float32_adapter_and_float32_errors(
    family: Family, model: ModelSettings, train_data: TrainData, tune: Tune
) -> None:
    # pitfall: what training changes is smaller than what bfloat16 can hold
    network = family.load_transformer(model.changed(dtype="bfloat16"))
    result = train(network, family, TrainJob(train_data, tune(objective="dpo-anchor", steps=3, lr=1e-5), "b"))
    tensors = lora.read(result.adapter).tensors
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    moved = torch.cat([value.flatten() for name, value in tensors.items() if ".lora_B." in name])
    assert 0 < moved.abs().max() < 1e-4
    assert result.diagnostics["gap_at_start"] == 0.0


def test_training_leaves_the_global_generator_alone(
    family: Family, transformer: nn.Module, train_data: TrainData, tune: Tune
) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    train(transformer, family, TrainJob(train_data, tune(objective="dpo", fixed_noise_samples=2), "b"))
    assert torch.equal(torch.get_rng_state(), before)
