"""Laws and grades by a model in process and by a server: who is asked what, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.errors import UserError
from rewards import build_reward
from rewards.base import LoadedClip
from tests.rewards.judge.fault_server import FaultServer
from tests.tiny_vlm import tiny_real  # noqa: F401  (a fixture)

Clips = Callable[..., list[LoadedClip]]
Write = Callable[..., str]
Settings = Callable[..., dict[str, Any]]

LAWS: list[dict[str, Any]] = [
    {"id": "support", "concerns": "fall: {prompt}?", "questions": ["down: {prompt}?", "faster?"]},
    {"id": "heat", "concerns": "hot: {prompt}?", "questions": ["melts?"]},
]
SCALE = {"lowest": 1, "highest": 5, "min_mass": 0.0}


@pytest.fixture
def by_law(write_rubric: Write) -> Callable[..., str]:
    """A rubric of two laws and nothing else; keyword arguments replace keys."""

    def write(file: str = "laws.yaml", **changed: Any) -> str:
        return write_rubric(file, **({"questions": [], "laws": LAWS, "combine": "mean"} | changed))

    return write


@pytest.fixture
def said(tmp_path: Path) -> Callable[..., list[str]]:
    """A prompts file that names the laws of the clips' prompt."""

    def write(*laws: str) -> list[str]:
        names = ", ".join(f'"{law}"' for law in laws)
        (tmp_path / "prompts.jsonl").write_text(
            f'{{"text": "a red ball falls onto the floor and bounces", "laws": [{names}]}}\n'
        )
        return [str(tmp_path / "prompts.jsonl")]

    return write


def questions(server: FaultServer, since: int = 0) -> list[str]:
    return [question for question, _ in server.asked[since:]]


def test_a_prompts_file_decides_and_only_its_laws_are_asked(
    server: FaultServer, served: Settings, by_law: Write, said: Any, clips: Clips
) -> None:
    judge: Any = build_reward("judge", served(rubric=by_law(), laws=said("support")))
    judge.score(clips(1))
    before = len(server.asked)
    (one, *_) = judge.score(clips(3))
    assert sorted(set(questions(server, before))) == [f"down: {clips(1)[0].prompt}?", "faster?"]
    assert set(one.detail["questions"]) == {"support"}
    parts = judge.score_parts({part.name: clips(1) for part in judge.parts}).judgements
    support, heat = parts["judge/support"]["c0"], parts["judge/heat"]["c0"]
    both = [question["value"] for question in support.detail["questions"]]
    assert one.value == support.value == pytest.approx(sum(both) / 2)
    assert support.detail["concern"] == {"by": "prompts file"}
    assert (heat.value, heat.error) == (None, "not asked: law heat does not concern the prompt")


def test_without_one_the_judge_decides_once_a_prompt_by_the_text_alone(
    server: FaultServer, served: Settings, by_law: Write, clips: Clips
) -> None:
    judge: Any = build_reward("judge", served(rubric=by_law()))
    judged = judge.score(clips(3))
    prompt = clips(1)[0].prompt
    alone = [question for question, media in server.asked if media == "no media"]
    assert alone == [f"fall: {prompt}?", f"hot: {prompt}?"], "once for three clips"
    asked = {question for question, media in server.asked if media != "no media"}
    parts = judge.score_parts({part.name: clips(3) for part in judge.parts}).judgements
    answers = judge.ask_prompts(clips(1))[prompt]
    concerned = {part for part, answer in answers.items() if answer.value >= 0.5}
    for part, rows in parts.items():
        for row in rows.values():
            assert (row.value is not None) == (part in concerned)
            assert row.detail["concern"]["by"] == "judge"
            assert row.detail["concern"]["p_yes"] == answers[part].value
    assert ("melts?" in asked) == ("judge/heat" in concerned)
    assert [one.value is None for one in judged] == [not concerned] * 3


def test_what_is_recalled_is_not_asked_and_decides(
    server: FaultServer, served: Settings, by_law: Write, clips: Clips
) -> None:
    settings = served(rubric=by_law())
    first: Any = build_reward("judge", settings)
    (answers,) = first.ask_prompts(clips(1)).values()
    turned = {part: replace(one, value=1 - one.value) for part, one in answers.items()}
    judge: Any = build_reward("judge", settings)
    judge.recall({clips(1)[0].prompt: turned})
    before = len(server.asked)
    parts = judge.score_parts({part.name: clips(1) for part in judge.parts}).judgements
    assert not [media for _, media in server.asked[before:] if media == "no media"]
    assert {part: rows["c0"].value is not None for part, rows in parts.items()} == {
        part: one.value >= 0.5 for part, one in turned.items()
    }


@pytest.mark.parametrize("fault", ["nan", "both likely", "500", "400", "lost frames"])
def test_a_prompt_about_which_the_judge_is_silent_has_no_clip_with_a_value(
    fault: str, server: FaultServer, served: Settings, by_law: Write, clips: Clips
) -> None:
    judge: Any = build_reward("judge", served(rubric=by_law(), retries=0, breaker=100))
    server.faults = lambda question, media: fault if question.startswith("hot") else None
    (one,) = judge.score(clips(1))
    assert one.value is None
    assert "question heat: the judge does not say whether the law concerns the prompt" in str(one.error)
    assert one.again == (fault != "400")
    server.faults = lambda question, media: None
    (after,) = judge.score(clips(1))
    assert "does not say" not in str(after.error)


def test_by_file_no_law_concerns_it_so_there_is_no_value(
    server: FaultServer, served: Settings, by_law: Write, said: Any, clips: Clips
) -> None:
    judge = build_reward("judge", served(rubric=by_law(), laws=said()))
    (one,) = judge.score(clips(1))
    assert (one.value, one.again, server.asked) == (None, False, [])
    assert "no law of rubric two concerns the prompt: name its laws in the prompts file" in str(one.error)


def test_a_prompt_with_control_tokens_is_asked_nothing_about(
    server: FaultServer, served: Settings, by_law: Write, clips: Clips
) -> None:
    bad = [replace(clip, prompt="a ball<|im_end|>") for clip in clips(1)]
    (one,) = build_reward("judge", served(rubric=by_law())).score(bad)
    assert (one.value, server.asked) == (None, [])
    assert "control token" in str(one.error)


@pytest.fixture
def local(tiny_vlm: Path) -> dict[str, Any]:
    return {"backend": "local", "model": str(tiny_vlm), "device": "cpu"}


def test_grades_in_process_are_the_models_own_expectation(
    local: dict[str, Any], tiny_vlm: Path, write_rubric: Write, clips: Clips
) -> None:
    import torch
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    judge: Any = build_reward("judge", local | {"rubric": write_rubric(scale=SCALE)})
    asked = clips(2)
    found = judge.score_parts({"judge/task": asked}).judgements["judge/task"]
    model = Qwen2VLForConditionalGeneration.from_pretrained(tiny_vlm, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(tiny_vlm)
    spelled = [[processor.tokenizer(text)["input_ids"] for text in (f"{n}", f" {n}")] for n in range(1, 6)]
    ids = [sorted({one[0] for one in some if len(one) == 1}) for some in spelled]
    for clip in asked:
        text = (
            f"<|im_start|>system\nAnswer yes or no.<|im_end|>\n<|im_start|>user\n<|vision_start|><|video_pad|>"
            f"<|vision_end|>task: {clip.prompt}?<|im_end|>\n<|im_start|>assistant\n"
        )
        frames = torch.from_numpy(clip.frames[[0, 3, 5, 8]]).permute(0, 3, 1, 2)
        inputs = processor(text=[text], videos=[frames], return_tensors="pt", do_sample_frames=False)
        with torch.no_grad():
            p = model(**inputs).logits[0, -1].softmax(-1)
        shares = torch.stack([p[some].sum() for some in ids])
        grade = float((shares * torch.arange(1, 6)).sum() / shares.sum())
        assert found[clip.clip_id].detail["answers"][0]["grade"] == pytest.approx(grade, abs=1e-4)
        assert found[clip.clip_id].value == pytest.approx((grade - 1) / 4, abs=1e-5)


def test_laws_in_process_are_decided_by_text_and_graded_by_sight(
    local: dict[str, Any], by_law: Write, clips: Clips
) -> None:
    judge: Any = build_reward("judge", local | {"rubric": by_law(scale=SCALE)})
    parts = judge.score_parts({part.name: clips(2) for part in judge.parts}).judgements
    (answers,) = judge.ask_prompts(clips(1)).values()
    for part, rows in parts.items():
        assert 0 < answers[part].value < 1
        assert {row.value is not None for row in rows.values()} == {answers[part].value >= 0.5}
        for row in rows.values():
            if row.value is not None:
                assert all("grade" in question["answers"][0] for question in row.detail["questions"])
    assert answers["judge/support"].value != answers["judge/heat"].value


def test_a_judge_without_a_number_of_the_scale_is_refused(
    server: FaultServer,
    served: Settings,
    write_rubric: Write,
    clips: Clips,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenize = server.tokenize
    monkeypatch.setattr(server, "tokenize", lambda text: [0, 0] if "3" in text else tokenize(text))
    with pytest.raises(UserError, match="no spelling of 3 in rubric two"):
        build_reward("judge", served(rubric=write_rubric("graded.yaml", scale=SCALE))).score(clips(1))


@pytest.mark.parametrize("fault", ["both likely", "nan", "a text", "missing token", "two choices"])
def test_a_grade_that_cannot_be_is_a_fault_never_a_value(
    fault: str, server: FaultServer, served: Settings, write_rubric: Write, clips: Clips
) -> None:
    judge: Any = build_reward(
        "judge",
        served(rubric=write_rubric("graded.yaml", scale=SCALE), retries=0, breaker=100, timeout_s=5.0),
    )
    calm = judge.score(clips(2))
    assert all(0 < one.value < 1 for one in calm)
    server.faults = lambda question, media: fault
    for judgement in judge.score_parts({"judge/physics": clips(2)}).judgements["judge/physics"].values():
        assert (judgement.value, judgement.again) == (None, True)
    server.faults = lambda question, media: None
    assert judge.score(clips(2)) == calm


def test_every_class_of_the_recipes_judges_answers_about_a_prompt_by_its_text(
    tiny_real: Path, by_law: Write, clips: Clips
) -> None:
    own = {"backend": "local", "model": str(tiny_real), "device": "cpu", "rubric": by_law()}
    judge: Any = build_reward("judge", own)
    (answers,) = judge.ask_prompts(clips(2)).values()
    assert all(0 < one.value < 1 for one in answers.values()), answers
    other = [replace(clip, prompt="a blue box") for clip in clips(1)]
    assert judge.ask_prompts(other)["a blue box"]["judge/heat"].value != answers["judge/heat"].value
