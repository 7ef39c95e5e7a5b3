"""Clips from outside teach: their latents are the VAE's, made once, and training reads them as a sampler's."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load

from data.errors import ConfigError
from data.outside import ConversionSettings, read_table
from data.queries import run_query
from data.store import Store
from models.families.settings import ModelSettings, SampleSettings
from models.sampling.sampler import Sampler
from tasks import imports
from tasks.units import Runner
from tests.odd_videos import moving, video
from tests.tiny_round import ROOT, TRAIN, Tiny, begun, cached, play

OUTSIDE = "clips.imported=outside"


def imported(store: Path, folder: Path, size: int = 32, frames: int = 9) -> imports.ImportedSet:
    """Three clips of each prompt, of which no two are equally sharp."""
    with open(folder / "clips.csv", "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "prompt", "category"])
        for place, (text, category) in enumerate(TRAIN):
            for turn in range(3):
                shown = moving(frames, size, size) // (turn + 1)
                shown[:, :4, :4] = 40 * place
                (folder / f"{place}-{turn}.mp4").write_bytes(video(shown, pix_fmt="yuv444p"))
                lines.writerow([f"{place}-{turn}.mp4", text, category])
    opened, table = Store.open(store, create=True), read_table(folder)
    sources = imports.read_sources(table, lambda more: None)
    units = imports.shards(opened, table, sources, "outside", ConversionSettings())
    return imports.import_clips(opened, "outside", units, Runner())[0]


def test_a_round_learns_from_imported_clips_alone(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    assert imported(tiny.store, folder).clips == 9
    first = play(tiny, OUTSIDE)
    assert first["policy_after"] is not None
    assert cached(first)["generate"] == (1, 1)
    assert cached(first)["finetune"] == (0, 2)
    store = Store.open(tiny.store)
    made = "FROM clips SELECT count(*) WHERE policy_id <> 'imported'"
    assert run_query(store, made)[1] == [(8,)]  # four of each policy, to examine it; none to teach
    _, rows = run_query(
        store, "FROM latents SELECT clip_id, latent_path, latent_row, embed_row ORDER BY latent_row"
    )
    assert len(rows) == 9
    held = load(store.read_media(rows[0][1]))
    assert held["latents"].shape == (9, 16, 3, 4, 4)
    assert held["prompt_embeds"].shape[0] == len({row[3] for row in rows}) == 3
    # Another objective shares what was encoded; the same round computes nothing.
    assert set(cached(play(tiny, OUTSIDE))) == set(cached(first))
    assert all(done == of for done, of in cached(play(tiny, OUTSIDE)).values())
    assert cached(play(tiny, OUTSIDE, "finetune.objective=sft"))["finetune"] == (1, 2)
    # And so do the reference's errors, which are of these latents.
    stored = play(tiny, OUTSIDE, "finetune.fixed_noise_samples=3", "finetune.reference_errors=stored",
                  "finetune.prompt_dropout=0.0")  # fmt: skip
    assert cached(stored)["finetune"] == (1, 3)
    assert run_query(store, "FROM reference_errors SELECT count(*)")[1] == [(27,)]


def test_imported_clips_teach_beside_the_policys_own(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    imported(tiny.store, folder)
    both = play(tiny, OUTSIDE, "clips.generated=true")
    assert cached(both)["generate"] == (1, 4)
    _, rows = run_query(
        Store.open(tiny.store),
        "FROM examples JOIN clips USING (clip_id) SELECT policy_id = 'imported', count(*) GROUP BY ALL ORDER BY ALL",
    )
    assert rows == [(False, 9), (True, 9)]
    alone = play(tiny, OUTSIDE)
    assert alone["policy_after"] != both["policy_after"]


def test_another_form_than_the_models_is_refused_before_anything_is_computed(
    tiny: Tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    imported(tiny.store, folder, size=48)
    with pytest.raises(
        ConfigError, match=r"48x48, 9 frames at 8 a second, and the recipe's `generate` says 32x32"
    ):
        play(tiny, OUTSIDE)
    assert not (tiny.store / "manifests/score").exists()
    assert begun(tiny, OUTSIDE).imported  # to be scored it need not be so


@pytest.fixture(scope="module")
def miniature() -> Sampler:
    model = ModelSettings(
        family="wan", path=str(ROOT / "miniature/weights/wan"), dtype="float32", device="cpu"
    )
    return Sampler.open(
        model, SampleSettings(steps=6, guidance=1.0, height=64, width=64, frames=17, max_sequence_length=24)
    )


def test_the_miniatures_frames_come_back_and_so_do_its_latents(miniature: Sampler) -> None:
    made = miniature.generate([text for text, _ in TRAIN[:2]], [1, 2])
    latents = miniature.encode_frames(made.frames)
    back = miniature.decode(latents)
    assert np.abs(back.astype(int) - made.frames).mean() < 2.5
    # Not those of another clip: the distance to its own is a small part of that between the two.
    own = (latents - made.latents).pow(2).mean().sqrt()
    between = (made.latents[0] - made.latents[1]).pow(2).mean().sqrt()
    assert own < 0.3 * between, (own, between)
    assert torch.equal(latents, miniature.encode_frames(made.frames))
