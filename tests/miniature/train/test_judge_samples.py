from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from miniature.train.judge_samples import measured_captions, training_captions, write
from miniature.world.catalog import TEMPLATES, parse
from miniature.world.corpus import sample_corpus
from miniature.world.oracle import judge
from miniature.world.prompts import prompt_set
from miniature.world.render import render


def test_no_judge_trains_on_what_it_is_measured_on() -> None:
    train = training_captions(500, 0)
    assert train == training_captions(500, 0)
    assert {parse(text).template for text in train} == set(TEMPLATES)  # type: ignore[union-attr]
    heldout = {prompt.text for split in ("heldout", "dev") for prompt in prompt_set(split)}
    assert not set(train) & heldout
    measured = measured_captions(340)
    assert len(measured) == 340
    assert {prompt.text for prompt in prompt_set("heldout")} <= set(measured)


def test_clips_are_written_with_the_oracles_verdicts(tmp_path: Path) -> None:
    scenes = sample_corpus(4, 0.5, 0)
    captions = [scene.caption for scene in scenes]
    clips = render(scenes)
    passed = write(tmp_path, "train", clips, captions, None)
    assert torch.equal(load_file(tmp_path / "train.safetensors")["frames"], clips)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    expected = [judge(frames, text) for frames, text in zip(clips.numpy(), captions, strict=True)]
    assert [(row["caption"], row["passed"], row["law"]) for row in rows] == [
        (text, one.passed, one.law) for text, one in zip(captions, expected, strict=True)
    ]
    assert passed == sum(one.passed for one in expected) / 4
