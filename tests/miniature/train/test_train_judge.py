from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from miniature.train.judge_corpus import HELD_OUT, KINDS, RIGHT, WARPS, rendered, samples
from miniature.train.judge_forward import JudgeForward
from miniature.train.judge_model import JudgeShape, build_judge, load_judge, save_judge
from miniature.train.judge_questions import EACH, RUBRIC, bank, questions, rubric, vocabulary_texts
from miniature.train.train_judge import main
from miniature.world.catalog import caption, parse
from miniature.world.oracle import judge
from rewards import build_reward
from rewards.base import LoadedClip


@pytest.fixture(scope="module")
def judge_of_full_size() -> tuple[Any, Any]:
    return build_judge(JudgeShape(), vocabulary_texts(), seed=3)


def test_the_judge_is_small_and_its_positions_are_the_same_everywhere(
    judge_of_full_size: tuple[Any, Any], tmp_path: Path
) -> None:
    model, processor = judge_of_full_size
    assert save_judge(model, processor, tmp_path) <= 8e6
    assert JudgeShape().tokens == 8
    with pytest.raises(ValueError, match="disagree on the positions"):
        JudgeShape(temporal_patch=4)
    # Nearly every word of the world is one token.
    ids = processor.tokenizer("overall: a hand lifts the red ball beside the blue square?")["input_ids"]
    assert len(ids) <= 14


def test_training_sees_what_the_processor_and_the_class_compute(judge_of_full_size: tuple[Any, Any]) -> None:
    model, processor = judge_of_full_size
    model.float()
    shape, words = JudgeShape(), rubric()
    forward = JudgeForward(model.eval(), processor, shape, words)
    video = torch.randint(0, 256, (2, shape.frames, 64, 64, 3), dtype=torch.uint8)
    texts = ["overall: a red ball falls onto the floor and bounces?", "look: a blue square?"]
    encoded = [[*processor.tokenizer(text)["input_ids"], *forward.tail] for text in texts]
    longest = max(map(len, encoded))
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in encoded]).expand(2, -1, -1)
    with torch.no_grad():
        frames = video.permute(0, 1, 4, 2, 3).float() / 255
        hidden = forward(frames, ids)
        for clip in range(2):
            for place, text in enumerate(texts):
                messages = [
                    {"role": "system", "content": words.system},
                    {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]},
                ]
                prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
                own = processor(text=[prompt], videos=[video[clip].permute(0, 3, 1, 2)], return_tensors="pt")
                assert (own["pixel_values_videos"] - forward.patches(frames)[clip]).abs().max() < 1e-5
                expected = model(**own).logits[0, -1]
                found = model.lm_head(hidden[clip, place, len(encoded[place]) - 1])
                assert (expected - found).abs().max() < 1e-4


def test_rendered_clips_are_labelled_by_the_oracle() -> None:
    clips = rendered(90, 0, 17, 64, "cpu", None)
    assert set(clips.kinds) & set(WARPS)
    for frames, text, labels, kind in zip(
        clips.frames.numpy(), clips.captions, clips.labels, clips.kinds, strict=True
    ):
        verdict = judge(frames, text)
        expected = [verdict.motion >= 0.5, verdict.law >= 0.5, verdict.identity >= 0.5, verdict.passed]
        assert labels.tolist() == [float(one) for one in expected], kind
        assert labels[-1] == 1.0 or kind != RIGHT


def test_what_is_held_out_does_not_occur_and_unjudged_clips_say_only_what_is_known() -> None:
    clips = rendered(400, 1, 4, 16, "cpu", None, without=HELD_OUT, judged=False)
    assert not set(clips.kinds) & set(HELD_OUT)
    right = np.array([kind == RIGHT for kind in clips.kinds])
    assert (clips.labels[right] == 1).all()
    assert (clips.labels[~right, KINDS.index("overall")] == 0).all()
    assert np.isnan(clips.labels[~right, :3]).all()


@pytest.mark.parametrize(
    "text", ["a red ball hits a blue square and stops", "a cyan triangle moves to the left"]
)
def test_wrong_captions_are_other_captions_of_the_world(text: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        asked = questions(rubric(), text, [1.0] * 4, rng)
        assert len(asked) == EACH
        assert [one.answer for one in asked[:4]] == [1.0] * 4
        for one in asked[4:8]:
            other = one.text.partition(": ")[2].removesuffix("?")
            parsed = parse(other)
            assert other != text
            assert parsed is not None
            assert caption(parsed.template, parsed.subjects) == other
            assert one.answer == 0.0
        assert [one.answer for one in asked[8:]] == [1.0, 0.0, 1.0, 0.0]


def test_of_a_wrong_clip_only_its_own_answers_are_known() -> None:
    asked = questions(
        rubric(), "a cyan triangle moves to the left", [0.0, 1.0, 0.0, 0.0], np.random.default_rng(0)
    )
    assert [one.answer for one in asked[:4]] == [0.0, 1.0, 0.0, 0.0]
    assert np.isnan([one.answer for one in asked[4:]]).all()


def test_the_bank_holds_the_questions_as_the_processor_tokenises_them(
    judge_of_full_size: tuple[Any, Any],
) -> None:
    _, processor = judge_of_full_size
    clips = rendered(6, 2, 4, 16, "cpu", None, judged=False)
    held = bank(clips, processor.tokenizer, [1, 2, 3], 0, "cpu")
    asked = questions(rubric(), clips.captions[0], clips.labels[0].tolist(), np.random.default_rng(0))
    for place, one in enumerate(asked):
        ids = processor.tokenizer(one.text, add_special_tokens=False)["input_ids"]
        assert held.ids[0, place, : len(ids) + 3].tolist() == [*ids, 1, 2, 3]
        assert int(held.answer_at[0, place]) == len(ids) + 2
        assert held.labels[0, place] == one.answer or np.isnan(one.answer)


def write_samples(folder: Path, count: int = 12) -> None:
    """Files as miniature.train.judge_samples writes them."""
    from safetensors.torch import save_file

    clips = rendered(count, 5, 17, 64, "cpu", None)
    for part in ("train", "measure"):
        save_file({"frames": clips.frames}, folder / f"{part}.safetensors")
        rows = [
            {"caption": text, "passed": bool(p), "identity": i, "motion": m, "law": x}
            for text, (m, x, i, p) in zip(clips.captions, clips.labels.tolist(), strict=True)
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_samples_come_back_with_the_oracles_answers(tmp_path: Path) -> None:
    write_samples(tmp_path)
    found = samples(tmp_path, "train", 16, "cpu")
    assert found.frames.shape == (12, 16, 64, 64, 3)
    assert (found.labels == rendered(12, 5, 17, 64, "cpu", None).labels).all()


def test_a_short_training_learns_and_its_files_judge(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    write_samples(tmp_path / "samples")
    trained = main(
        [
            *("--out", str(tmp_path / "judge"), "--samples", str(tmp_path / "samples"), "--device", "cpu"),
            *("--steps", "20", "--seconds", "300", "--clips", "48", "--labelled", "24", "--batch", "4"),
            *("--measure", "16", "--lr", "2e-3"),
        ]
    )
    assert np.mean(trained.losses[-5:]) < 0.7 * np.mean(trained.losses[:3])
    assert set(trained.quality) >= {"rendered: agreement", "generated: agreement", "wrong caption: agreement"}
    card = (tmp_path / "judge" / "CARD.md").read_text()
    assert "--steps 20" in card
    assert str(tmp_path) not in card.replace(str(tmp_path / "samples"), "")
    model, _ = load_judge(tmp_path / "judge", "cpu")
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    clip = LoadedClip("c", "a red ball moves to the left", np.zeros((17, 64, 64, 3), np.uint8), 8.0, "")
    one = build_reward(
        "judge", {"backend": "local", "model": str(tmp_path / "judge"), "rubric": RUBRIC}
    ).score([clip])[0]
    assert one.value is None or 0 <= one.value <= 1
