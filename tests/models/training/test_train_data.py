import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from data.errors import UserError
from data.records import Clip, Example, Pair, PairSegment
from models.families.base import Family
from models.training.objectives import get_objective
from models.training.probe import read_by
from models.training.settings import TrainSettings
from models.training.train_data import TrainData, load_train_data
from models.training.trainer import TrainJob, train

MakeClip = Callable[..., Clip]


@pytest.fixture
def shards(tmp_path: Path, make_clip: MakeClip) -> tuple[Path, list[Clip]]:
    """Two latent files: clips a, b of prompt p1 and c of p2 in one, d of p1 in the other."""
    for name, rows in (("one", 3), ("two", 1)):
        latents = torch.arange(rows).float().view(-1, 1, 1, 1, 1).expand(rows, 2, 3, 2, 2).clone()
        embeds = torch.stack([torch.full((4, 5), float(i)) for i in range(2)])
        save_file(
            {"latents": latents + (10 if name == "two" else 0), "prompt_embeds": embeds}, tmp_path / name
        )
    rows = [
        ("a", "p1", "one", 0, 0),
        ("b", "p1", "one", 1, 0),
        ("c", "p2", "one", 2, 1),
        ("d", "p1", "two", 0, 0),
    ]
    clips = [
        make_clip(name, prompt_id=prompt, latent_path=path, latent_row=row, embed_row=embed)
        for name, prompt, path, row, embed in rows
    ]
    return tmp_path, clips


def reading(root: Path) -> Callable[[str], bytes]:
    return lambda path: (root / path).read_bytes()


def example(clip: str, prompt: str, weight: float = 1.0, accepted: bool = True) -> Example:
    return Example("k", clip, prompt, "falling down", weight, weight, accepted, "")


def pair(chosen: str, rejected: str) -> Pair:
    return Pair("k", "p1", "falling down", chosen, rejected, 1.0)


def test_curated_clips_are_read_from_their_shards(shards: tuple[Path, list[Clip]]) -> None:
    root, clips = shards
    examples = [example("d", "p1"), example("c", "p2", 0.25, accepted=False)]
    data = load_train_data(reading(root), clips, examples, [pair("d", "b"), pair("a", "b")])
    assert data.clip_ids == ("a", "b", "c", "d")
    assert data.latents[:, 0, 0, 0, 0].tolist() == [0.0, 1.0, 2.0, 10.0]
    assert data.prompt_ids == ("p1", "p2")
    assert data.embeds[:, 0, 0].tolist() == [0.0, 1.0]
    assert data.prompt_index.tolist() == [0, 0, 1, 0]
    assert data.pairs.tolist() == [[3, 1], [0, 1]]
    assert data.examples.tolist() == [3, 2]
    assert data.weights.tolist() == [1.0, 0.25]
    assert data.accepted.tolist() == [True, False]
    # c was not accepted, and nothing else of its prompt was: it is an example of what to avoid
    assert data.undesirable.tolist() == [False, True]
    assert data.pair_frames is None


def test_segments_become_latent_frames_of_their_pairs(shards: tuple[Path, list[Clip]]) -> None:
    root, clips = shards
    # 9 frames at 8 a second in 3 latent frames: 0 | 1-4 | 5-8
    clips = [replace(clip, frames=9, fps=8.0) for clip in clips]
    spans = [PairSegment("k", "a", "b", 0.0, 0.125), PairSegment("k", "a", "b", 0.625, 1.125)]
    data = load_train_data(reading(root), clips, [], [pair("d", "b"), pair("a", "b")], pair_segments=spans)
    assert data.pair_frames is not None
    assert data.pair_frames.tolist() == [[True, True, True], [True, False, True]]


def test_clips_that_nothing_was_learned_from_are_not_read(shards: tuple[Path, list[Clip]]) -> None:
    root, clips = shards
    (root / "two").unlink()
    assert load_train_data(reading(root), clips, [example("a", "p1")]).clip_ids == ("a",)


def test_unknown_clips_and_foreign_latents_are_named(shards: tuple[Path, list[Clip]]) -> None:
    root, clips = shards
    with pytest.raises(UserError, match="not among the generated"):
        load_train_data(reading(root), clips, [example("nobody", "p1")])
    with pytest.raises(UserError, match="no row 7"):
        load_train_data(reading(root), [replace(clips[0], latent_row=7)], [example("a", "p1")])
    (root / "one").write_bytes(b"\0" * 10)
    with pytest.raises(UserError, match="one holds no latents"):
        load_train_data(reading(root), clips, [example("a", "p1")])


def test_nothing_curated_is_said_so(shards: tuple[Path, list[Clip]]) -> None:
    root, clips = shards
    with pytest.raises(UserError, match="no training data"):
        load_train_data(reading(root), clips)


def test_sft_takes_accepted_examples_and_rwr_those_of_positive_weight(train_data: TrainData) -> None:
    weights = train_data.weights.clone()
    weights[:4] = 0
    data = replace(train_data, weights=weights)
    assert get_objective("sft").rows(data).tolist() == [0, 2, 4, 6, 8, 10]
    assert get_objective("rwr").rows(data).tolist() == list(range(4, 12))
    assert get_objective("dpo").usable(data) == 6


def test_unpaired_labels_leave_out_what_is_neither(train_data: TrainData) -> None:
    some = replace(train_data, rejected=torch.arange(12) == 3)
    assert get_objective("kto").rows(some).tolist() == [0, 2, 3, 4, 6, 8, 10]
    assert get_objective("nft").rows(train_data).tolist() == list(range(12))
    assert get_objective("unfiltered").rows(some).tolist() == list(range(12))
    one_sided = replace(train_data, rejected=torch.zeros(12, dtype=torch.bool))
    assert get_objective("kto").usable(one_sided) == 0
    with pytest.raises(UserError, match="both accepted and rejected"):
        replace(train_data, rejected=train_data.accepted)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pairs": torch.tensor([[3, 3]])}, "names one clip twice"),
        ({"pairs": torch.tensor([[0, 11]])}, "clips of two prompts"),
        ({"pairs": torch.tensor([[0, 12]])}, "a pair points outside"),
        ({"pairs": torch.tensor([0, 1])}, "not .m, 2."),
        ({"examples": torch.tensor([-1] * 12)}, "a example points outside|an example points outside"),
        ({"weights": torch.full((12,), -1.0)}, "negative or not finite"),
        ({"weights": torch.full((12,), float("nan"))}, "negative or not finite"),
        ({"accepted": torch.ones(3, dtype=torch.bool)}, "differ in length"),
        ({"latents": torch.full((12, 16, 5, 4, 4), float("nan"))}, "12 latents hold NaN.*c0, c1, c2"),
        ({"latents": torch.zeros(11, 16, 5, 4, 4)}, "12 clips need latents"),
        ({"embeds": torch.zeros(2, 16, 32)}, "3 prompts need embeddings"),
    ],
)
def test_data_that_would_teach_nonsense_is_refused(
    train_data: TrainData, change: dict[str, Any], told: str
) -> None:
    # pitfalls: a tie taken for a pair is the same clip twice; a pair across prompts compares what cannot be compared
    with pytest.raises(UserError, match=told):
        replace(train_data, **change)


@pytest.mark.parametrize("objective", ["dpo-anchor", "kto", "sft", "nft"])
def test_what_no_unit_and_no_probe_reads_is_not_loaded_and_changes_nothing(
    objective: str,
    train_data: TrainData,
    tmp_path: Path,
    make_clip: Callable[..., Clip],
    make_transformer: Callable[[], nn.Module],
    family: Family,
    tune: Callable[..., TrainSettings],
) -> None:
    """Of 12 clips two are accepted, one of them over another; two lost by lot, and one is probed."""
    latents = {"latents": train_data.latents, "prompt_embeds": train_data.embeds}
    save_file(latents, tmp_path / "one")
    clips = [
        make_clip(name, prompt_id=f"p{row // 4}", latent_path="one", latent_row=row, embed_row=row // 4)
        for row, name in enumerate(train_data.clip_ids)
    ]
    examples = [
        Example(
            "k",
            clip.clip_id,
            clip.prompt_id,
            "",
            1.0 if row in (1, 9, 10, 11) else 0.5,
            1.0,
            row in (1, 9),
            "",
        )
        for row, clip in enumerate(clips)
    ]
    settings = tune(objective=objective, steps=2, probe=1)
    found = []
    for needed in (None, functools.partial(read_by, settings=settings)):
        data = load_train_data(reading(tmp_path), clips, examples, [pair("c9", "c8")], read_by=needed)
        network = make_transformer()
        found.append((len(data.clip_ids), train(network, family, TrainJob(data, settings, "base"))))
    (every, full), (some, part) = found
    assert every == 12
    assert some == {"dpo-anchor": 3, "kto": 11, "sft": 3, "nft": 11}[objective]
    assert part.adapter == full.adapter
    assert (part.curve, part.diagnostics) == (full.curve, full.diagnostics)
