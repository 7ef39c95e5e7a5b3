import threading

import numpy as np
import torch

from models.families.settings import ModelSettings, SampleSettings
from models.sampling.sampler import Generated, Sampler

RED, BLUE = "a red ball falls down", "a blue square moves left"


def test_a_clips_noise_does_not_depend_on_its_batch(sampler: Sampler) -> None:
    # guidance and batch shape may round differently, the noise may not: compare clips to within rounding
    alone = sampler.generate([RED], [5])
    among = sampler.generate([BLUE, RED, BLUE], [4, 5, 6])
    assert torch.allclose(alone.latents[0], among.latents[1], atol=1e-4)
    assert not torch.allclose(among.latents[0], among.latents[2], atol=0.1)


def test_the_same_batch_gives_the_same_bytes(sampler: Sampler) -> None:
    first, again = (sampler.generate([RED, BLUE], [1, 2]) for _ in range(2))
    assert torch.equal(first.latents, again.latents)
    assert np.array_equal(first.frames, again.frames)


def test_sampling_leaves_the_global_generator_alone(sampler: Sampler) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    sampler.generate([RED], [1])
    assert torch.equal(torch.get_rng_state(), before)


def test_embeddings_are_kept_once_a_prompt(sampler: Sampler) -> None:
    made = sampler.generate([BLUE, RED, RED, BLUE], [1, 2, 3, 4])
    assert made.embed_rows == [0, 1, 1, 0]
    assert made.embeds.shape == (2, 16, 32)
    assert made.latents.shape == (4, 16, 5, 4, 4)
    assert made.latents.dtype == made.embeds.dtype == torch.float32
    assert made.frames.shape == (4, 17, 32, 32, 3)


def test_clips_decoded_one_by_one_are_the_same_clips(
    model: ModelSettings, sample_settings: SampleSettings
) -> None:
    whole = Sampler.open(model, sample_settings).generate([RED, BLUE], [1, 2])
    single = Sampler.open(model, sample_settings.changed(decode_batch=1)).generate([RED, BLUE], [1, 2])
    assert torch.equal(whole.latents, single.latents)
    assert np.abs(whole.frames.astype(int) - single.frames.astype(int)).max() <= 1


def test_threads_may_sample_at_once_over_one_set_of_weights(
    model: ModelSettings, sample_settings: SampleSettings
) -> None:
    first = Sampler.open(model, sample_settings.changed(steps=6))
    forks = [first, first.fork(), first.fork()]
    alone = [first.generate([RED, BLUE], [i, i + 10]) for i in range(3)]
    together: list[Generated | None] = [None] * 3
    start = threading.Barrier(3)

    def work(i: int) -> None:
        start.wait()
        for _ in range(3):
            together[i] = forks[i].generate([RED, BLUE], [i, i + 10])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, theirs in zip(alone, together, strict=True):
        assert theirs is not None
        assert torch.equal(mine.latents, theirs.latents)
        assert np.array_equal(mine.frames, theirs.frames)


def test_a_fork_shares_weights_and_nothing_that_has_state(sampler: Sampler) -> None:
    fork = sampler.fork()
    for part in ("transformer", "text_encoder"):
        assert getattr(fork.pipeline, part) is getattr(sampler.pipeline, part)
    for part in ("scheduler", "tokenizer", "vae"):
        assert getattr(fork.pipeline, part) is not getattr(sampler.pipeline, part)
    mine = dict(sampler.pipeline.vae.named_parameters())
    assert all(value is mine[name] for name, value in fork.pipeline.vae.named_parameters())


def test_the_sampler_is_named_after_its_algorithm(sampler: Sampler) -> None:
    assert sampler.name == "FlowMatchEulerDiscreteScheduler"
