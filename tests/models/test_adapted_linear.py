import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch._dynamo
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from models import lora
from models.adapted_linear import AdaptedLinear, fused, share
from models.compile import compile_blocks
from models.families.base import Family
from models.lora import LoraSpec

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
    kinds = [type(layer) for layer in layers]
    with fused(layers):
        assert not any(type(layer) is kind for layer, kind in zip(layers, kinds, strict=True))
    assert [type(layer) for layer in layers] == kinds
    with pytest.raises(RuntimeError, match="midway"), fused(layers):
        raise RuntimeError("midway")
    assert [type(layer) for layer in layers] == kinds


def bfloat16_layers(rank: int, size: float) -> tuple[nn.Module, nn.Module, Tensor]:
    """Of one layer in bfloat16 with an adapter of `rank` whose B has this size: peft's, ours, and an input."""
    draw = torch.Generator().manual_seed(4)
    linear = nn.Linear(512, 2048).to(torch.bfloat16)
    holder: Any = nn.Sequential(linear)
    layer = inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=3 * rank, target_modules=["0"]), holder)[0]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        a.data = torch.rand(a.shape, generator=draw) * 2 - 1
        b.data = size * torch.randn(b.shape, generator=draw)
    ours = AdaptedLinear(linear, a.detach(), 3 * b.detach(), torch.bfloat16)
    return layer, ours, torch.randn(7, 5, 512, generator=draw).to(torch.bfloat16)


@pytest.mark.parametrize("rank", [3, 16, 80])
def test_in_bfloat16_the_layer_that_is_sampled_is_the_one_that_is_trained(rank: int) -> None:
    layer, sampled, x = bfloat16_layers(rank, 0.1)
    with fused([layer]):
        assert torch.equal(layer(x), sampled(x))


@pytest.mark.parametrize("size", [3e-6, 1e-3, 1e-1])
def test_in_bfloat16_no_part_of_a_small_adapter_is_lost(size: float) -> None:
    layer, sampled, _ = bfloat16_layers(16, size)
    linear = layer.get_base_layer()
    a, b = layer.lora_A["default"].weight.detach(), 3 * layer.lora_B["default"].weight.detach()
    assert share(sampled, linear, a, b, torch.bfloat16) == pytest.approx(1, abs=0.02)
    merged = copy.deepcopy(linear)
    merged.weight.data += (b @ a).to(torch.bfloat16)
    if size < 1e-3:
        assert share(layer, linear, a, b, torch.bfloat16) < 0.5, "or there would be nothing to mend"
        assert share(merged, linear, a, b, torch.bfloat16) < 0.5


def test_gradients_in_bfloat16_are_those_of_float32() -> None:
    layer, _, x = bfloat16_layers(16, 0.1)
    parameters = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]

    def slopes(dtype: torch.dtype) -> list[Tensor]:
        layer.get_base_layer().to(dtype)
        given = x.to(dtype).requires_grad_()
        with fused([layer]):
            y = layer(given).float()
        return list(torch.autograd.grad(y.square().sum(), [given, *parameters]))

    for low, exact in zip(slopes(torch.bfloat16), slopes(torch.float32), strict=True):
        assert (low.float() - exact).norm() < 0.02 * exact.norm()


def test_an_adapter_that_is_off_is_the_same_product_so_that_a_new_one_equals_its_reference() -> None:
    layer, _, x = bfloat16_layers(16, 0.0)
    with fused([layer]):
        new = layer(x)
        layer.enable_adapters(False)
        assert torch.equal(new, layer(x))


def test_compiled_the_layer_is_what_it_is_eager() -> None:
    layer, sampled, x = bfloat16_layers(16, 0.1)
    with fused([layer]):
        graph = torch.compile(
            lambda given: layer(given).float().square().mean(), backend="aot_eager", fullgraph=True
        )
        slope = torch.autograd.grad(graph(x), layer.lora_B["default"].weight)[0]
        plain = torch.autograd.grad(layer(x).float().square().mean(), layer.lora_B["default"].weight)[0]
    assert torch.allclose(slope, plain, rtol=1e-2, atol=1e-4 * float(plain.abs().max()))
    with torch.no_grad():
        assert torch.equal(torch.compile(sampled, backend="aot_eager", fullgraph=True)(x), sampled(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.to_k(self.to_q(x).tanh())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_with_fused_adapters_share_one_compiled_graph(dtype: torch.dtype) -> None:
    """Each would be compiled anew if a layer had a `forward` of its own: minutes at full size."""
    graphs = []
    for count in (2, 5):
        network = nn.Module()
        network.blocks = nn.ModuleList(Block() for _ in range(count)).to(dtype)
        inject_adapter_in_model(LoraConfig(r=2, target_modules=["to_q", "to_k"]), network)
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        with fused(lora.layers_of(network)):
            compile_blocks(network, "eager")
            x = torch.randn(3, 8, dtype=dtype).requires_grad_()
            for block in network.blocks:
                x = block(x)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs == [1, 1]
