"""The weights that are shipped are as good as their cards say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors import safe_open

from miniature.train.measure_clip import measure_clip
from miniature.train.measure_raft import measure_raft

ROOT = Path(__file__).resolve().parents[3]
CLIP, RAFT = ROOT / "miniature/weights/clip", ROOT / "miniature/weights/raft"


@pytest.mark.parametrize(("folder", "limit"), [(CLIP, 3e6), (RAFT, 2.2e6)])
def test_a_folder_is_small_in_16_bit_and_has_a_card(folder: Path, limit: float) -> None:
    files = [file for file in folder.iterdir() if file.is_file()]
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".md"}
    assert sum(file.stat().st_size for file in files) < limit
    (weights,) = folder.glob("*.safetensors")
    with safe_open(weights, "pt") as tensors:
        assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} <= {"F16", "I64"}  # noqa: SIM118  # no dict
    card = (folder / "CARD.md").read_text()
    assert "Command: `python -m miniature.train." in card
    assert "Seed " in card


def test_clip_knows_colours_and_shapes_and_no_direction() -> None:
    quality = measure_clip(CLIP, "cpu", clips=104)
    assert quality["colour accuracy"] > 0.9
    assert quality["shape accuracy"] > 0.85
    assert quality["auc"] > 0.97
    assert quality["cosine right"] > quality["cosine wrong"] + 0.3
    assert abs(quality["colour accuracy"] - figure(CLIP, "colour accuracy")) < 0.08


def test_raft_measures_the_true_flow() -> None:
    quality = measure_raft(RAFT, "cpu", clips=26)
    # It underestimates speed by about a sixth; the card says so, and the reward is only ever compared.
    assert quality["epe moving"] < 0.5 * quality["epe moving of zero"]
    assert quality["epe"] < 0.7 * quality["epe of zero"]
    assert abs(quality["speed ratio"] - figure(RAFT, "speed ratio")) < 0.1
    assert quality["speed correlation"] > 0.8
    assert abs(quality["epe moving"] - figure(RAFT, "epe moving")) < 1.0


def figure(folder: Path, name: str) -> float:
    """A figure of the card's table."""
    found = re.search(rf"^\| {name} \| ([-\d.e]+) \|", (folder / "CARD.md").read_text(), re.MULTILINE)
    assert found, f"{folder}/CARD.md has no figure {name!r}"
    return float(found[1])
