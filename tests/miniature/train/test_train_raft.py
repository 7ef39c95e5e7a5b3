from __future__ import annotations

from pathlib import Path

import pytest
import torch

from miniature.train.train_raft import GAMMA, main, sequence_loss, turned
from rewards import build_reward

SMALL = "--device cpu --seconds 600 --steps 8 --clips 26 --batch 2 --measure 4"


@pytest.mark.parametrize("how", range(8))
def test_pictures_and_flow_are_turned_together(how: int) -> None:
    first = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(how))
    second = first.roll((2, -1), dims=(-2, -1))  # down by 2, left by 1
    flow = torch.tensor([-1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 12, 12)
    valid = torch.zeros(1, 12, 12, dtype=torch.bool)
    valid[:, 3:9, 2:8] = True
    images, moved, inside = turned(torch.stack([first, second], dim=1), flow, valid, how)
    rows, columns = inside[0].nonzero().T
    assert len(rows) == 36
    step = moved[0, :, rows, columns].long()
    torch.testing.assert_close(
        images[0, 1][:, rows + step[1], columns + step[0]], images[0, 0][:, rows, columns]
    )


def test_the_loss_is_the_weighted_distance_over_valid_pixels() -> None:
    flow = torch.zeros(1, 2, 2, 2)
    valid = torch.tensor([[[True, True], [True, False]]])
    off = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    assert sequence_loss([flow, flow], flow, valid) == 0
    assert sequence_loss([off, flow], flow, valid) == pytest.approx(3 * GAMMA)
    assert sequence_loss([flow, off], flow, valid) == pytest.approx(3)
    beyond = torch.where(valid[:, None], 0.0, 50.0).expand(1, 2, 2, 2)
    assert sequence_loss([beyond], flow, valid) == 0


def test_some_steps_on_a_cpu_lower_the_loss_and_leave_a_folder_that_scores(tmp_path: Path) -> None:
    trained = main([*SMALL.split(), "--out", str(tmp_path / "raft")])
    assert len(trained.losses) == 8
    assert sum(trained.losses[-3:]) < 0.7 * sum(trained.losses[:3])
    reward = build_reward("flow", {"model": str(tmp_path / "raft"), "device": "cpu"})
    assert reward.range[0] == 0.0
    card = (tmp_path / "raft" / "CARD.md").read_text()
    assert "python -m miniature.train.train_raft" in card
    assert f"{trained.quality['epe']:.4g}" in card
