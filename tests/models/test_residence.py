"""Parts take turns on a device without changing what they compute. The moving itself is tried on a GPU."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from data.errors import BadInput
from models.families import get_family
from models.families.base import networks_of
from models.residence import Residence
from models.sampling import Sampler
from models.settings import ModelSettings
from models.texts import Texts
from tests.models.families.tiny import CASES, Tiny

A14B = next(case for case in CASES if case.family == "wan-experts")
PROMPTS = ["a red ball falls down", "a blue square moves left"]
TEXT = Residence.TEXT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("a14b")
    A14B.save(path)
    return path


def sampler(case: Tiny, folder: Path, total: int | None) -> tuple[Sampler, Residence]:
    """A sampler as on a GPU of `total` bytes, on a CPU."""
    family = get_family(case.family)
    pipeline = family.load_pipeline(ModelSettings(case.family, str(folder)))
    residence = Residence(
        networks_of(family.experts, pipeline), pipeline.text_encoder, torch.device("cpu"), total
    )
    texts = Texts(family, pipeline, case.settings.max_sequence_length, residence)
    return Sampler(family, pipeline, case.settings, texts=texts, residence=residence), residence


def test_one_expert_at_a_time_makes_the_clips_of_both_at_once(folder: Path) -> None:
    free, boundless = sampler(A14B, folder, None)
    tight, narrow = sampler(A14B, folder, 1)
    assert boundless.stays
    assert not narrow.stays
    seen: list[set[str]] = []
    for network in tight.networks.values():
        network.register_forward_hook(lambda *_: seen.append(set(narrow.present)))
    for _ in range(2):  # the second batch begins with the first expert again
        mine, theirs = tight.generate(PROMPTS, [1, 2]), free.generate(PROMPTS, [1, 2])
        assert torch.equal(mine.latents, theirs.latents)
    assert {frozenset(one) for one in seen} == {frozenset({"transformer"}), frozenset({"transformer_2"})}
    assert {"transformer", "transformer_2"} <= boundless.present
    other = tight.fork()
    assert torch.equal(other.generate(PROMPTS, [1, 2]).latents, free.generate(PROMPTS, [1, 2]).latents)


def test_networks_of_half_the_device_stay(folder: Path) -> None:
    pipeline = get_family("wan-experts").load_pipeline(ModelSettings("wan-experts", str(folder)))
    networks = {"transformer": pipeline.transformer, "transformer_2": pipeline.transformer_2}
    size = sum(
        tensor.numel() * tensor.element_size()
        for network in networks.values()
        for tensor in (*network.parameters(), *network.buffers())
    )
    for total, stays in ((2 * size, True), (2 * size - 1, False)):
        assert Residence(networks, pipeline.text_encoder, torch.device("cpu"), total).stays is stays


def test_a_part_that_leaves_comes_back_as_it_was(folder: Path) -> None:
    pipeline = get_family("wan-experts").load_pipeline(ModelSettings("wan-experts", str(folder)))
    residence = Residence({"transformer": pipeline.transformer}, pipeline.text_encoder, torch.device("cpu"))
    weight = pipeline.transformer.proj_out.weight
    before = weight.detach().clone()
    residence.leave("transformer")
    assert "transformer" not in residence.present
    residence.bring("transformer")
    assert torch.equal(weight, before)
    with residence.at_work(TEXT):
        assert TEXT in residence.present
    assert TEXT not in residence.present


def test_adapters_must_be_those_of_the_models_networks(folder: Path) -> None:
    experts, one = ModelSettings("wan-experts", str(folder)), ModelSettings("wan", str(folder))
    with pytest.raises(BadInput, match="takes an adapter for each"):
        Sampler.open(experts, A14B.settings, b"")
    with pytest.raises(BadInput, match="has one network"):
        Sampler.open(one, A14B.settings, experts={"low": b""})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="parts are moved to a GPU")
@pytest.mark.parametrize("total", [None, 1])
def test_only_the_expert_in_use_lies_on_the_gpu(folder: Path, total: int | None) -> None:
    family = get_family("wan-experts")
    pipeline = family.load_pipeline(ModelSettings("wan-experts", str(folder), device="cuda"))
    networks = networks_of(family.experts, pipeline)
    residence = Residence(networks, pipeline.text_encoder, torch.device("cuda"), total)
    texts = Texts(family, pipeline, A14B.settings.max_sequence_length, residence)
    ours = Sampler(family, pipeline, A14B.settings, texts=texts, residence=residence)
    there: list[tuple[str, ...]] = []
    for network in ours.networks.values():
        network.register_forward_hook(
            lambda *_: there.append(
                tuple(name for name, one in networks.items() if one.proj_out.weight.is_cuda)
            )
        )
    first = ours.generate(PROMPTS, [1, 2])
    assert torch.equal(ours.generate(PROMPTS, [1, 2]).latents, first.latents)
    wanted = {("transformer", "transformer_2")} if total is None else {("transformer",), ("transformer_2",)}
    assert set(there) == wanted
    assert not pipeline.text_encoder.shared.weight.is_cuda
    gc.collect()
