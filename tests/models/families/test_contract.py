"""What every family owes, on tiny random models of the real classes, in float32 on a CPU.

All three pipelines put both branches of guidance into one batch, and so do we: the loop is the pipeline's own.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data.errors import ModelError, UserError
from models import lora
from models.adapted_linear import fused
from models.families import get_family
from models.families.base import Family
from models.families.check_fit import check_fit
from models.families.settings import ModelSettings, SampleSettings
from models.lora import LoraSpec
from models.sampling.sampler import Sampler
from models.training.blocks import BlockRunner
from models.training.objectives import get_objective, names
from models.training.settings import TrainSettings
from models.training.train_data import TrainData
from models.training.trainer import TrainJob, train
from tests.models.conftest import prediction_and_target
from tests.models.families.every_family import case, family, folder, model, network, plain
from tests.models.families.tiny import Tiny

__all__ = ["case", "family", "folder", "model", "network", "plain"]
PROMPTS = ["a red ball falls down", "a blue square moves left"]
SEEDS = [11, 12]


def run_plain(case: Tiny, pipeline: Any, settings: SampleSettings, output_type: str, **more: Any) -> Any:
    return pipeline(
        PROMPTS,
        negative_prompt=[settings.negative_prompt] * len(PROMPTS),
        height=settings.height,
        width=settings.width,
        num_frames=settings.frames,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        max_sequence_length=settings.max_sequence_length,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type=output_type,
        **case.plain,
        **more,
    ).frames


def as_bytes(frames: Any) -> Any:
    return (frames * 255).round().astype(np.uint8)


def one_clip(case: Tiny, family: Family, model: ModelSettings) -> tuple[Tensor, Tensor]:
    """x0 [1, C, T, H, W] and its embedding [1, L, D], as a round would store them."""
    made = Sampler.open(model, case.settings).generate(PROMPTS[:1], SEEDS[:1])
    return made.latents, made.embeds


def errors(case: Tiny, family: Family, network: nn.Module, x0: Tensor, embeds: Tensor, seed: int) -> Tensor:
    """Mean squared errors at eight of the noise levels that the network is for, [8]."""
    draw = torch.Generator().manual_seed(seed)
    low, high = case.levels
    sigma = low + (high - low) * torch.linspace(0.1, 0.95, 8)
    noise = torch.randn(8, *x0.shape[1:], generator=draw)
    with torch.no_grad():
        prediction, target = prediction_and_target(
            family, network, x0.expand(8, -1, -1, -1, -1), embeds.expand(8, -1, -1), sigma, noise
        )
    return (prediction - target).pow(2).flatten(1).mean(1)


def tuned(case: Tiny, model: ModelSettings, **fields: Any) -> TrainSettings:
    """Settings of a training run of the case's network."""
    return TrainSettings(expert=model.expert, sigma_range=case.levels, probe=0, **fields)


def learned_adapter(family: Family, network: nn.Module) -> bytes:
    """An adapter with values as if it had learned something; alpha is three times its rank."""
    adapter = lora.attach(network, LoraSpec(4, 12.0, family.lora_targets), seed=0)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapter.parameters().values():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    return adapter.to_bytes("base-1")


@pytest.mark.parametrize("guidance", [3.0, 1.0])
def test_sampling_equals_the_plain_pipeline_bit_for_bit(
    case: Tiny, model: ModelSettings, plain: Any, guidance: float
) -> None:
    settings = case.settings.changed(guidance=guidance, negative_prompt="a square")
    kept: dict[str, Tensor] = {}

    def keep(_: Any, step: int, timestep: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
        kept["latents"] = state["latents"]
        return {}

    frames = run_plain(
        case, plain, settings, "np", callback_on_step_end=keep, callback_on_step_end_tensor_inputs=["latents"]
    )
    ours = Sampler.open(model, settings).generate(PROMPTS, SEEDS)
    assert torch.equal(ours.latents, case.ours(kept["latents"]))
    assert np.array_equal(ours.frames, as_bytes(frames))
    assert ours.frames.shape == (2, settings.frames, settings.height, settings.width, 3)
    assert ours.frames.std() > 1
    assert not np.array_equal(ours.frames[0], ours.frames[1])


def test_latent_normalisation_is_the_pipelines_own(case: Tiny, plain: Any, family: Family) -> None:
    size = case.settings
    video = torch.rand(1, 3, size.frames, size.height, size.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = plain.vae.encode(video * 2 - 1).latent_dist.mode()
        through = plain.vae.decode(z, **case.decode).sample
        twice = plain.vae.decode(case.normalise(plain.vae, z), **case.decode).sample
    pixels = torch.from_numpy(family.decode(plain, case.normalise(plain.vae, z))).permute(0, 4, 1, 2, 3)
    expected = ((through * 0.5 + 0.5).clamp(0, 1) * 255).round()
    assert (pixels - expected).abs().max() <= 1
    assert ((twice * 0.5 + 0.5).clamp(0, 1) * 255 - expected).abs().max() > 3, "or the test could not fail"


@pytest.mark.parametrize("step", [0, 2])
def test_training_asks_the_network_what_sampling_asks(
    case: Tiny, model: ModelSettings, plain: Any, family: Family, network: nn.Module, step: int
) -> None:
    """Axis order, timestep, positions, frame rate, text and its mask: all in one comparison of predictions."""
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def keep(_: Any, args: Any, inputs: dict[str, Any], output: Any) -> None:
        seen.append((inputs["hidden_states"], inputs["timestep"], output[0]))

    getattr(plain, case.part).register_forward_hook(keep, with_kwargs=True)
    run_plain(case, plain, case.settings.changed(guidance=1.0), "latent")
    hidden, timestep, output = seen[step]
    embeds = Sampler.open(model, case.settings).encode(PROMPTS)
    with torch.no_grad():
        sigma = case.sigma(plain.scheduler, timestep)
        mine = family.predict(network, case.ours(hidden), sigma, embeds)
    assert torch.allclose(mine, case.ours(output), rtol=0, atol=1e-6)
    other = embeds.flip(0)
    with torch.no_grad():
        assert (family.predict(network, case.ours(hidden), sigma, other) - mine).abs().max() > 1e-4
        assert (family.predict(network, case.ours(hidden), sigma * 0.5, embeds) - mine).abs().max() > 1e-4


def test_path_and_target_are_the_schedulers(case: Tiny, plain: Any, family: Family) -> None:
    draw = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(4, 4, 3, 4, 4, generator=draw) for _ in range(2))
    plain.scheduler.set_timesteps(8, **case.timesteps)
    timestep = plain.scheduler.timesteps[[0, 3, 5, 7]]
    sigma = case.sigma(plain.scheduler, timestep).float()
    noisy, target = case.path(plain.scheduler, x0, noise, timestep)
    kind = family.parameterization
    assert torch.allclose(kind.noisy(x0, noise, sigma), noisy, atol=1e-5)
    assert torch.allclose(kind.target(x0, noise, sigma), target, atol=1e-5)


def test_adapter_at_init_equals_the_base_exactly_and_reaches_every_target(
    case: Tiny, model: ModelSettings, family: Family, network: nn.Module
) -> None:
    x0, embeds = one_clip(case, family, model)
    before = errors(case, family, network, x0, embeds, 0)
    adapter = lora.attach(network, LoraSpec(4, 4.0, family.lora_targets), seed=0)
    assert torch.equal(errors(case, family, network, x0, embeds, 0), before)
    for target in family.lora_targets:
        assert any(f".{target}.lora_A" in name for name in adapter.parameters()), target


def test_saved_adapter_loads_in_plain_diffusers_with_equal_frames_and_its_alpha(
    case: Tiny, model: ModelSettings, family: Family, network: nn.Module, plain: Any, tmp_path: Path
) -> None:
    data = learned_adapter(family, network)
    ours = Sampler.open(model, case.settings)
    base = ours.generate(PROMPTS, SEEDS)
    lora.resume(getattr(ours.pipeline, case.part), data, keep_reference=False)
    expected = ours.generate(PROMPTS, SEEDS)
    assert not np.array_equal(base.frames, expected.frames)
    (tmp_path / lora.FILE_NAME).write_bytes(data)
    second = {"load_into_transformer_2": True} if case.part == "transformer_2" else {}
    plain.load_lora_weights(tmp_path, **second)
    config = next(iter(getattr(plain, case.part).peft_config.values()))
    assert (config.r, config.lora_alpha) == (4, 12.0)
    assert np.array_equal(as_bytes(run_plain(case, plain, case.settings, "np")), expected.frames)


def test_merged_equals_unmerged_within_tolerance(
    case: Tiny, model: ModelSettings, family: Family, network: nn.Module
) -> None:
    x0, embeds = one_clip(case, family, model)
    base = errors(case, family, network, x0, embeds, 0)
    data = learned_adapter(family, network)
    merged = family.load_transformer(model)
    lora.play(merged, data)
    unmerged = errors(case, family, network, x0, embeds, 0)
    moved = (unmerged - base).abs().max()
    assert moved > 1e-4
    assert (errors(case, family, merged, x0, embeds, 0) - unmerged).abs().max() < 1e-3 * moved


@pytest.mark.parametrize(
    "lr", [pytest.param(5e-6, marks=pytest.mark.slow), 2e-5, pytest.param(2e-4, marks=pytest.mark.slow)]
)
def test_in_bfloat16_what_is_trained_is_sampled_and_is_what_diffusers_loads(
    case: Tiny, model: ModelSettings, family: Family, tmp_path: Path, lr: float
) -> None:
    low = model.changed(dtype="bfloat16")
    network: Any = family.load_transformer(low)
    x0, embeds = one_clip(case, family, model)
    one = torch.zeros(1, dtype=torch.int64)
    data = TrainData(
        clip_ids=("c",), prompt_ids=("p",), latents=x0, embeds=embeds, prompt_index=one, examples=one,
        weights=torch.ones(1), accepted=torch.ones(1, dtype=torch.bool), pairs=torch.zeros(0, 2, dtype=torch.int64),
    )  # fmt: skip
    settings = tuned(
        case, model, objective="sft", steps=20, batch_size=2, rank=16, alpha=16.0, lr=lr, warmup=1
    )
    adapter = train(network, family, TrainJob(data, settings, "base-1")).adapter

    played: Any = family.load_transformer(low)
    effect = lora.play(played, adapter, "base-1")
    assert len(effect.shares) > 4
    assert effect.error < 0.02, (effect.error, effect.uncertainty)

    draw = torch.Generator().manual_seed(3)
    count = 32
    sigma = case.levels[0] + (case.levels[1] - case.levels[0]) * torch.rand(count, generator=draw)
    noise = torch.randn(count, *x0.shape[1:], generator=draw)
    inputs = (noise.bfloat16().float(), sigma, embeds.bfloat16().float().expand(count, -1, -1))

    def asked(net: Any) -> Tensor:
        given = tuple(part.to(net.dtype) if part.ndim > 1 else part for part in inputs)
        with torch.no_grad():
            return family.predict(net, *given).float()

    with fused(lora.layers_of(network)):
        assert torch.equal(asked(network), asked(played)), "one policy, to the last bit"

    plain = case.pipeline.from_pretrained(low.path, torch_dtype=torch.bfloat16)
    exact = getattr(plain, case.part)
    exact.to(torch.float32)
    for name, fact in family.facts(low).items():
        setattr(exact, name, fact)
    base = asked(exact)
    (tmp_path / lora.FILE_NAME).write_bytes(adapter)
    plain.load_lora_weights(
        tmp_path, **({"load_into_transformer_2": True} if case.part == "transformer_2" else {})
    )
    wanted = (asked(exact) - base).flatten(1)
    got = (asked(played) - asked(family.load_transformer(low))).flatten(1)
    share = float((got * wanted).sum() / wanted.square().sum())
    # A prediction is rounded by more than a young adapter adds: what that scatters, clip by clip, is allowed.
    scatter = float(((got - share * wanted) * wanted).sum(1).norm() / wanted.square().sum())
    assert abs(share - 1) < 0.02 + 4 * scatter, (share, scatter)
    assert lr < 1e-4 or scatter < 0.02


def test_training_reduces_the_error_on_one_clip(
    case: Tiny, model: ModelSettings, family: Family, network: nn.Module
) -> None:
    x0, embeds = one_clip(case, family, model)
    before = errors(case, family, network, x0, embeds, seed=5)
    one = torch.zeros(1, dtype=torch.int64)
    data = TrainData(
        clip_ids=("c",), prompt_ids=("p",), latents=x0, embeds=embeds, prompt_index=one, examples=one,
        weights=torch.ones(1), accepted=torch.ones(1, dtype=torch.bool), pairs=torch.zeros(0, 2, dtype=torch.int64),
    )  # fmt: skip
    settings = tuned(
        case, model, objective="sft", steps=40, batch_size=4, rank=8, alpha=8.0, lr=1e-2, warmup=2
    )
    result = train(network, family, TrainJob(data, settings, "base-1"))
    assert len(result.curve) == 40
    after = errors(case, family, network, x0, embeds, seed=5)  # at noise that no step has drawn
    assert (after < before).all(), (before, after)
    assert after.mean() < 0.95 * before.mean()


def test_recomputing_blocks_changes_no_byte_of_what_is_learned(
    case: Tiny, model: ModelSettings, family: Family
) -> None:
    x0, embeds = one_clip(case, family, model)
    one = torch.zeros(1, dtype=torch.int64)
    data = TrainData(
        clip_ids=("c",), prompt_ids=("p",), latents=x0, embeds=embeds, prompt_index=one, examples=one,
        weights=torch.ones(1), accepted=torch.ones(1, dtype=torch.bool), pairs=torch.zeros(0, 2, dtype=torch.int64),
    )  # fmt: skip
    settings = tuned(
        case, model, objective="sft", steps=3, batch_size=2, rank=4, alpha=4.0, lr=1e-2, warmup=1
    )
    ways: tuple[bool | Literal["attention"], ...] = (False, "attention", True)
    learned = [
        train(
            family.load_transformer(model),
            family,
            TrainJob(data, settings.changed(gradient_checkpointing=way), "base-1"),
        ).adapter
        for way in ways
    ]
    assert learned[0] == learned[1] == learned[2]


@pytest.mark.slow
def test_blocks_compile_without_a_graph_break(
    case: Tiny, model: ModelSettings, family: Family, network: nn.Module
) -> None:
    x0, embeds = one_clip(case, family, model)
    sigma, noise = torch.tensor([0.4]), torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    adapter = lora.attach(network, LoraSpec(4, 4.0, family.lora_targets), seed=0)

    def gradients() -> tuple[Tensor, ...]:
        prediction, target = prediction_and_target(family, network, x0, embeds, sigma, noise)
        return torch.autograd.grad((prediction - target).square().mean(), list(adapter.parameters().values()))

    plain = gradients()
    # Dynamo and the partition of inductor, without minutes of its code generation; a graph break would raise.
    runner = BlockRunner(network, compile=True, backend="aot_eager_decomp_partition")
    for everything in (runner.count, 0):
        runner.keep(everything)
        for mine, theirs in zip(gradients(), plain, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", [name for name in names() if get_objective(name).pairwise])
def test_a_pair_starts_with_no_gap_to_the_reference(
    case: Tiny, model: ModelSettings, family: Family, network: nn.Module, objective: str
) -> None:
    made = Sampler.open(model, case.settings).generate(PROMPTS[:1] * 2, SEEDS)
    index = torch.arange(2)
    data = TrainData(
        clip_ids=("w", "l"), prompt_ids=("p",), latents=made.latents, embeds=made.embeds,
        prompt_index=torch.zeros(2, dtype=torch.int64), examples=index, weights=torch.ones(2),
        accepted=index == 0, pairs=index.view(1, 2),
    )  # fmt: skip
    settings = tuned(
        case, model, objective=objective, beta=2000.0, steps=8, batch_size=4, rank=4, alpha=4.0, lr=1e-2,
        warmup=1,
    )  # fmt: skip
    curve = train(network, family, TrainJob(data, settings, "base-1")).curve
    assert curve[0]["gap/max"] == 0.0
    assert curve[-1]["rewards/margins"] > 0


def test_training_loads_no_weights_of_vae_and_text_encoder(
    case: Tiny, model: ModelSettings, folder: Path, tmp_path: Path, family: Family
) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(folder, alone)
    for part in ("vae", "text_encoder"):
        for weights in (alone / part).glob("*.safetensors"):
            weights.unlink()
    loaded: Any = family.load_transformer(model.changed(path=str(alone), dtype="bfloat16"))
    assert not loaded.training
    assert loaded.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in loaded.parameters())
    with pytest.raises(UserError, match="text_encoder holds no weights"):
        family.load_pipeline(model.changed(path=str(alone)))


def test_bfloat16_weights_sample_and_train(case: Tiny, model: ModelSettings, family: Family) -> None:
    half = model.changed(dtype="bfloat16")
    x0, embeds = one_clip(case, family, half)
    assert x0.dtype == embeds.dtype == torch.float32
    assert bool(errors(case, family, family.load_transformer(half), x0, embeds, 0).isfinite().all())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"frames": 4}, "frames is 4"),
        ({"height": 40}, "height is 40"),
    ],
)
def test_geometry_off_the_grid_is_refused_not_rounded(
    case: Tiny, model: ModelSettings, family: Family, plain: Any, change: dict[str, int], told: str
) -> None:
    off = case.settings.changed(**change)
    embeds = family.encode_prompts(plain, PROMPTS, case.settings.max_sequence_length)
    with pytest.raises(UserError, match=told) as late:
        family.sample_latents(plain, embeds, embeds, SEEDS, off)
    # and by the configurations alone, before any weights are read
    with pytest.raises(UserError) as early:
        check_fit(model, off)
    assert str(early.value) == str(late.value)
    check_fit(model, case.settings)
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        family.sample_latents(plain, embeds, embeds, [1], case.settings)


def test_the_grid_of_frames_is_what_the_vae_gives_back(
    case: Tiny, model: ModelSettings, plain: Any, family: Family
) -> None:
    for frames in (1, 1 + case.stride, 1 + 2 * case.stride):
        settings = case.settings.changed(frames=frames, steps=2, guidance=1.0)
        assert Sampler.open(model, settings).generate(PROMPTS[:1], [1]).frames.shape[1] == frames
    between = case.settings.changed(frames=1 + case.stride // 2)
    with pytest.raises(UserError, match=f"1 \\+ a multiple of {case.stride}"):
        Sampler.open(model, between).generate(PROMPTS[:1], [1])


def test_threads_may_sample_at_once_over_one_set_of_weights(case: Tiny, model: ModelSettings) -> None:
    first = Sampler.open(model, case.settings)
    forks = [first, first.fork()]
    alone = [first.generate(PROMPTS, [i, i + 10]) for i in range(2)]
    together: dict[int, Any] = {}
    start = threading.Barrier(2)

    def work(i: int) -> None:
        start.wait()
        together[i] = forks[i].generate(PROMPTS, [i, i + 10])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, made in enumerate(alone):
        assert torch.equal(made.latents, together[i].latents)
        assert np.array_equal(made.frames, together[i].frames)


def test_missing_parts_are_named(case: Tiny, model: ModelSettings, folder: Path, tmp_path: Path) -> None:
    family = get_family(case.family)
    loads: list[tuple[str, Callable[[ModelSettings], Any]]] = [
        ("text_encoder", family.load_pipeline),
        (case.part, family.load_transformer),
    ]
    for part, load in loads:
        broken = tmp_path / part
        shutil.copytree(folder, broken, ignore=shutil.ignore_patterns(part))
        with pytest.raises(UserError, match=f"has no {part}"):
            load(model.changed(path=str(broken)))


@pytest.mark.parametrize("fill", [0.0, 0.5])
def test_a_text_encoder_to_which_all_words_are_one_is_refused(
    family: Family, model: ModelSettings, folder: Path, tmp_path: Path, fill: float
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    (file,) = (tmp_path / "model/text_encoder").glob("*.safetensors")
    weights = load_file(file)
    embeddings = {name for name in weights if name == "shared.weight" or "embed_tokens" in name}
    assert embeddings
    for name in embeddings:
        weights[name] = torch.full_like(weights[name], fill)
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"token embedding is constant.*install 5\.2 or later"):
        family.load_pipeline(model.changed(path=str(tmp_path / "model")))
    family.load_pipeline(model)
