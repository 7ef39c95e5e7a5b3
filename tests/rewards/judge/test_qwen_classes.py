"""The classes of the recipes' real judges, Qwen2.5-VL and Qwen3-VL, with small random weights, in process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rewards import build_reward
from rewards.base import LoadedClip
from rewards.judge.frames import segments
from rewards.judge.processing import Processing
from rewards.judge.rubric import Rubric
from tests.tiny_vlm import tiny_qwen  # noqa: F401  (a fixture)

Clips = Callable[..., list[LoadedClip]]
SEEN = (0, 3, 5, 8)  # of nine frames


@pytest.fixture
def judge(tiny_qwen: Path, write_rubric: Callable[..., str]) -> Callable[..., Any]:
    def build(**changed: Any) -> Any:
        own = {"backend": "local", "model": str(tiny_qwen), "rubric": write_rubric(), "device": "cpu"}
        return build_reward("judge", own | changed)

    return build


def by_the_class_itself(folder: Path, clip: LoadedClip, question: str) -> tuple[float, dict[str, Any]]:
    """P(yes) and the inputs, as anyone would ask with transformers: the clip's frames and when they are."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    text = (
        f"<|im_start|>system\nAnswer yes or no.<|im_end|>\n<|im_start|>user\n<|vision_start|><|video_pad|>"
        f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    frames = torch.from_numpy(clip.frames[list(SEEN)]).permute(0, 3, 1, 2)
    when = {"fps": clip.fps, "total_num_frames": len(clip.frames), "frames_indices": list(SEEN)}
    inputs = processor(
        text=[text], videos=[frames], video_metadata=[when], do_sample_frames=False, return_tensors="pt"
    )
    with torch.no_grad():
        p = model(**inputs).logits[0, -1].softmax(-1)
    yes, no = (
        sum(float(p[ids[0]]) for word in words if len(ids := processor.tokenizer(word)["input_ids"]) == 1)
        for words in (("yes", "Yes"), ("no", "No"))
    )
    return yes / (yes + no), dict(inputs)


def test_p_yes_is_that_of_the_models_own_forward(
    judge: Callable[..., Any], tiny_qwen: Path, clips: Clips
) -> None:
    some = clips(2)
    parts = judge().score_parts({"judge/task": some, "judge/physics": some}).judgements
    values = set()
    for clip in some:
        for name in ("task", "physics"):
            expected, inputs = by_the_class_itself(tiny_qwen, clip, f"{name}: {clip.prompt}?")
            one = parts[f"judge/{name}"][clip.clip_id]
            assert one.value == pytest.approx(expected, abs=1e-5)
            assert one.detail["prompt_tokens"] == [inputs["input_ids"].shape[1]]
            values.add(round(expected, 6))
    assert len(values) == 4, "answers that do not differ would show nothing"


def test_the_model_is_told_when_the_frames_are(tiny_qwen: Path, rubric: Rubric, clips: Clips) -> None:
    processing = Processing(str(tiny_qwen), "", rubric)
    (segment,) = segments(clips(1)[0], rubric.frames)
    inputs = processing.inputs([segment], ["?"])
    if tiny_qwen.name == "qwen2_5_vl":
        # Four of nine frames at eight a second are 3.56 a second, two make a step of the grid.
        assert inputs["second_per_grid_ts"].tolist() == pytest.approx([2 / (4 / 9 * 8)])
    else:
        told = processing._processor.tokenizer.decode(inputs["input_ids"][0])
        # The mean of the two frames that share a step: (0 + 3) / 2 / 8 and (5 + 8) / 2 / 8 seconds.
        assert told.count("<0.2 seconds>") == told.count("<0.8 seconds>") == 1
    assert processing.tokens(segment, "?") == inputs["input_ids"].shape[1]


def test_a_slower_clip_is_another_clip(judge: Callable[..., Any], clips: Clips) -> None:
    (clip,) = clips(1)
    slow = replace(clip, fps=2.0)
    one, other = (judge().score([each])[0].value for each in (clip, slow))
    assert one != other


def test_an_answer_does_not_depend_on_its_neighbours(judge: Callable[..., Any], clips: Clips) -> None:
    """Clips of other lengths and frame rates have prompts of their own."""
    some = [
        *clips(2),
        replace(clips(3)[2], fps=0.5),
        replace(clips(1, frames=3)[0], clip_id="short", prompt="a ball falls and falls"),
    ]
    together = judge().score(some)
    alone = [judge(batch_size=1).score([clip])[0] for clip in some]
    assert [one.value for one in together] == pytest.approx([one.value for one in alone], abs=1e-6)
