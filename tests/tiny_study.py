"""A whole study of tiny models: two feedbacks, two objectives, seconds a cell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny_round import TRAIN, Tiny, tiny_settings


@dataclass(frozen=True)
class TinyStudy:
    """A folder with a study that a test may change."""

    tiny: Tiny
    vlm: Path

    @property
    def file(self) -> Path:
        return self.tiny.folder / "study.yaml"

    @property
    def store(self) -> Path:
        return self.tiny.store

    def args(self, *more: str) -> list[str]:
        """Options that every command of a test needs."""
        return ["study", "--recipe", str(self.file), "--store", str(self.store), "--plain", *more]

    def write(self, **changes: Any) -> None:
        """The study's file, with parts of it replaced."""
        self.write_only(self.tree() | changes)

    def write_only(self, tree: dict[str, Any]) -> None:
        """The study's file, with this in it."""
        self.file.write_text(yaml.safe_dump(tree, sort_keys=False))

    def tree(self) -> dict[str, Any]:
        """The study as its file says it."""
        lrs: list[dict[str, Any]] = [{"finetune": {"lr": lr}} for lr in (1e-4, 1e-3)]
        return {
            "name": "tiny-study",
            "recipe": str(self.tiny.recipe),
            "seeds": [0, 1],
            "workers": 2,
            "cell": {
                "rewards": ["physics", "judge", "sharpness", "motion", "flow"],
                "judge": {"backend": "local", "model": str(self.vlm), "rubric": str(self.vlm.parent / "rubric.yaml")},
                "flow": {"model": "miniature/weights/raft", "pairs": 1, "updates": 1},
                "generate": {"clips_per_prompt": 4},
                "finetune": {"steps": 2},
                "curate": {"accept_fraction": None},
                # Tuning examines on the prompts that it trains on: it shows that it runs, and tells nothing.
                "evaluate": {
                    "guards": ["motion"], "metric": "sharpness", "clips": 4, "allow_training_prompts": True,
                },
            },
            "feedbacks": {
                "judge-binary": {"feedback": "judge", "shaping": {"kind": "binary", "threshold": 0.5}},
                "flow": {"feedback": "flow", "shaping": {"kind": "graded", "threshold": None}},
            },
            "accept_like": "judge-binary",
            "objectives": {"unfiltered": lrs, "sft": lrs, "dpo-anchor": lrs},
            "tuning": {"seed": 9, "feedback": "judge-binary", "prompts": str(self.tiny.folder / "train.jsonl"), "clips": 3},
            "best_of": {"clips_per_prompt": 4, "sizes": [2, 4]},
            "in_a_row": {"feedback": "flow", "objective": "dpo-anchor", "rounds": 2},
            "sweeps": {
                "noise": {"feedbacks": ["flow"], "objectives": ["sft"], "shares": [0.0, 0.4]},
                "category_heldout": {"feedbacks": ["flow"], "objectives": ["sft"], "categories": [TRAIN[0][1]]},
            },
        }  # fmt: skip


@pytest.fixture
def study_file(tmp_path: Path) -> TinyStudy:
    """The same as a file alone, to be read: there are no models behind it."""
    (tmp_path / "tiny.yaml").write_text(
        yaml.safe_dump(tiny_settings(tmp_path / "wan", tmp_path), sort_keys=False)
    )
    made = TinyStudy(Tiny(tmp_path, tmp_path / "store"), tmp_path / "vlm" / "judge")
    made.write()
    return made


@pytest.fixture
def tiny_study(tiny: Tiny, tiny_vlm: Path) -> TinyStudy:
    made = TinyStudy(tiny, tiny_vlm)
    (tiny_vlm.parent / "rubric.yaml").write_text(RUBRIC)
    made.write()
    return made


RUBRIC = """\
name: tiny
system: "Answer yes or no."
frames: {count: 4, media: video, segment_seconds: null, segments: min}
answer: {positive: ["yes", "Yes"], negative: ["no", "No"], min_mass: 0.0}
combine: all
threshold: 0.5
questions:
  - {id: overall, text: "overall: {prompt}?"}
"""
