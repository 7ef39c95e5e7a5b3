"""Parts take turns on a device without changing what they compute.

On a CPU "the device" is other memory of the same kind: parts are copied there and go back to where they were.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from data.errors import UserError
from models import lora
from models.compile import compile_blocks
from models.families import get_family
from models.families.base import networks_of
from models.families.settings import ModelSettings
from models.sampling.offload import ModelOffloader
from models.sampling.sampler import Sampler
from models.sampling.texts import Texts
from tests.models.families.tiny import CASES, Tiny

A14B = next(case for case in CASES if case.family == "wan-experts")
PROMPTS = ["a red ball falls down", "a blue square moves left"]
TEXT = ModelOffloader.TEXT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("a14b")
    A14B.save(path)
    return path


def sampler(case: Tiny, folder: Path, total: int | None) -> tuple[Sampler, ModelOffloader]:
    """A sampler as on a GPU of `total` bytes, on a CPU."""
    family = get_family(case.family)
    pipeline = family.load_pipeline(ModelSettings(device="cpu", family=case.family, path=str(folder)))
    offloader = ModelOffloader(
        networks_of(family.experts, pipeline), pipeline.text_encoder, torch.device("cpu"), total
    )
    texts = Texts(family, pipeline, case.settings.max_sequence_length, offloader)
    return Sampler(family, pipeline, case.settings, texts=texts, offloader=offloader), offloader


def test_one_expert_at_a_time_makes_the_clips_of_both_at_once(folder: Path) -> None:
    free, boundless = sampler(A14B, folder, None)
    tight, narrow = sampler(A14B, folder, 1)
    assert boundless.stays
    assert not narrow.stays
    seen: list[set[str]] = []
    for network in tight.networks.values():
        network.register_forward_hook(lambda *_: seen.append(set(narrow.present)))
    expected = free.generate(PROMPTS, [1, 2]).latents
    first = tight.generate(PROMPTS, [1, 2]).latents
    # rounding: kernels of a CPU depend on where in memory a tensor begins
    assert torch.allclose(first, expected, atol=1e-4)
    # the second batch begins with the first expert again
    assert torch.equal(tight.generate(PROMPTS, [1, 2]).latents, first)
    assert {frozenset(one) for one in seen} == {frozenset({"transformer"}), frozenset({"transformer_2"})}
    assert {"transformer", "transformer_2"} <= boundless.present
    other = tight.fork()
    assert torch.equal(other.generate(PROMPTS, [1, 2]).latents, first)


def places(*parts: nn.Module) -> list[int]:
    """Where the weights lie."""
    return [weight.data_ptr() for part in parts for weight in (*part.parameters(), *part.buffers())]


def bytes_of(*parts: nn.Module) -> int:
    return sum(w.numel() * w.element_size() for part in parts for w in (*part.parameters(), *part.buffers()))


@pytest.fixture
def pipeline(folder: Path) -> Any:
    return get_family("wan-experts").load_pipeline(
        ModelSettings(device="cpu", family="wan-experts", path=str(folder))
    )


@pytest.fixture
def networks(pipeline: Any) -> dict[str, nn.Module]:
    return {"transformer": pipeline.transformer, "transformer_2": pipeline.transformer_2}


def test_networks_of_three_quarters_of_the_device_stay(pipeline: Any, networks: dict[str, nn.Module]) -> None:
    size = bytes_of(*networks.values())
    for total, stays in ((-(-4 * size // 3), True), (4 * size // 3 - 1, False)):
        assert ModelOffloader(networks, pipeline.text_encoder, torch.device("cpu"), total).stays is stays


def test_what_fits_is_never_moved(folder: Path) -> None:
    ours, offloader = sampler(A14B, folder, None)
    parts = [getattr(ours.source, name) for name in ("transformer", "transformer_2", "text_encoder")]
    before = places(*parts)
    ours.generate(PROMPTS, [1, 2])
    ours.fork().generate(PROMPTS[:1], [3])
    assert places(*parts[:2]) == before[: len(places(*parts[:2]))]
    assert offloader.present == {"transformer", "transformer_2"}
    # the text encoder has worked on its copy, if it was called, and is where it was
    assert places(*parts) == before


def test_a_part_that_leaves_comes_back_as_it_was(pipeline: Any, networks: dict[str, nn.Module]) -> None:
    offloader = ModelOffloader(networks, pipeline.text_encoder, torch.device("cpu"), 1)
    part = pipeline.transformer
    home, before = places(part), [weight.detach().clone() for weight in part.parameters()]
    offloader.to_device("transformer")
    assert not set(places(part)) & set(home), "it is a copy that computes"
    assert all(torch.equal(one, other) for one, other in zip(part.parameters(), before, strict=True))
    offloader.to_host("transformer")
    assert places(part) == home
    assert offloader.present == set(), "one at a time"


def test_the_text_encoder_leaves_whatever_was_raised(pipeline: Any, networks: dict[str, nn.Module]) -> None:
    offloader = ModelOffloader(networks, pipeline.text_encoder, torch.device("cpu"))
    offloader.to_host(TEXT)
    home = places(pipeline.text_encoder)

    def interrupted() -> None:
        with offloader.on_device(TEXT):
            assert TEXT in offloader.present
            assert places(pipeline.text_encoder) != home
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert TEXT not in offloader.present
    assert places(pipeline.text_encoder) == home


def test_a_batch_that_failed_leaves_nothing_behind(folder: Path) -> None:
    ours, offloader = sampler(A14B, folder, 1)
    expected = ours.generate(PROMPTS, [1, 2]).latents
    low = ours.networks["transformer_2"]

    def fail(*_: Any) -> None:
        raise RuntimeError("in the middle of it")

    hook = low.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle of it"):
        ours.generate(PROMPTS, [1, 2])
    hook.remove()
    assert offloader.present == {"transformer_2"}
    assert not [network for network in ours.networks.values() if network._forward_pre_hooks]
    assert torch.equal(ours.generate(PROMPTS, [1, 2]).latents, expected)


class Small(ModelOffloader):
    """On a device that holds so many bytes, whatever was estimated: what comes ends in the middle."""

    holds = 0

    def _copy_to_device(self, name: str) -> None:
        if sum(self._bytes(part) for part in {*self.present, name}) > self.holds:
            weights = self._weights[name]
            for weight in weights[: len(weights) // 2]:
                weight.data = weight.data.clone()
            raise torch.OutOfMemoryError("CUDA out of memory")
        super()._copy_to_device(name)


def test_where_an_estimate_was_wrong_the_others_leave_and_what_does_not_fit_at_all_is_said(
    pipeline: Any, networks: dict[str, nn.Module]
) -> None:
    offloader = Small(networks, pipeline.text_encoder, torch.device("cpu"))
    assert offloader.stays
    offloader.to_host(TEXT)
    home = places(pipeline.text_encoder)
    offloader.holds = max(bytes_of(*networks.values()), bytes_of(pipeline.text_encoder))
    with offloader.on_device(TEXT):
        assert offloader.present == {TEXT}
    offloader.to_device("transformer")
    offloader.to_device("transformer_2")
    assert offloader.present == {"transformer", "transformer_2"}
    offloader.holds = 1
    with pytest.raises(UserError, match=r"weights of text_encoder .* do not fit on cpu"):
        offloader.to_device(TEXT)
    assert offloader.present == set()
    assert places(pipeline.text_encoder) == home


def test_compiled_blocks_are_not_compiled_again_after_a_move(folder: Path) -> None:
    torch._dynamo.reset()
    made: list[int] = []

    def backend(graph: Any, _: Any) -> Any:
        made.append(1)
        return graph.forward

    tight, _ = sampler(A14B, folder, 1)
    expected = tight.generate(PROMPTS, [1, 2]).latents
    for network in tight.networks.values():
        compile_blocks(network, backend=backend)  # type: ignore[arg-type]  # torch takes a callable too
    for _ in range(3):
        assert torch.allclose(tight.generate(PROMPTS, [1, 2]).latents, expected, atol=1e-4)
        assert len(made) == 1, "one graph for the blocks of both experts"
    torch._dynamo.reset()


def test_blocks_that_wait_on_the_host_are_compiled_for_where_they_will_run(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda f, **given: options.append(given["options"]) or f)
    compile_blocks(pipeline.transformer)
    compile_blocks(pipeline.transformer_2, device=torch.device("cuda"))
    assert options == [None, {"emulate_precision_casts": True}]


def test_adapters_must_be_those_of_the_models_networks(folder: Path) -> None:
    experts, one = (
        ModelSettings(device="cpu", family="wan-experts", path=str(folder)),
        ModelSettings(device="cpu", family="wan", path=str(folder)),
    )
    with pytest.raises(UserError, match="takes an adapter for each"):
        Sampler.open(experts, A14B.settings, b"")
    with pytest.raises(UserError, match="has one network"):
        Sampler.open(one, A14B.settings, experts={"low": b""})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="parts are moved to a GPU")
@pytest.mark.parametrize("total", [None, 1])
def test_only_the_expert_in_use_lies_on_the_gpu(folder: Path, total: int | None) -> None:
    family = get_family("wan-experts")
    pipeline = family.load_pipeline(ModelSettings(family="wan-experts", path=str(folder), device="cuda"))
    networks = networks_of(family.experts, pipeline)
    offloader = ModelOffloader(networks, pipeline.text_encoder, torch.device("cuda"), total)
    texts = Texts(family, pipeline, A14B.settings.max_sequence_length, offloader)
    ours = Sampler(family, pipeline, A14B.settings, compiled=True, texts=texts, offloader=offloader)
    there: list[tuple[str, ...]] = []
    for network in ours.networks.values():
        network.register_forward_hook(
            lambda *_: there.append(
                tuple(name for name, one in networks.items() if one.proj_out.weight.is_cuda)
            )
        )
    first = ours.generate(PROMPTS, [1, 2])
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert torch.equal(ours.generate(PROMPTS, [1, 2]).latents, first.latents)
    wanted = {("transformer", "transformer_2")} if total is None else {("transformer",), ("transformer_2",)}
    assert set(there) == wanted
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs, "compiled again"
    assert not pipeline.text_encoder.shared.weight.is_cuda
    gc.collect()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="sums are computed on a GPU")
def test_an_adapter_is_played_by_weights_that_stay_on_the_host_while_the_gpu_measures_it(
    folder: Path,
) -> None:
    family, model = (
        get_family("wan-experts"),
        ModelSettings(device="cpu", family="wan-experts", path=str(folder), expert="low"),
    )
    here, there = (family.load_transformer(model).bfloat16() for _ in range(2))
    adapter = lora.attach(family.load_transformer(model), lora.LoraSpec(4, 8.0, family.lora_targets), seed=0)
    for parameter in adapter.parameters().values():
        parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    data = adapter.to_bytes("b")
    there.cuda()
    effect = lora.play(here, data, device=torch.device("cuda"))
    assert effect.error < 0.02
    lora.play(there, data)
    pairs = zip([*here.parameters(), *here.buffers()], [*there.parameters(), *there.buffers()], strict=True)
    for mine, theirs in pairs:
        assert not mine.is_cuda
        assert torch.equal(mine, theirs.cpu())
