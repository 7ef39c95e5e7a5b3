from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import UserError
from rewards import build_reward, reward_ref, reward_version
from rewards.base import LoadedClip
from tests.rewards.judge.conftest import RUBRIC

Clips = Callable[..., list[LoadedClip]]
Write = Callable[..., str]


@pytest.fixture
def local(tiny_vlm: Path, write_rubric: Write) -> Callable[..., dict[str, Any]]:
    def settings(rubric: str = "", **changed: Any) -> dict[str, Any]:
        own = {
            "backend": "local",
            "model": str(tiny_vlm),
            "rubric": rubric or write_rubric(),
            "device": "cpu",
        }
        return own | changed

    return settings


def by_the_class_itself(folder: Path, clip: LoadedClip, question: str) -> float:
    """P(yes) as anyone would ask a Qwen2-VL with transformers, one clip, one question."""
    import torch
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    text = (
        f"<|im_start|>system\nAnswer yes or no.<|im_end|>\n<|im_start|>user\n<|vision_start|><|video_pad|>"
        f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    frames = torch.from_numpy(clip.frames[[0, 3, 5, 8]]).permute(0, 3, 1, 2)
    inputs = processor(text=[text], videos=[frames], return_tensors="pt", do_sample_frames=False)
    with torch.no_grad():
        p = model(**inputs).logits[0, -1].softmax(-1)
    ids = {word: processor.tokenizer(word)["input_ids"] for word in ("yes", "Yes", "no", "No")}
    yes, no = (
        sum(float(p[ids[w][0]]) for w in words if len(ids[w]) == 1)
        for words in (("yes", "Yes"), ("no", "No"))
    )
    return yes / (yes + no)


def test_p_yes_is_that_of_the_models_own_forward(local: Any, tiny_vlm: Path, clips: Clips) -> None:
    some = clips(3)
    parts = build_reward("judge", local()).score_parts({"judge/task": some, "judge/physics": some}).judgements  # type: ignore[attr-defined]
    for clip in some:
        for name in ("task", "physics"):
            expected = by_the_class_itself(tiny_vlm, clip, f"{name}: {clip.prompt}?")
            assert parts[f"judge/{name}"][clip.clip_id].value == pytest.approx(expected, abs=1e-5)


def test_an_answer_does_not_depend_on_its_neighbours(local: Any, clips: Clips) -> None:
    some = [replace(clip, prompt=f"a ball{' falls' * i}") for i, clip in enumerate(clips(4))]
    together = build_reward("judge", local()).score(some)
    alone = [build_reward("judge", local(batch_size=1)).score([clip])[0] for clip in some]
    assert [one.value for one in together] == pytest.approx([one.value for one in alone], abs=1e-6)


def test_detail_tells_what_was_seen(local: Any, clips: Clips) -> None:
    judge = build_reward("judge", local())
    one = judge.score_parts({"judge/task": clips(1)}).judgements["judge/task"]["c0"]  # type: ignore[attr-defined]
    assert one.detail["frames"] == [[0, 3, 5, 8]]
    assert one.detail["judge"]["backend"] == "local"
    assert one.detail["prompt_tokens"][0] > 8
    assert {"yes", "no"} <= set(one.detail["answers"][0]["logprobs"])


def test_questions_are_put_to_the_categories_they_name(local: Any, clips: Clips, write_rubric: Write) -> None:
    questions = [*RUBRIC["questions"], {"id": "fall", "text": "falls?", "categories": ["falling down"]}]
    judge = build_reward("judge", local(write_rubric(questions=questions)))
    (fall,) = judge.score(clips(1))
    (other,) = judge.score(clips(1, category="multiple objects"))
    assert set(fall.detail["questions"]) == {"task", "physics", "fall"}
    assert set(other.detail["questions"]) == {"task", "physics"}


def test_too_little_mass_is_no_answer(local: Any, clips: Clips, write_rubric: Write) -> None:
    sure = write_rubric(answer={"positive": ["yes"], "negative": ["no"], "min_mass": 0.9})
    (one,) = build_reward("judge", local(sure)).score(clips(1))
    assert one.value is None
    assert not one.again
    assert "the model wants to say else" in str(one.error)


def test_nan_weights_never_become_a_value(local: Any, tiny_vlm: Path, clips: Clips, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in tiny_vlm.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    state["lm_head.weight"][:] = float("nan")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (one,) = build_reward("judge", local(model=str(tmp_path))).score(clips(1))
    assert one.value is None
    assert "log-probability" in str(one.error)


@pytest.mark.parametrize(
    "fault",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "DefaultCPUAllocator: can't allocate memory",
        "CUDA out of memory",
    ],
)
def test_a_batch_that_does_not_fit_is_halved_and_a_question_that_does_not_is_no_clips_failure(
    fault: str, local: Any, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import OutOfMemoryError
    from transformers import Qwen2VLForConditionalGeneration

    forward, most = Qwen2VLForConditionalGeneration.forward, 1

    def small(self: Any, **inputs: Any) -> Any:
        if len(inputs["input_ids"]) > most:
            raise OutOfMemoryError(fault) if "out of memory" in fault else RuntimeError(fault)
        return forward(self, **inputs)

    judge = build_reward("judge", local())
    calm = [one.value for one in judge.score(clips(3))]
    monkeypatch.setattr(Qwen2VLForConditionalGeneration, "forward", small)
    assert [one.value for one in judge.score(clips(3))] == pytest.approx(calm, abs=1e-6)
    most = 0
    with pytest.raises(RuntimeError, match=fault[:20]):
        judge.score(clips(1))


def test_what_is_no_video_fails_alone(local: Any, clips: Clips) -> None:
    good, bad = clips(2)
    judged = build_reward("judge", local()).score(
        [good, replace(bad, frames=np.zeros((3, 32, 32), np.uint8))]
    )
    assert judged[0].value is not None
    assert (judged[1].value, judged[1].again) == (None, False)


def test_versions_follow_model_and_rubric(local: Any, write_rubric: Write) -> None:
    base = reward_version("judge", local())
    assert reward_version("judge", local(batch_size=3)) == base
    assert reward_version("judge", local(backend="vllm")) != base
    assert reward_version("judge", local(dtype="bfloat16")) != base
    looser = local(write_rubric("looser.yaml", threshold=0.4))
    assert reward_version("judge", looser) != base
    # The threshold asks nothing again: the parts are the same.
    assert reward_ref("judge", "judge", looser).parts == reward_ref("judge", "judge", local()).parts


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"backend": "vlm"}, "should be 'vllm' or 'local'"),
        ({"model": "no/such/folder"}, "there is no folder"),
        ({"url": "127.0.0.1:8000"}, "must begin with http"),
        ({"concurency": 3}, "did you mean concurrency"),
        ({"concurrency": 0}, "greater than or equal to 1"),
    ],
)
def test_bad_settings_say_what_is_wrong(changed: dict[str, Any], message: str, local: Any) -> None:
    with pytest.raises(UserError, match=message):
        build_reward("judge", local(**changed))


def test_a_judge_that_cannot_say_no_is_refused(local: Any, write_rubric: Write, clips: Clips) -> None:
    mute = write_rubric(answer={"positive": ["yes"], "negative": ["certainly not"]})
    with pytest.raises(UserError, match="no spelling of no"):
        build_reward("judge", local(mute)).score(clips(1))
