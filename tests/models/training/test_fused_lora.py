from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import lora
from models.families.base import Family
from models.families.settings import ModelSettings
from models.lora import LoraSpec
from models.training.fused_lora import fused

Outcome = tuple[Tensor, dict[str, Tensor]]
SPEC = LoraSpec(
    rank=4, alpha=12.0, targets=("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")
)


@pytest.fixture
def outcome(family: Family, make_transformer: Callable[[], nn.Module]) -> Callable[[bool, float], Outcome]:
    """Prediction and adapter gradients of one pass, fused or not, of an adapter that moved by `size`."""

    def compute(on: bool, size: float) -> Outcome:
        network = make_transformer()
        adapter = lora.attach(network, SPEC, seed=0)
        draw = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in adapter.parameters().values():
                parameter.add_(size * torch.randn(parameter.shape, generator=draw))
        noisy, embeds = torch.randn(2, 16, 5, 4, 4, generator=draw), torch.randn(2, 16, 32, generator=draw)
        with fused(lora.layers_of(network)) if on else nullcontext():
            prediction = family.predict(network, noisy, torch.tensor([0.3, 0.8]), embeds)
            prediction.square().mean().backward()
        slopes = {name: p.grad for name, p in adapter.parameters().items() if p.grad is not None}
        assert len(slopes) == len(adapter.parameters())
        assert all(p.grad is None for name, p in network.named_parameters() if ".lora_" not in name)
        return prediction.detach(), slopes

    return compute


def test_fused_layers_predict_and_learn_as_plain_ones_do(outcome: Callable[[bool, float], Outcome]) -> None:
    plain, plain_slopes = outcome(False, 0.2)
    quick, quick_slopes = outcome(True, 0.2)
    assert torch.allclose(plain, quick, rtol=1e-4, atol=1e-5)
    for name, slope in plain_slopes.items():
        assert (quick_slopes[name] - slope).abs().max() <= 1e-4 * slope.abs().max() + 1e-9, name


def test_fused_adapter_at_init_is_the_base_bit_for_bit(family: Family, transformer: nn.Module) -> None:
    draw = torch.Generator().manual_seed(2)
    inputs = (
        torch.randn(2, 16, 5, 4, 4, generator=draw),
        torch.tensor([0.3, 0.8]),
        torch.randn(2, 16, 32, generator=draw),
    )
    with torch.no_grad():
        base = family.predict(transformer, *inputs)
    lora.attach(transformer, SPEC, seed=0)
    with fused(lora.layers_of(transformer)):
        assert torch.equal(family.predict(transformer, *inputs).detach(), base)
        network: Any = transformer
        network.disable_adapters()
        with torch.no_grad():
            assert torch.equal(family.predict(transformer, *inputs), base)
        network.enable_adapters()
        reference = lora.reference_of(transformer)
    with fused(lora.layers_of(reference)), torch.no_grad():
        assert torch.equal(family.predict(reference, *inputs), base)


def test_layers_are_plain_again_afterwards_even_after_an_exception(transformer: nn.Module) -> None:
    lora.attach(transformer, SPEC, seed=0)
    layers = lora.layers_of(transformer)
    with fused(layers):
        assert all("forward" in vars(layer) for layer in layers)
    assert not any("forward" in vars(layer) for layer in layers)
    with pytest.raises(RuntimeError, match="midway"), fused(layers):
        raise RuntimeError("midway")
    assert not any("forward" in vars(layer) for layer in layers)


def test_bfloat16_weights_are_left_alone_because_the_update_would_round_away(
    family: Family, model: ModelSettings
) -> None:
    network: Any = family.load_transformer(model.changed(dtype="bfloat16"))
    lora.attach(network, SPEC, seed=0)
    with fused(lora.layers_of(network)):
        assert not any("forward" in vars(layer) for layer in lora.layers_of(network))
