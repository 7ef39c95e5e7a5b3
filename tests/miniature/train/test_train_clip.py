from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from miniature.train.tokenizer import build_tokenizer
from miniature.train.train_clip import contrastive_loss, main
from miniature.world.catalog import vocabulary
from rewards import build_reward

SMALL = "--device cpu --seconds 600 --steps 24 --clips 26 --batch 12 --measure 26 --seed 3"


def test_equal_captions_are_no_negatives() -> None:
    similarity = torch.tensor([[0.9, 0.9, 0.1], [0.9, 0.9, 0.0], [0.2, 0.1, 0.8]])
    scale = torch.tensor(10.0)
    masked = contrastive_loss(similarity, scale, torch.tensor([5, 5, 7]))
    # Row 0 and row 1 are the same caption: without each other, each has one negative left.
    rows = [[9.0, 1.0], [9.0, 0.0], [8.0, 2.0, 1.0]]
    columns = [[9.0, 2.0], [9.0, 1.0], [8.0, 1.0, 0.0]]
    expected = [cross_entropy(torch.tensor([logits]), torch.tensor([0])) for logits in (*rows, *columns)]
    torch.testing.assert_close(masked, torch.stack(expected).sum() / 6)
    assert masked < contrastive_loss(similarity, scale, torch.tensor([4, 5, 7]))


def test_the_tokenizer_spells_every_caption_and_closes_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    words = vocabulary()
    build_tokenizer(words, "<eos>", 200).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path))
    size = len(tokenizer)
    assert size == len(words) + 3
    ids = tokenizer("A red  ball meows.").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["a", "red", "ball", "<unk>", "<unk>", "<eos>"]
    assert tokenizer(" ".join(words)).input_ids == [*range(3, size), 1]


def test_some_steps_on_a_cpu_lower_the_loss_and_leave_a_folder_that_scores(tmp_path: Path) -> None:
    trained = main([*SMALL.split(), "--out", str(tmp_path / "clip")])
    assert len(trained.losses) == 24
    assert sum(trained.losses[-5:]) < 0.9 * sum(trained.losses[:5])
    reward = build_reward("clip", {"model": str(tmp_path / "clip"), "device": "cpu"})
    assert reward.range == (-1.0, 1.0)
    size = sum(file.stat().st_size for file in (tmp_path / "clip").iterdir())
    assert size < 3e6
    card = (tmp_path / "clip" / "CARD.md").read_text()
    assert "python -m miniature.train.train_clip" in card
    assert f"{trained.quality['colour accuracy']:.4g}" in card


def test_no_time_no_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--seconds", "0", "--out", str(tmp_path)])
    assert "--seconds" in capsys.readouterr().err
