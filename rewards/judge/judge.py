"""The judge: questions about clips to a vision-language model, and answers from its log-probabilities.

    clip -> segments of frames -> question by question -> P(yes), or a grade -> one value in [0, 1]

Binary feedback of such a judge is the signal that Furuta et al., 2024 (arXiv 2412.02617, section 4.2) found
to teach best. Each question is a part of the reward with a version of its own (`parts`), so that a new
question asks nothing else again; the clip's value combines them (`rewards.judge.answers.combine`). A law of
the rubric is one part, too; which clips it is asked of, `rewards.judge.laws` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from rewards.base import (
    CannotJudge,
    Judgement,
    LoadedClip,
    PartedReward,
    PartScores,
    PromptAnswers,
    checked,
    failed,
    not_a_video,
)
from rewards.judge.answers import (
    Ask,
    Probability,
    Reply,
    combine,
    kept,
    law_judgement,
    question_judgement,
    unconcerned,
    words_of,
    yes_or_no,
)
from rewards.judge.frames import Segment, segments
from rewards.judge.laws import by_file, concerns, said_laws
from rewards.judge.local import LocalBackend
from rewards.judge.prompt import question_text
from rewards.judge.rubric import Law, Question, load_rubric
from rewards.judge.served import VllmBackend
from rewards.judge.server import require_server
from rewards.judge.settings import (
    NAME,
    JudgeSettings,
    check_permitted,
    judge_parts,
    judge_version,
    part_name,
    prompt_version,
    recalibration_of,
)
from rewards.judge.whole import check_judge
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
        self.prompt_version = prompt_version(settings)
        self._asked = {part_name(asked): asked for asked in self.rubric.asked}
        self._words = words_of(self.rubric)
        self._said = said_laws(settings.laws, self.rubric)
        self._recalled: dict[str, Mapping[str, Judgement]] = {}
        backends: dict[str, type[VllmBackend | LocalBackend]] = {"vllm": VllmBackend, "local": LocalBackend}
        self._backend = backends[settings.backend](settings, self.rubric)

    def score_parts(self, wanted: Mapping[str, Sequence[LoadedClip]]) -> PartScores:
        """Judgements of the clips that each question, or law (by its part's name), is wanted of.

        `detail` of each: frame numbers seen, log-probabilities of the spellings, tokens of the prompt, who
        answered, and of several segments from when to when each is, in seconds; of a law also who said that
        it concerns the prompt (`concern`). A clip whose frames, prompt or request are at fault fails for
        good; one that the judge did not answer fails with `again`. A law that does not concern a prompt has
        no value, and says so.
        """
        clips = {clip.clip_id: clip for some in wanted.values() for clip in some}
        asked_of = {part: {clip.clip_id for clip in some} for part, some in wanted.items()}
        judgements: dict[str, dict[str, Judgement]] = {part: {} for part in wanted}
        laws = [part for part in wanted if isinstance(self._asked[part], Law)]
        concerned = self._concerns([clip for part in laws for clip in wanted[part]])
        asks: list[Ask] = []
        places: list[tuple[str, str, int]] = []
        # Clip by clip, and segment by segment: what stands together shares the server's caches.
        for clip_id, clip in clips.items():
            parts = [part for part in wanted if clip_id in asked_of[part]]
            try:
                found = self._segments(clip)
                texts = {part: _texts(self._asked[part], clip.prompt) for part in parts}
            except CannotJudge as error:
                judgements |= {part: {**judgements[part], clip_id: failed(str(error))} for part in parts}
                continue
            for part in set(parts).intersection(laws):
                settled = _settled(self._asked[part], concerned[clip.prompt][part])
                if settled is not None:
                    judgements[part][clip_id] = settled
                    del texts[part]
            for segment in found:
                for part in texts:
                    for place, text in enumerate(texts[part]):
                        asks.append(Ask(segment, text, self._words))
                        places.append((part, clip_id, place))
        replies = self._backend.ask(asks) if asks else []
        answers: dict[tuple[str, str], dict[int, list[tuple[Ask, Reply]]]] = {}
        for (part, clip_id, place), ask, reply in zip(places, asks, replies, strict=True):
            answers.setdefault((part, clip_id), {}).setdefault(place, []).append((ask, reply))
        for (part, clip_id), by_question in answers.items():
            asked, some = self._asked[part], [by_question[place] for place in sorted(by_question)]
            concern = concerned[clips[clip_id].prompt][part].detail if part in laws else None
            judgements[part][clip_id] = checked(self._judgement(asked, some, concern), self.range)
        return PartScores(judgements, self._backend.down)

    @property
    def network(self) -> str | None:
        """How the model computes; None: it was not asked yet."""
        return self._backend.network

    def ask_prompts(self, clips: Sequence[LoadedClip]) -> PromptAnswers:
        """Whether each law (by its part's name) concerns the prompts of clips: P(yes) of the judge.

        Only of prompts that no file of `settings.laws` says it of, and that were not recalled.
        """
        found: dict[str, dict[str, Judgement]] = {}
        asks: list[Ask] = []
        places: list[tuple[str, str]] = []
        words = yes_or_no(self.rubric.answer)
        for clip in clips:
            prompt = clip.prompt
            known = prompt in found or prompt in self._recalled
            if known or by_file(self._said, self.rubric, prompt) is not None:
                continue
            with suppress(CannotJudge):  # of frames without a clock, or a prompt with control tokens
                first = self._segments(clip)[0]
                texts = [question_text(law.concerns, prompt) for law in self.rubric.laws]
                found[prompt] = {}
                asks += [Ask(first, text, words, sees=False) for text in texts]
                places += [(prompt, part_name(law)) for law in self.rubric.laws]
        replies = self._backend.ask(asks) if asks else []
        for (prompt, part), reply in zip(places, replies, strict=True):
            found[prompt][part] = self._of_prompt(reply)
        return found

    def recall(self, answers: PromptAnswers) -> None:
        """Take these for its own answers about prompts, so that nobody asks again."""
        self._recalled.update(answers)

    def _of_prompt(self, reply: Reply) -> Judgement:
        if reply.probability is None:
            return failed(
                f"the judge does not say whether the law concerns the prompt: {reply.error}",
                again=reply.again,
            )
        detail = {"by": "judge", "judge": self._backend.identity, **kept(reply.probability)}
        return checked(Judgement(reply.probability.value, detail), self.range)

    def _concerns(self, clips: Sequence[LoadedClip]) -> Mapping[str, Mapping[str, Judgement]]:
        """Whether each law concerns the prompts of clips: by file, by what was recalled, or asked now."""
        prompts = dict.fromkeys(clip.prompt for clip in clips)
        found: dict[str, Mapping[str, Judgement]] = {**self.ask_prompts(clips)}
        for prompt in prompts:
            filed = by_file(self._said, self.rubric, prompt)
            if filed is not None:
                found[prompt] = {part_name(law): filed[law.id] for law in self.rubric.laws}
            elif prompt in self._recalled:
                found[prompt] = self._recalled[prompt]
        return found

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

    def _judgement(
        self,
        asked: Question | Law,
        answers: Sequence[Sequence[tuple[Ask, Reply]]],
        concern: Mapping[str, Any] | None,
    ) -> Judgement:
        """A part's judgement of one clip from what was answered: by question, and in it by segment."""
        seen = [ask for ask, _ in answers[0]]
        tokens = [[reply.tokens for _, reply in some] for some in answers]
        detail: dict[str, Any] = {
            "frames": [list(ask.segment.indices) for ask in seen],
            "prompt_tokens": tokens if isinstance(asked, Law) else tokens[0],
            "judge": self._backend.identity,
        }
        if concern is not None:
            detail["concern"] = dict(concern)
        if seen[1:]:
            detail["segments"] = [list(ask.segment.seconds or ()) for ask in seen]
        found: list[list[Probability]] = [[] for _ in answers]
        for place, some in enumerate(answers):
            for ask, reply in some:
                if reply.probability is None:
                    indices = ask.segment.indices
                    where = f"frames {indices[0]}-{indices[-1]}: " if seen[1:] else ""
                    again = any(one.again for each in answers for _, one in each)
                    return failed(f"{where}{reply.error}", detail, again)
                found[place].append(reply.probability)
        if isinstance(asked, Law):
            return law_judgement(self.rubric.frames, found, detail)
        return question_judgement(asked, self.rubric.frames, found[0], detail)


def _texts(asked: Question | Law, prompt: str) -> list[str]:
    """What is asked of a clip of this prompt. Raises CannotJudge."""
    texts = [asked.concerns, *asked.questions] if isinstance(asked, Law) else [asked.text]
    found = [question_text(text, prompt) for text in texts]
    return found[1:] if isinstance(asked, Law) else found


def _settled(law: Question | Law, concern: Judgement) -> Judgement | None:
    """A law's judgement of a clip of which nothing is asked; None: it concerns the prompt."""
    assert isinstance(law, Law)
    if concern.value is None:
        return failed(str(concern.error), again=concern.again)
    return None if concerns(concern) else unconcerned(law, {"concern": dict(concern.detail)})


def combine_parts(settings: JudgeSettings, category: str, parts: Mapping[str, Judgement]) -> Judgement:
    """The clip's value from its parts' judgements (by part's name); loads nothing. Raises ServiceError."""
    rubric = load_rubric(settings.rubric)
    answers = {one.id: parts[part_name(one)] for one in rubric.asked if part_name(one) in parts}
    return combine(rubric, category, answers, recalibration_of(settings, rubric))


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
    permitted=check_permitted,
    ready=require_server,
    whole=check_judge,
    threshold=lambda settings: load_rubric(settings.rubric).passes,
    is_probability=lambda settings: load_rubric(settings.rubric).gives_probabilities,
    network=lambda reward: reward.network,
)
