"""What makes sampling fast changes what it should and nothing else: for every family, on a CPU.

Compiled blocks run here through the compiler's front end only ("aot_eager"); what Inductor makes of them is
compared on a GPU, by benchmarks/generation.py.
"""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from data.errors import UserError
from models import compile as compiling
from models.compile import repeated_blocks
from models.families import get_family
from models.families.base import networks_of
from models.families.settings import ModelSettings, SampleSettings, StepCacheSettings
from models.sampling import sampler as sampling
from models.sampling.offload import ModelOffloader
from models.sampling.sampler import Generated, Sampler
from models.sampling.texts import Texts
from tests.models.families.tiny import CASES, Tiny

PROMPTS = ["a red ball falls down", "a blue square moves left"]
SEEDS = [11, 12]
FAST = StepCacheSettings(interval=2, warmup=3)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Tiny:
    tiny: Tiny = request.param
    return tiny


@pytest.fixture(scope="module")
def pipeline(case: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp(case.name)
    case.save(folder)
    return get_family(case.family).load_pipeline(
        ModelSettings(device="cpu", family=case.family, path=str(folder), **case.model)
    )


@pytest.fixture(scope="module")
def settings(case: Tiny) -> SampleSettings:
    return case.settings.changed(steps=8)


def texts_of(case: Tiny, pipeline: Any, settings: SampleSettings) -> Texts:
    family = get_family(case.family)
    networks = networks_of(family.experts, pipeline)
    offloader = ModelOffloader(networks, pipeline.text_encoder, torch.device("cpu"))
    return Texts(family, pipeline, settings.max_sequence_length, offloader)


def test_prompts_encoded_once_give_the_same_clips(
    case: Tiny, pipeline: Any, settings: SampleSettings
) -> None:
    family = get_family(case.family)
    plain = Sampler(family, pipeline, settings)
    texts = texts_of(case, pipeline, settings)
    kept = Sampler(family, pipeline, settings, texts=texts)
    assert kept.pipeline.text_encoder is None
    first, second = plain.generate(PROMPTS, SEEDS), kept.generate(PROMPTS, SEEDS)
    assert torch.allclose(first.latents, second.latents, atol=1e-4)
    assert first.embed_rows == second.embed_rows
    # alone or in company, now or later: one prompt has one embedding
    alone = texts_of(case, pipeline, settings)(PROMPTS[1:])
    assert torch.equal(alone[0], texts(PROMPTS)[1])
    assert torch.equal(texts([PROMPTS[1], PROMPTS[0], PROMPTS[1]])[2], alone[0])


def test_a_prompt_is_encoded_once(case: Tiny, pipeline: Any, settings: SampleSettings) -> None:
    texts = texts_of(case, pipeline, settings)
    runs: list[int] = []
    hook = pipeline.text_encoder.register_forward_hook(lambda *_: runs.append(1))
    try:
        texts.prepare([*PROMPTS, PROMPTS[0]])
        texts(PROMPTS)
        texts.prepare(PROMPTS)
    finally:
        hook.remove()
    assert len(runs) == 2


def test_the_fast_mode_asks_the_network_as_often_as_it_says(
    case: Tiny, pipeline: Any, settings: SampleSettings
) -> None:
    family = get_family(case.family)
    exact, fast = (Sampler(family, pipeline, settings.changed(step_cache=mode)) for mode in (None, FAST))
    first, last = (Sampler(family, pipeline, settings.changed(step_cache=FAST)) for _ in range(2))
    passes: dict[tuple[str, str], list[int]] = {}
    hooks = []
    # below the cache's hooks: what really runs
    for name, sampler in (("exact", exact), ("fast", fast)):
        for part, network in sampler.networks.items():
            attention = next(
                inner for key, inner in repeated_blocks(network)[0].named_modules() if key == "attn1"
            )
            held = passes[name, part] = []
            hooks.append(attention.register_forward_hook(lambda *_, held=held: held.append(1)))
    clips = {"exact": exact.generate(PROMPTS, SEEDS), "fast": fast.generate(PROMPTS, SEEDS)}
    for hook in hooks:
        hook.remove()  # the pipeline is shared, and a compiled block would not be what it is without
    # guidance may take two passes a step
    calls = sum(len(passes["exact", part]) for part in exact.networks) // settings.steps
    for part in exact.networks:
        own = len(passes["exact", part]) // calls  # of two experts each has half of the steps
        assert own == settings.steps // len(exact.networks)
        assert len(passes["fast", part]) == calls * FAST.computed(own)
        assert FAST.computed(own) < own
    assert FAST.describe() in fast.name
    assert "fast" not in exact.name
    assert not torch.allclose(clips["exact"].latents, clips["fast"].latents, atol=1e-4)
    # the same clip again, from the same sampler and from others
    for sampler in (fast, first, last.fork()):
        assert torch.equal(sampler.generate(PROMPTS, SEEDS).latents, clips["fast"].latents)
    assert torch.equal(exact.generate(PROMPTS, SEEDS).latents, clips["exact"].latents)


def test_a_fast_clip_does_not_depend_on_its_company(
    case: Tiny, pipeline: Any, settings: SampleSettings
) -> None:
    sampler = Sampler(get_family(case.family), pipeline, settings.changed(step_cache=FAST))
    together = sampler.generate(PROMPTS, SEEDS)
    other = sampler.generate([PROMPTS[0], "a green ball"], [SEEDS[0], 99])
    assert torch.allclose(together.latents[0], other.latents[0], atol=1e-4)


@pytest.mark.slow
def test_fast_samplers_of_several_threads_do_not_meet(
    case: Tiny, pipeline: Any, settings: SampleSettings
) -> None:
    first = Sampler(get_family(case.family), pipeline, settings.changed(step_cache=FAST))
    forks = [first, first.fork()]
    alone = [sampler.generate(PROMPTS, [i, i + 5]) for i, sampler in enumerate(forks)]
    together: list[Generated | None] = [None] * len(forks)
    start = threading.Barrier(len(forks))

    def run(i: int) -> None:
        start.wait()
        together[i] = forks[i].generate(PROMPTS, [i, i + 5])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(forks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, theirs in zip(alone, together, strict=True):
        assert theirs is not None
        assert torch.equal(mine.latents, theirs.latents)


def test_a_run_that_fails_leaves_no_half_filled_cache(
    case: Tiny, pipeline: Any, settings: SampleSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = Sampler(get_family(case.family), pipeline, settings.changed(step_cache=FAST))
    before = sampler.generate(PROMPTS, SEEDS)
    step = sampler.pipeline.scheduler.step
    left = iter(range(4))

    def breaks(*args: Any, **kwargs: Any) -> Any:
        if next(left, None) is None:
            raise RuntimeError("the device is gone")
        return step(*args, **kwargs)

    with monkeypatch.context() as broken:
        broken.setattr(sampler.pipeline.scheduler, "step", breaks)
        with pytest.raises(RuntimeError, match="the device is gone"):
            sampler.generate(PROMPTS, SEEDS)
    assert torch.equal(sampler.generate(PROMPTS, SEEDS).latents, before.latents)


@pytest.mark.slow  # tracing takes a minute on a busy core
def test_blocks_share_a_compiled_graph_without_breaks(
    case: Tiny, pipeline: Any, settings: SampleSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    monkeypatch.setattr(sampling, "compile_blocks", partial(compiling.compile_blocks, backend="aot_eager"))
    family = get_family(case.family)
    eager = Sampler(family, pipeline, settings).generate(PROMPTS, SEEDS)
    counters.clear()
    compiled = Sampler(family, pipeline, settings, compiled=True)
    assert len(repeated_blocks(compiled.pipeline.transformer)) > 1
    made = compiled.generate(PROMPTS, SEEDS)
    assert torch.allclose(made.latents, eager.latents, atol=1e-5)
    assert np.abs(made.frames.astype(int) - eager.frames.astype(int)).max() <= 1
    # the fork and the fast mode run the same graph; the hooks of the fast mode break none
    compiled.fork().generate(PROMPTS, SEEDS)
    fast = Sampler(family, pipeline, settings.changed(step_cache=FAST), compiled=True).generate(
        PROMPTS, SEEDS
    )
    plain = Sampler(family, pipeline, settings.changed(step_cache=FAST)).generate(PROMPTS, SEEDS)
    assert torch.allclose(fast.latents, plain.latents, atol=1e-5)
    # CogVideoX's first block gets slices of one tensor and the others whole ones: a graph for each layout
    assert counters["stats"]["unique_graphs"] == (2 if case.family == "cogvideox" else 1)
    assert not counters["graph_break"]


@pytest.mark.slow  # tracing takes a minute on a busy core
def test_graphs_do_not_grow_with_the_number_of_blocks() -> None:
    from diffusers import CogVideoXTransformer3DModel
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    network = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=8,
        text_embed_dim=32, num_layers=5, sample_width=4, sample_height=6, max_text_seq_length=16,
    ).eval()  # fmt: skip
    assert compiling.compile_blocks(network, backend="aot_eager") == 5
    with torch.no_grad():
        network(torch.randn(2, 5, 4, 6, 4), torch.randn(2, 16, 32), torch.tensor([5, 5]))
    assert counters["stats"]["unique_graphs"] == 2


def test_a_network_without_repeated_blocks_is_refused() -> None:
    class Strange(torch.nn.Module):
        _repeated_blocks = ()
        _no_split_modules = ("Linear",)

        def __init__(self) -> None:
            super().__init__()
            self.only = torch.nn.Linear(1, 1)

    with pytest.raises(UserError, match=r"set model\.compile to false"):
        compiling.compile_blocks(Strange())


@pytest.mark.parametrize("steps", [1, 4, 5, 6, 7, 50])
@pytest.mark.parametrize(
    "fast", [FAST, StepCacheSettings(interval=3, warmup=2), StepCacheSettings(interval=5, warmup=4)]
)
def test_asked_counts_the_steps_of_the_schedule(fast: StepCacheSettings, steps: int) -> None:
    # the rule of diffusers' hook, step by step
    ran = [n < fast.warmup or (n - fast.warmup - 1) % fast.interval == 0 for n in range(steps)]
    assert fast.computed(steps) == sum(ran)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"interval": 1}, r"interval\n.*greater than or equal to 2"),
        ({"warmup": 1}, r"warmup\n.*greater than or equal to 2"),
        ({"order": 4}, r"order\n.*less than or equal to 3"),
    ],
)
def test_wrong_fast_settings_name_their_key(given: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StepCacheSettings(**given)
