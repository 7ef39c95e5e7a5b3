from collections import Counter
from pathlib import Path

import pytest
import torch

from data.errors import StoreError
from data.store import failpoints
from models.training import checkpoint

TENSORS = {"adapter/x": torch.arange(6.0).view(2, 3), "step/x": torch.tensor(3.0)}
CURVE = [{"step": 0, "loss": 0.1 + 0.2}, {"step": 1, "loss": 1e-17}]


def test_what_is_saved_comes_back_exactly(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "run", "me", 2, TENSORS, CURVE)
    back = checkpoint.latest(tmp_path / "run", "me")
    assert back is not None
    assert back.step == 2
    assert back.curve == CURVE
    assert {k: v.tolist() for k, v in back.tensors.items()} == {k: v.tolist() for k, v in TENSORS.items()}


def test_only_the_newest_is_kept(tmp_path: Path) -> None:
    tmp_path.joinpath("step-notes.txt").write_text("mine")
    for step in (2, 4, 6):
        checkpoint.save(tmp_path, "me", step, TENSORS, CURVE)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["step-00000006.checkpoint", "step-notes.txt"]


def test_another_runs_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, "me", 2, TENSORS, CURVE)
    assert checkpoint.latest(tmp_path, "you") is None


@pytest.mark.parametrize("place", [3, 80, -20], ids=["digest", "facts", "tensors"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint.save(tmp_path, "me", 2, TENSORS, CURVE)
    path = tmp_path / "step-00000002.checkpoint"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert checkpoint.latest(tmp_path, "me") is None
    assert "not resumed" in caplog.text


def test_what_a_crash_left_half_written_is_neither_read_nor_in_the_way(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, "me", 2, TENSORS, CURVE)
    (tmp_path / "0123.tmp").write_bytes(b"half")
    found = checkpoint.latest(tmp_path, "me")
    assert found is not None
    assert found.step == 2
    checkpoint.save(tmp_path, "me", 4, TENSORS, CURVE)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004.checkpoint"]


def test_crash_point_comes_after_the_checkpoint_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failpoints, "_passes", Counter())
    monkeypatch.setenv("VIDLOOP_FAILPOINT", "finetune.after_checkpoint")
    monkeypatch.setenv("VIDLOOP_FAILPOINT_ACTION", "enospc")
    with pytest.raises(StoreError, match="disk full"):
        checkpoint.save(tmp_path, "me", 2, TENSORS, CURVE)
    assert checkpoint.latest(tmp_path, "me") is not None


@pytest.mark.parametrize("point", ["store.mid_write", "finetune.after_checkpoint"])
@pytest.mark.parametrize(("action", "said"), [("enospc", "disk full at"), ("erofs", "cannot write")])
def test_a_disk_that_takes_no_more_is_named_and_the_last_checkpoint_stays(
    tmp_path: Path, point: str, action: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, "me", 2, TENSORS, CURVE)
    monkeypatch.setattr(failpoints, "_passes", Counter())
    monkeypatch.setenv("VIDLOOP_FAILPOINT", point)
    monkeypatch.setenv("VIDLOOP_FAILPOINT_ACTION", action)
    with pytest.raises(StoreError, match=f"{said} {tmp_path}/step-00000004.checkpoint"):
        checkpoint.save(tmp_path, "me", 4, TENSORS, CURVE)
    found = checkpoint.latest(tmp_path, "me")
    assert found is not None
    assert found.step == (2 if point == "store.mid_write" else 4)
