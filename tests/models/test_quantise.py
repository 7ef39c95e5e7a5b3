"""Weights in fewer bits: what is held, what is learned over them, and that nothing passes it off as exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from models import lora
from models.families.base import Family
from models.families.settings import ModelSettings, SampleSettings
from models.lora import LoraSpec
from models.sampling.offload import ModelOffloader
from models.sampling.sampler import Sampler
from models.sampling.texts import Texts
from models.training.settings import TrainSettings
from models.training.train_data import TrainData
from models.training.trainer import TrainJob, train
from tests.models.conftest import prediction_and_target

FP8 = torch.float8_e4m3fn


@pytest.fixture
def fp8(model: ModelSettings) -> ModelSettings:
    return model.changed(quantise="fp8-storage")


def bytes_of(network: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in network.parameters())


def asked(family: Family, network: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Prediction and target at two noise levels."""
    draw = torch.Generator().manual_seed(3)
    x0, noise = (torch.randn(2, 16, 5, 4, 4, generator=draw) for _ in range(2))
    embeds = torch.randn(2, 16, 32, generator=draw)
    return prediction_and_target(family, network, x0, embeds, torch.tensor([0.25, 0.9]), noise)


def test_blocks_lie_in_a_byte_a_weight_and_norms_do_not(
    family: Family, model: ModelSettings, fp8: ModelSettings
) -> None:
    plain: Any = family.load_transformer(model)
    held: Any = family.load_transformer(fp8)
    assert held.blocks[0].attn1.to_q.weight.dtype == FP8
    assert held.blocks[0].attn1.norm_q.weight.dtype == torch.float32
    assert held.scale_shift_table.dtype == torch.float32
    assert held.dtype == torch.float32, "what it computes in"
    assert bytes_of(held) < 0.6 * bytes_of(plain)


def test_it_computes_with_the_rounded_weights_and_nothing_else(
    family: Family, model: ModelSettings, fp8: ModelSettings
) -> None:
    rounded = family.load_transformer(model)
    held = family.load_transformer(fp8)
    for mine, theirs in zip(rounded.parameters(), held.parameters(), strict=True):
        mine.data = theirs.data.to(torch.float32)
    with torch.no_grad():
        exact, _ = asked(family, family.load_transformer(model))
        expected, _ = asked(family, rounded)
        found, _ = asked(family, held)
        again, _ = asked(family, held)
    assert torch.equal(found, expected)
    assert torch.equal(found, again)
    assert not torch.allclose(found, exact, atol=1e-4)


def test_gradients_of_an_adapter_are_those_over_the_rounded_weights(
    family: Family, model: ModelSettings, fp8: ModelSettings
) -> None:
    rounded, held = family.load_transformer(model), family.load_transformer(fp8)
    for mine, theirs in zip(rounded.parameters(), held.parameters(), strict=True):
        mine.data = theirs.data.to(torch.float32)
    found = []
    for network in (rounded, held):
        adapter = lora.attach(network, LoraSpec(4, 4.0, family.lora_targets), seed=0)
        prediction, target = asked(family, network)
        found.append(
            torch.autograd.grad((prediction - target).square().mean(), list(adapter.parameters().values()))
        )
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)
    assert any(bool(one.abs().max() > 1e-6) for one in found[1])


@pytest.mark.parametrize("recomputed", [False, True])
def test_training_over_them_learns_and_leaves_them_alone(
    family: Family,
    fp8: ModelSettings,
    train_data: TrainData,
    tune: Callable[..., TrainSettings],
    recomputed: bool,
) -> None:
    network: Any = family.load_transformer(fp8)
    before = network.blocks[0].ffn.net[2].weight.view(torch.uint8).clone()
    settings = tune(objective="sft", steps=20, lr=1e-2, gradient_checkpointing=recomputed)
    curve = train(network, family, TrainJob(train_data, settings, "b")).curve
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert torch.equal(network.blocks[0].ffn.net[2].base_layer.weight.view(torch.uint8), before)


def test_an_adapter_is_computed_beside_them_because_merged_it_would_be_rounded_away(
    family: Family, model: ModelSettings, fp8: ModelSettings, sample_settings: SampleSettings
) -> None:
    network = family.load_transformer(fp8)
    adapter = lora.attach(network, LoraSpec(4, 4.0, family.lora_targets), seed=0)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapter.parameters().values():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=draw))
    data = adapter.to_bytes("b")
    tuned = Sampler.open(fp8, sample_settings, data, "b")
    base = Sampler.open(fp8, sample_settings)
    assert tuned.name == f"{type(tuned.pipeline.scheduler).__name__}, weights: fp8-storage"
    assert "weights" not in Sampler.open(model, sample_settings).name
    prompts = ["a red ball falls down"]
    assert not torch.equal(tuned.generate(prompts, [1]).latents, base.generate(prompts, [1]).latents)
    with torch.no_grad():
        played, trained = asked(family, tuned.pipeline.transformer)[0], asked(family, network)[0]
        moved = (trained - asked(family, base.pipeline.transformer)[0]).abs().max()
    assert (played - trained).abs().max() < 1e-4 * moved


def test_they_take_turns_with_the_text_encoder_and_threads_share_them(
    family: Family, fp8: ModelSettings, sample_settings: SampleSettings
) -> None:
    """As on a GPU that does not hold all at once: a offloader moves weights that change their form at work."""
    network = family.load_transformer(fp8)
    data = lora.attach(network, LoraSpec(4, 4.0, family.lora_targets), seed=0).to_bytes("b")
    plain = Sampler.open(fp8, sample_settings, data, "b")
    source = Sampler.open(fp8, sample_settings, data, "b").source
    offloader = ModelOffloader(
        {"transformer": source.transformer}, source.text_encoder, torch.device("cpu"), 1
    )
    texts = Texts(family, source, sample_settings.max_sequence_length, offloader)
    tight = Sampler(family, source, sample_settings, texts=texts, offloader=offloader, quantised=fp8.quantise)
    expected = plain.generate(["a red ball falls down"], [1]).latents
    for ours in (tight, tight.fork(), tight):
        # rounding: kernels of a CPU depend on where in memory a tensor begins
        made = ours.generate(["a red ball falls down"], [1]).latents
        assert torch.allclose(made, expected, atol=1e-4)
        offloader.to_host("transformer")
        assert source.transformer.blocks[0].ffn.net[2].weight.dtype == FP8


def test_what_is_not_offered_is_refused(model: ModelSettings) -> None:
    with pytest.raises(ValidationError, match="Input should be 'none' or 'fp8-storage'"):
        model.changed(quantise="int3")
    with pytest.raises(ValidationError, match="cannot be compiled"):
        model.changed(quantise="fp8-storage", compile=True)
