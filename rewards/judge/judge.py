"""The judge: yes/no questions about clips to a vision-language model, and P(yes) from its log-probabilities.

    clip -> segments of frames -> question by question -> P(yes) -> one value in [0, 1]

Binary feedback of such a judge is the signal that Furuta et al., 2024 (arXiv 2412.02617, section 4.2) found
to teach best. Each question is a part of the reward with a version of its own (`parts`), so that a new
question asks nothing else again; the clip's value combines them (`rewards.judge.answers.combine`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rewards.base import (
    CannotJudge,
    Judgement,
    LoadedClip,
    PartedReward,
    PartScores,
    checked,
    failed,
    not_a_video,
)
from rewards.judge.answers import Ask, Reply, combine, question_judgement
from rewards.judge.frames import Segment, segments
from rewards.judge.local import LocalBackend
from rewards.judge.prompt import question_text
from rewards.judge.rubric import Question, load_rubric
from rewards.judge.served import VllmBackend
from rewards.judge.server import require_server
from rewards.judge.settings import NAME, JudgeSettings, judge_parts, judge_version, part_name
from rewards.kind import RewardKind


class JudgeReward(PartedReward):
    """See the module's docstring. Loads, or starts, nothing before the first question.

    Raises:
        ServiceError: the rubric or the model is missing or wrong.
    """

    name = NAME
    range = (0.0, 1.0)

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings
        self.rubric = load_rubric(settings.rubric)
        self.version = judge_version(settings)
        self.parts = judge_parts(settings)
        self._questions = {part_name(question): question for question in self.rubric.questions}
        backends: dict[str, type[VllmBackend | LocalBackend]] = {"vllm": VllmBackend, "local": LocalBackend}
        self._backend = backends[settings.backend](settings, self.rubric)

    def score_parts(self, wanted: Mapping[str, Sequence[LoadedClip]]) -> PartScores:
        """Judgements of the clips that each question (by its part's name) is wanted of.

        `detail` of each: frame numbers seen, log-probabilities of the spellings, tokens of the prompt, who
        answered, and of several segments from when to when each is, in seconds. A clip whose frames, prompt
        or request are at fault fails for good; one that the judge did not answer fails with `again`.
        """
        clips = {clip.clip_id: clip for some in wanted.values() for clip in some}
        asked_of = {part: {clip.clip_id for clip in some} for part, some in wanted.items()}
        judgements: dict[str, dict[str, Judgement]] = {part: {} for part in wanted}
        asks: list[Ask] = []
        places: list[tuple[str, str]] = []
        # Clip by clip, and segment by segment: what stands together shares the server's caches.
        for clip_id, clip in clips.items():
            parts = [part for part in wanted if clip_id in asked_of[part]]
            try:
                found = self._segments(clip)
                texts = {part: question_text(self._questions[part], clip.prompt) for part in parts}
            except CannotJudge as error:
                judgements |= {part: {**judgements[part], clip_id: failed(str(error))} for part in parts}
                continue
            for segment in found:
                for part in parts:
                    asks.append(Ask(segment, texts[part]))
                    places.append((part, clip_id))
        replies = self._backend.ask(asks) if asks else []
        answers: dict[tuple[str, str], list[tuple[Ask, Reply]]] = {}
        for place, ask, reply in zip(places, asks, replies, strict=True):
            answers.setdefault(place, []).append((ask, reply))
        for (part, clip_id), some in answers.items():
            judgements[part][clip_id] = checked(self._judgement(self._questions[part], some), self.range)
        return PartScores(judgements, self._backend.down)

    def combined(self, category: str, parts: Mapping[str, Judgement]) -> Judgement:
        """See `combine_parts`; `detail` has the value of each question and the label."""
        return combine_parts(self.settings, category, parts)

    def prepare(self) -> None:
        """Say that clips will come: a server of the run's own may start, beside other work.

        Raises:
            ServiceError: there is no environment with vLLM.
        """
        self._backend.prepare()

    def close(self) -> None:
        """Let go of the model, or end the server if it is ours; may be called twice."""
        self._backend.close()

    def _segments(self, clip: LoadedClip) -> list[Segment]:
        problem = not_a_video(clip)
        if problem is not None:
            raise CannotJudge(problem)
        return segments(clip, self.rubric.frames)

    def _judgement(self, question: Question, answers: Sequence[tuple[Ask, Reply]]) -> Judgement:
        detail: dict[str, Any] = {
            "frames": [list(ask.segment.indices) for ask, _ in answers],
            "prompt_tokens": [reply.tokens for _, reply in answers],
            "judge": self._backend.identity,
        }
        if answers[1:]:
            detail["segments"] = [list(ask.segment.seconds or ()) for ask, _ in answers]
        found = []
        for ask, reply in answers:
            if reply.probability is None:
                where = f"frames {ask.segment.indices[0]}-{ask.segment.indices[-1]}: " if answers[1:] else ""
                return failed(f"{where}{reply.error}", detail, again=any(r.again for _, r in answers))
            found.append(reply.probability)
        return question_judgement(question, self.rubric.frames, found, detail)


def combine_parts(settings: JudgeSettings, category: str, parts: Mapping[str, Judgement]) -> Judgement:
    """The clip's value from its parts' judgements (by part's name); loads nothing. Raises ServiceError."""
    rubric = load_rubric(settings.rubric)
    answers = {q.id: parts[part_name(q)] for q in rubric.questions if part_name(q) in parts}
    return combine(rubric, category, answers)


REWARD: Final = RewardKind(
    name=NAME,
    settings=JudgeSettings,
    build=JudgeReward,
    version=judge_version,
    range=JudgeReward.range,
    reads="frames in order, the prompt and its category",
    serves=lambda settings: settings.managed,
    parts=judge_parts,
    combine=combine_parts,
    ready=require_server,
    threshold=lambda settings: load_rubric(settings.rubric).threshold,
)
