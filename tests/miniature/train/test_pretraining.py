"""The commands that make the miniature's weights, on a few steps: the losses fall and the files load."""

import json
import subprocess
import sys

import pytest
import torch
from diffusers import WanPipeline

from miniature.train.architecture import (
    MAX_WORDS,
    build_text_encoder,
    build_transformer,
    build_vae,
)
from miniature.train.denoiser import Backward, Denoiser, DenoiserSettings, tokenize, train_denoiser
from miniature.train.tokenizer import build_tokenizer
from miniature.train.vae import VaeSettings, decode, encode, reconstruction_loss, to_unit, train_vae
from miniature.world.catalog import TEMPLATES, vocabulary
from miniature.world.corpus import processes, sample_corpus
from miniature.world.prompts import prompt_set
from miniature.world.render import render


def captions_of(scenes):
    return [scene.caption for scene in scenes]


@pytest.fixture(scope="module")
def corpus():
    return sample_corpus(24, 0.5, seed=3)


@pytest.fixture(scope="module")
def clips(corpus):
    return render(corpus[:8], 32, torch.device("cpu"))


def test_every_prompt_is_known_to_the_tokenizer():
    tokenizer = build_tokenizer(vocabulary(), "</s>", MAX_WORDS)
    for split in ("train", "dev", "heldout", "unseen"):
        for prompt in prompt_set(split):
            ids = tokenizer(prompt.text).input_ids
            assert tokenizer.unk_token_id not in ids, prompt.text
            assert len(ids) <= MAX_WORDS, prompt.text
            assert ids[-1] == tokenizer.eos_token_id


def test_a_corpus_depends_on_its_seed_and_not_on_the_workers():
    alone = sample_corpus(6, 0.5, seed=1, block=3)
    with processes(2) as pool:
        together = sample_corpus(6, 0.5, seed=1, pool=pool, block=3)
    assert captions_of(alone) == captions_of(together)
    assert torch.equal(
        render(alone, 32, torch.device("cpu")),
        render(together, 32, torch.device("cpu")),
    )
    assert captions_of(sample_corpus(6, 0.5, seed=2, block=3)) != captions_of(alone)


def test_the_share_of_broken_clips_is_as_asked_for_each_template():
    shares = dict.fromkeys(TEMPLATES, 0.0)
    chosen = sorted(TEMPLATES)[0]
    drawn = sample_corpus(600, shares | {chosen: 1.0}, seed=0)
    for scene in drawn:
        assert (scene.violation is not None) == (scene.template == chosen)


def test_text_is_encoded_as_the_pipeline_encodes_it():
    tokenizer = build_tokenizer(vocabulary(), "</s>", MAX_WORDS)
    torch.manual_seed(0)
    text_encoder = build_text_encoder(tokenizer).eval()
    denoiser = Denoiser(build_transformer(width=64, layers=1), text_encoder)
    captions = [prompt_set("dev")[0].text, ""]
    tokens, mask = tokenize(tokenizer, captions)
    pipe = WanPipeline(tokenizer=tokenizer, text_encoder=text_encoder, vae=build_vae(), scheduler=None)
    with torch.no_grad():
        ours = denoiser.encode_text(tokens, mask)
        theirs, _ = pipe.encode_prompt(
            captions, do_classifier_free_guidance=False, max_sequence_length=MAX_WORDS
        )
    assert torch.equal(ours, theirs)


def test_some_steps_of_the_vae_lower_its_loss_and_normalise_its_latents(clips):
    settings = VaeSettings(steps=12, batch_size=4, warmup=2, seconds=600, compile=False)
    torch.manual_seed(0)
    fresh = build_vae().eval()
    with torch.no_grad():
        batch = to_unit(clips)
        before = reconstruction_loss(
            fresh.decode(fresh.encode(batch).latent_dist.mean).sample, batch, settings
        )
    vae = train_vae(clips, settings, seed=0, say=lambda _: None)
    with torch.no_grad():
        after = reconstruction_loss(to_unit(decode(vae, encode(vae, clips))), batch, settings)
    assert after < 0.8 * before
    latents = encode(vae, clips)
    assert latents.shape == (8, 16, 9, 4, 4)
    assert latents.mean().abs() < 0.05
    assert (latents.std((0, 2, 3, 4)) - 1).abs().max() < 0.05


def test_some_steps_of_the_denoiser_lower_its_loss(corpus):
    tokenizer = build_tokenizer(vocabulary(), "</s>", MAX_WORDS)
    torch.manual_seed(0)
    latents = torch.randn(24, 16, 9, 8, 8) * 0.1 + 1.0
    model = Denoiser(build_transformer(width=64, layers=1), build_text_encoder(tokenizer))
    said: list[str] = []
    settings = DenoiserSettings(steps=40, batch_size=8, warmup=5, compile=False, seconds=600)
    trained = train_denoiser(
        model, tokenizer, latents, captions_of(corpus), settings, seed=0, say=said.append
    )
    tokens, mask = tokenize(tokenizer, captions_of(corpus))
    torch.manual_seed(5)
    noise = torch.randn_like(latents)
    with torch.no_grad():
        velocity = trained(0.5 * latents + 0.5 * noise, torch.full((24,), 0.5), tokens, mask)
        error = (velocity - (noise - latents)).square().mean()
    assert error < 0.9 * (noise - latents).square().mean()


@pytest.mark.slow
def test_the_command_writes_a_pipeline_and_its_card(tmp_path):
    out = tmp_path / "wan"
    command = [
        sys.executable,
        "-m",
        "miniature.train.pretrain",
        "--out",
        str(out),
        "--device",
        "cpu",
        "--workers",
        "1",
    ]
    command += [
        "--scenes",
        "48",
        "--vae-scenes",
        "48",
        "--vae-steps",
        "2",
        "--steps",
        "2",
        "--batch-size",
        "4",
    ]
    command += ["--vae-batch-size", "4", "--no-compile", "--measure", "60"]
    subprocess.run(command, check=True)
    pipe = WanPipeline.from_pretrained(out)
    assert pipe.vae.config.latents_std[0] > 0
    card = json.loads((out / "card.json").read_text())
    assert "miniature.train.pretrain" in card["command"]
    assert 0 <= card["measured"]["held-out prompts, oracle success"]["all"] <= 1


def test_the_flat_gradient_is_the_plain_one_and_clipped_alike():
    torch.manual_seed(0)
    network, x = (
        torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)),
        torch.randn(4, 5),
    )
    parameters = list(network.parameters())
    plain = torch.autograd.grad(network(x).square().sum(), parameters)
    backward = Backward(lambda: network(x).square().sum(), parameters, record=False)
    for _ in range(2):  # the second call starts from nothing, not from the first one's gradient
        backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(parameters, plain, strict=True))
    backward.clip(0.1)
    norm = torch.cat([g.flatten() for g in plain]).norm()
    assert norm > 0.1
    torch.testing.assert_close(backward.gradient, torch.cat([g.flatten() for g in plain]) * 0.1 / norm)
