"""What blocks keep changes memory and time, never results."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from data.errors import UserError
from models import compile as compiling
from models import lora
from models.adapted_linear import fused
from models.families.base import Family
from models.families.wan import Wan
from models.training import blocks
from models.training.blocks import BlockRunner
from models.training.reference import predict

Make = Callable[[], nn.Module]
SPEC = lora.LoraSpec(4, 8.0, Wan.lora_targets)
# Everything, attention, nothing: of both blocks.
KEEPS = ((2, True), (0, True), (0, False))


class Attentions(TorchDispatchMode):
    """Counts the attention kernels that are run forward."""

    count = 0

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        self.count += "scaled_dot_product" in name and "backward" not in name
        return func(*args, **(kwargs or {}))


def learner(network: nn.Module) -> list[nn.Parameter]:
    """An adapter that is not at its start, so that every one of its gradients counts."""
    parameters = list(lora.attach(network, SPEC, 0).parameters().values())
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return parameters


def gradients(
    family: Family, network: nn.Module, parameters: list[nn.Parameter], *, counted: bool = True
) -> tuple[tuple[Tensor, ...], int]:
    """Gradients of a pass, and how many attention kernels the backward pass ran forward again, if counted."""
    draw = torch.Generator().manual_seed(2)
    noisy, sigma = torch.randn(2, 16, 5, 4, 4, generator=draw), torch.rand(2, generator=draw)
    embeds = torch.randn(2, 16, 32, generator=draw)
    loss = family.predict(network, noisy, sigma, embeds).square().mean()
    with Attentions() if counted else nullcontext(Attentions()) as seen:
        found = torch.autograd.grad(loss, parameters)
    return found, seen.count


def test_what_blocks_keep_changes_what_is_computed_again_and_no_gradient(
    family: Family, make_transformer: Make
) -> None:
    network = make_transformer()
    parameters = learner(network)
    plain, again = gradients(family, network, parameters)
    assert again == 0
    runner = BlockRunner(network)
    # two blocks, each with self-attention and attention to the text
    for (everything, attention), count in zip(KEEPS, (0, 2, 4), strict=True):
        runner.keep(everything, attention=attention)
        found, again = gradients(family, network, parameters)
        assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))
        assert again == count
    runner.keep(1, attention=False)
    assert gradients(family, network, parameters)[1] == 2
    runner.release()
    assert gradients(family, network, parameters)[1] == 0


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(UserError, match="no repeated blocks"):
        compiling.repeated_blocks(nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.slow
def test_compiled_blocks_share_one_graph_a_mode_and_give_the_same_gradients(
    family: Family, make_transformer: Make
) -> None:
    """As they are trained, with fused adapters: at full size a graph takes 12 s, and there are 30 blocks."""
    network: Any = make_transformer()
    network.blocks.append(copy.deepcopy(network.blocks[1]))  # two would take two graphs, shared or not
    parameters = learner(network)
    plain, _ = gradients(family, network, parameters)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    # the partition of inductor without its code generation
    runner = BlockRunner(network, compile=True, backend="aot_eager_decomp_partition")
    for everything, attention in KEEPS:
        runner.keep(everything, attention=attention)
        with fused(lora.layers_of(network)):
            found, _ = gradients(family, network, parameters, counted=False)
        for a, b in zip(found, plain, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert not torch._dynamo.utils.counters["graph_break"]
    # the first block's input needs no gradient, the others' does: at most two a mode
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2 * len(KEEPS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="what inductor makes of it for a GPU")
def test_a_reference_without_gradients_is_the_policy_before_the_first_step(
    family: Family, make_transformer: Make
) -> None:
    """Then a stored error of the reference is the policy's own, whatever blocks keep.

    On an H200 they were equal to the last bit in six processes of six; with kernels that round as they are
    fused, 5e-3 apart in three of three. Between them: kernels that sum in another order.
    """
    device, draw = torch.device("cuda"), torch.Generator().manual_seed(2)
    noisy, sigma = torch.randn(2, 16, 5, 32, 32, generator=draw).to(device), torch.rand(2, generator=draw)
    given = noisy, sigma.to(device), torch.randn(2, 16, 32, generator=draw).to(device)
    torch._dynamo.reset()
    still, policy = (make_transformer().to(device, torch.bfloat16) for _ in range(2))
    compiling.compile_blocks(still)
    with torch.no_grad():
        expected = predict(family, still, *given)
    lora.attach(policy, SPEC, 0)
    runner = BlockRunner(policy, compile=True)
    found = []
    with fused(lora.layers_of(policy)):
        for everything, attention in (*KEEPS, (1, False)):
            runner.keep(everything, attention=attention)
            apart = (predict(family, policy, *given) - expected).norm() / expected.norm()
            found.append((everything, attention, float(apart)))
    assert all(apart < 1e-3 for *_, apart in found), found


def test_all_graphs_of_a_network_round_alike(
    family: Family, make_transformer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gradients, whatever blocks keep, and without, as the reference is measured"""
    given: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda f, **how: given.append(how["options"]) or f)
    gpu = compiling.rounding("inductor", torch.device("cuda"))
    assert gpu == {"emulate_precision_casts": True}
    assert compiling.rounding("inductor", torch.device("cpu")) is None
    monkeypatch.setattr(compiling, "rounding", lambda *_: gpu)
    network = make_transformer()
    parameters = learner(network)
    blocks._compiled_mode.cache_clear()
    runner = BlockRunner(network, compile=True, backend="a name")
    for everything, attention in KEEPS:
        runner.keep(everything, attention=attention)
        gradients(family, network, parameters, counted=False)
    blocks._compiled_mode.cache_clear()
    # the blocks as they are, which share a function, and one function a mode
    assert given == [gpu] * (1 + len(KEEPS))


def test_what_was_compiled_outlives_the_temporary_folder(
    make_transformer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/a/home")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    compiling.compile_blocks(make_transformer(), "eager")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/a/home/.cache/vidloop/inductor"
