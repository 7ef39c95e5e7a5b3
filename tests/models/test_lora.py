import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from data.errors import UserError
from models import lora
from models.adapted_linear import AdaptedLinear, fused
from models.families.base import Family
from models.families.settings import ModelSettings, SampleSettings
from models.lora import Adapter, LoraSpec
from models.sampling.sampler import Sampler

SPEC = LoraSpec(rank=4, alpha=12.0, targets=("to_q", "to_v", "to_out.0", "ffn.net.2"))
PROMPTS = ["a red ball falls down", "a blue square moves left"]


def forward(family: Family, network: nn.Module) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    noisy = torch.randn(2, 16, 5, 4, 4, generator=draw)
    embeds = torch.randn(2, 16, 32, generator=draw)
    with torch.no_grad():
        return family.predict(network, noisy, torch.tensor([0.3, 0.8]), embeds)


def disturb(adapter: Adapter, size: float = 0.3) -> None:
    """Give an adapter values as if it had learned something."""
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapter.parameters().values():
            parameter.add_(size * torch.randn(parameter.shape, generator=draw))


@pytest.fixture
def learned(transformer: nn.Module) -> bytes:
    adapter = lora.attach(transformer, SPEC, seed=0)
    disturb(adapter)
    return adapter.to_bytes("base-1", {"objective": "sft"})


def test_adapter_at_init_equals_the_base_exactly(family: Family, transformer: nn.Module) -> None:
    before = forward(family, transformer)
    adapter = lora.attach(transformer, SPEC, seed=0)
    assert torch.equal(forward(family, transformer), before)
    disturb(adapter)
    assert not torch.equal(forward(family, transformer), before)


def test_start_values_depend_on_the_seed_and_on_nothing_else(
    make_transformer: Callable[[], nn.Module],
) -> None:
    made = []
    for seed, disturbance in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(disturbance)
        made.append(lora.attach(make_transformer(), SPEC, seed).to_bytes("b"))
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_only_the_adapter_learns_and_it_is_float32(family: Family, model: ModelSettings) -> None:
    network = family.load_transformer(model.changed(dtype="bfloat16"))
    adapter = lora.attach(network, SPEC, seed=0)
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    assert len(learning) == len(adapter.parameters()) == 2 * (2 * 3 * 2 + 2)
    assert all(".lora_" in name for name in learning)
    assert {p.dtype for p in adapter.parameters().values()} == {torch.float32}


def test_resumed_adapter_keeps_the_policy_it_started_from_as_reference(
    family: Family, make_transformer: Callable[[], nn.Module], learned: bytes
) -> None:
    network = make_transformer()
    base = forward(family, network)
    adapter = lora.resume(network, learned, "base-1")
    start = forward(family, network)
    assert not torch.equal(start, base)
    reference = lora.reference_of(network)
    disturb(adapter)
    assert not torch.equal(forward(family, network), start)
    assert torch.equal(forward(family, reference), start)
    assert torch.equal(forward(family, make_transformer()), base)
    assert all(p.requires_grad for p in adapter.parameters().values())
    frozen = [name for name, p in network.named_parameters() if ".reference." in name and p.requires_grad]
    assert frozen == []


def test_reference_of_a_new_adapter_is_the_base_for_good(family: Family, transformer: nn.Module) -> None:
    base = forward(family, transformer)
    adapter = lora.attach(transformer, SPEC, seed=0)
    reference = lora.reference_of(transformer)
    disturb(adapter)
    assert torch.equal(forward(family, reference), base)
    assert not torch.equal(forward(family, transformer), base)
    assert all(p.requires_grad for p in adapter.parameters().values())
    mine = {id(p) for p in transformer.parameters()}
    assert {id(p) for p in reference.parameters()} == mine, "not one weight is copied"


def test_saved_adapter_loads_in_plain_diffusers_with_the_same_frames(
    sample_settings: SampleSettings, model: ModelSettings, plain_pipeline: Any, learned: bytes, tmp_path: Path
) -> None:
    ours = Sampler.open(model, sample_settings)
    lora.resume(ours.pipeline.transformer, learned, keep_reference=False)
    expected = ours.generate(PROMPTS, [1, 2])
    base = Sampler.open(model, sample_settings).generate(PROMPTS, [1, 2])
    assert not np.array_equal(base.frames, expected.frames)

    (tmp_path / lora.FILE_NAME).write_bytes(learned)
    plain_pipeline.load_lora_weights(tmp_path)
    frames = plain_pipeline(
        PROMPTS, height=32, width=32, num_frames=17, num_inference_steps=3, guidance_scale=3.0,
        max_sequence_length=16, generator=[torch.Generator().manual_seed(s) for s in (1, 2)],
    ).frames  # fmt: skip
    assert np.array_equal((frames * 255).round().astype(np.uint8), expected.frames)


def test_alpha_survives_the_file_although_plain_saving_would_lose_it(
    plain_pipeline: Any, learned: bytes, tmp_path: Path
) -> None:
    (tmp_path / lora.FILE_NAME).write_bytes(learned)
    plain_pipeline.load_lora_weights(tmp_path)
    config = next(iter(plain_pipeline.transformer.peft_config.values()))
    assert (config.r, config.lora_alpha) == (4, 12.0)
    layer = plain_pipeline.transformer.blocks[0].attn1.to_q
    assert next(iter(layer.scaling.values())) == 3.0


def test_merged_equals_unmerged_within_tolerance(
    family: Family, make_transformer: Callable[[], nn.Module], learned: bytes
) -> None:
    unmerged, merged = make_transformer(), make_transformer()
    base = forward(family, unmerged)
    lora.resume(unmerged, learned, keep_reference=False)
    lora.play(merged, learned)
    moved = (forward(family, unmerged) - base).abs().max()
    assert (forward(family, merged) - forward(family, unmerged)).abs().max() < 1e-4 * moved
    assert not any(".lora_" in name for name, _ in merged.named_parameters())


def test_sampler_opens_with_an_adapter_merged(
    model: ModelSettings, sample_settings: SampleSettings, learned: bytes
) -> None:
    merged = Sampler.open(model, sample_settings, learned, "base-1").generate(PROMPTS, [1, 2])
    unmerged = Sampler.open(model, sample_settings)
    lora.resume(unmerged.pipeline.transformer, learned, keep_reference=False)
    other = unmerged.generate(PROMPTS, [1, 2])
    assert torch.allclose(merged.latents, other.latents, atol=1e-3)


def test_an_adapter_of_another_base_is_refused(transformer: nn.Module, learned: bytes) -> None:
    for load in (lora.resume, lora.play):
        with pytest.raises(UserError, match="made for base model base-1, this is base-2"):
            load(transformer, learned, "base-2")


def test_header_holds_rank_alpha_targets_and_base(learned: bytes, tmp_path: Path) -> None:
    path = tmp_path / lora.FILE_NAME
    path.write_bytes(learned)
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["vidloop"]) == {"base_id": "base-1", "objective": "sft"}
    file_back = lora.read(learned)
    assert file_back.spec == replace(SPEC, targets=tuple(sorted(SPEC.targets)))
    assert file_back.facts == {"objective": "sft"}
    assert file_back.base_id == "base-1"


def test_file_bytes_are_a_function_of_the_content() -> None:
    tensors = {"b.lora_A.weight": torch.ones(2, 3), "a.lora_A.weight": torch.zeros(2, 3)}
    facts = {"z": 1, "y": 2}
    spec = replace(SPEC, targets=("to_v", "to_q"))
    one = lora.write(lora.LoraFile(spec, tensors, "x", facts))
    other = lora.write(
        lora.LoraFile(
            replace(spec, targets=("to_q", "to_v")),
            dict(reversed(tensors.items())),
            "x",
            dict(reversed(facts.items())),
        )
    )
    assert one == other
    header = json.loads(one[8 : 8 + int.from_bytes(one[:8], "little")], object_pairs_hook=list)
    names = [key for key, _ in dict(header)["__metadata__"]]
    assert names == sorted(names), (
        "safetensors itself writes the metadata in an order that differs by process"
    )
    config = json.loads(dict(dict(header)["__metadata__"])["lora_adapter_metadata"])
    assert config["transformer.target_modules"] == ["to_q", "to_v"]


def test_what_is_no_adapter_is_refused(transformer: nn.Module) -> None:
    weights = safetensors.torch.save({"transformer.x.lora_A.weight": torch.ones(2, 2)})
    for data in (b"", b"not safetensors", weights):
        with pytest.raises(UserError, match="not a LoRA adapter"):
            lora.play(transformer, data)


def test_an_adapter_that_does_not_fit_is_refused(transformer: nn.Module, learned: bytes) -> None:
    file = lora.read(learned)
    wider = {k: torch.zeros(v.shape[0] + (".lora_B" in k), v.shape[1]) for k, v in file.tensors.items()}
    elsewhere = {f"elsewhere.{k}": v for k, v in file.tensors.items()}
    for tensors in (wider, elsewhere):
        data = lora.write(replace(file, tensors=tensors))
        with pytest.raises(UserError, match="the adapter"):
            lora.play(transformer, data)
    with pytest.raises(UserError, match="another architecture"):
        lora.resume(transformer, lora.write(replace(file, tensors=elsewhere)))


def test_targets_that_match_nothing_are_refused(transformer: nn.Module) -> None:
    with pytest.raises(UserError, match="no_such_layer"):
        lora.attach(transformer, replace(SPEC, targets=("no_such_layer",)), seed=0)


def test_an_adapter_of_one_expert_is_not_taken_for_the_other(
    family: Family, model: ModelSettings, make_transformer: Callable[[], nn.Module]
) -> None:
    adapter = lora.attach(make_transformer(), LoraSpec(2, 2.0, family.lora_targets), seed=0)
    data = adapter.to_bytes("base-1", {"expert": "high"})
    lora.play(make_transformer(), data, "base-1", "high")
    for use in (lora.play, lora.resume):
        with pytest.raises(UserError, match="made for the expert for high noise, this is the one for low"):
            use(make_transformer(), data, "base-1", expert="low")


def test_layers_that_a_model_in_bfloat16_keeps_in_float32_are_merged_and_the_others_are_not(
    family: Family, model: ModelSettings
) -> None:
    network: Any = family.load_transformer(model.changed(dtype="bfloat16"))
    kept = "condition_embedder.time_embedder.linear_1"
    assert network.get_submodule(kept).weight.dtype == torch.float32
    adapter = lora.attach(network, replace(SPEC, targets=("to_q", "time_embedder.linear_1")), seed=0)
    disturb(adapter)
    played: Any = family.load_transformer(model.changed(dtype="bfloat16"))
    effect = lora.play(played, adapter.to_bytes("b"))
    assert type(played.get_submodule(kept)) is nn.Linear
    assert isinstance(played.blocks[0].attn1.to_q, AdaptedLinear)
    assert effect.error < 0.02
    with fused(lora.layers_of(network)):
        trained = forward(family, network)
    assert torch.allclose(forward(family, played).float(), trained.float(), atol=0.02, rtol=0.02)
