"""One question as a request, and its reply as a probability, if the server did as it was asked."""

from __future__ import annotations

from typing import Any

from data.errors import BadInput
from rewards.judge.answers import Fault, Probability, p_yes
from rewards.judge.frames import Segment, Timing, media_parts, remembered_parts
from rewards.judge.processing import Processing, answer_ids
from rewards.judge.prompt import conversation
from rewards.judge.rubric import Rubric
from rewards.judge.settings import JudgeSettings, served_name
from rewards.judge.transport import Http, Refused

_CHAT = "/chat/completions"
_MOST_TOP_LOGPROBS = 20


class Requests:
    """Requests to one server about one model; safe to use from several threads.

    Raises:
        BadInput: the server does not say how it spells yes and no, or has no single token for one.
    """

    def __init__(
        self, http: Http, settings: JudgeSettings, rubric: Rubric, processing: Processing | None
    ) -> None:
        self._http = http
        self._rubric = rubric
        self._processing = processing
        self._own = settings.api == "vllm"
        self.model = served_name(settings)
        self._ids = self._answer_ids() if self._own else {}

    def ask(
        self,
        segment: Segment,
        text: str,
        known: bool,
        timeout_s: float | None = None,
        min_mass: float | None = None,
    ) -> tuple[Probability, int]:
        """P(yes) of a question about a segment, and the number of the prompt's tokens.

        Args:
            segment: the frames.
            text: the question.
            known: the server has these frames from an earlier request, so that their id may do.
            timeout_s: for this request, instead of the usual one.
            min_mass: instead of the rubric's.

        Raises:
            Refused, NoAnswer: asking again gives the same.
            Fault: the server did not do what it was asked.
        """
        mass = self._rubric.answer.min_mass if min_mass is None else min_mass
        if known and self._own:
            try:
                reply = self._http.post(_CHAT, self.body(segment, text, False), timeout_s, retries=0)
                return self._read(reply, segment, text, mass)
            except (Refused, Fault):
                pass  # its cache may have let go of the frames: bring them along again
        reply = self._http.post(_CHAT, self.body(segment, text, True), timeout_s)
        return self._read(reply, segment, text, mass)

    def body(self, segment: Segment, text: str, with_data: bool) -> dict[str, Any]:
        """The request's body."""
        parts = media_parts(segment, self._rubric.frames.media) if with_data or not self._own else []
        if self._own:
            kinds = parts or [{"type": kind, kind: None} for kind in self._kinds()]
            parts = remembered_parts(kinds, segment.media_id, with_data)
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": conversation(self._rubric.system, parts, text),
            "max_completion_tokens": 1,
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": _MOST_TOP_LOGPROBS,
        }
        if self._own:
            # Ids, because different tokens may read the same, and the words asked for, however unlikely.
            asked |= {
                "top_logprobs": len(self._ids) + 1,
                "logprob_token_ids": list(self._ids.values()),
                "return_tokens_as_token_ids": True,
            }
            if segment.timing is not None:
                # Without it vLLM dates the frames at one a second, and keeps 32 of them.
                asked["media_io_kwargs"] = {"video": _clock(segment.timing)}
        return asked

    def _kinds(self) -> list[str]:
        frames = self._rubric.frames
        return ["video_url"] if frames.media == "video" else ["image_url"] * frames.count

    def _read(
        self, reply: dict[str, Any], segment: Segment, text: str, min_mass: float
    ) -> tuple[Probability, int]:
        if reply.get("model") != self.model:
            raise Fault(f"{self.model} was asked, and {reply.get('model')!r} answers")
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        tokens = usage.get("prompt_tokens")
        if not isinstance(tokens, int) or isinstance(tokens, bool):
            raise Fault("the answer does not say how many tokens the prompt had (usage.prompt_tokens)")
        if self._processing is not None:
            expected = self._processing.tokens(segment, text)
            if tokens != expected:
                raise Fault(
                    f"the prompt had {tokens} tokens on the server and has {expected} with all "
                    f"{len(segment.frames)} frames: it did not look at what it was sent"
                )
        if usage.get("completion_tokens") != 1:
            raise Fault(f"one token was asked for and {usage.get('completion_tokens')} came")
        answer = self._rubric.answer
        found = p_yes(self._logprobs(reply), answer.positive, answer.negative, min_mass)
        return found, tokens

    def _logprobs(self, reply: dict[str, Any]) -> dict[str, float]:
        try:
            first = reply["choices"][0]["logprobs"]["content"][0]
            pairs = {str(item["token"]): float(item["logprob"]) for item in first["top_logprobs"]}
        except (KeyError, IndexError, TypeError, ValueError):
            raise Fault("the answer has no log-probabilities") from None
        if not self._own:
            # Servers differ in whether a token keeps its leading space; the rubric names both spellings.
            return pairs
        named = {spelling: f"token_id:{token}" for spelling, token in self._ids.items()}
        missing = [spelling for spelling, token in named.items() if token not in pairs]
        if missing:
            raise Fault(f"the log-probability of {missing[0]!r} was asked for and is not in the answer")
        return {spelling: pairs[token] for spelling, token in named.items()}

    def _answer_ids(self) -> dict[str, int]:
        """Token ids of the answers by the served tokenizer; of two spellings of one token, the first."""
        root = self._http.root()
        answer, ids = self._rubric.answer, dict[str, int]()
        for spelling in (*answer.positive, *answer.negative):
            asked = {"model": self.model, "prompt": spelling, "add_special_tokens": False}
            try:
                tokens = root.post("/tokenize", asked).get("tokens")
            except (Refused, Fault, BadInput) as error:
                raise BadInput(
                    f"judge: {root.url}/tokenize does not answer as vLLM's ({error}). For a server of "
                    "another kind say judge.api: openai"
                ) from None
            if isinstance(tokens, list) and len(tokens) == 1 and tokens[0] not in ids.values():
                ids[spelling] = int(tokens[0])
        return answer_ids(ids, self._rubric, self.model)


def _clock(timing: Timing) -> dict[str, Any]:
    """vLLM's words for when the frames of a list are."""
    return {
        "num_frames": -1,
        "fps": timing.fps,
        "frames_indices": list(timing.indices),
        "total_num_frames": timing.length,
    }
