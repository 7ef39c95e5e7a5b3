"""Questions as requests, and replies as answers, if the server did as it was asked.

A segment's questions travel together where the server can take them so (vLLM's /chat/completions/batch),
which saves it, and us, most of what a request costs beside the model; else one by one. `self_test` finds out
whether a server does what it is asked, or only answers.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from data.errors import ServiceError, UserError
from rewards.judge.answers import Ask, Fault, NoAnswer, Probability, Refused, Unanswered, Words, read_answer
from rewards.judge.frames import Timing, media_parts
from rewards.judge.processing import Processing, answer_ids
from rewards.judge.prompt import conversation
from rewards.judge.rubric import Rubric
from rewards.judge.settings import JudgeSettings, served_name
from rewards.judge.transport import Http

_CHAT = "/chat/completions"
_TOGETHER = "/chat/completions/batch"
_MOST_TOP_LOGPROBS = 20
# P(yes) of equal questions may differ by rounding on a GPU whose kernels depend on the batch.
SAME = 0.02
_MOST_NAMED = 8
_LONGEST_VERSION = 80
_LONGEST_TOKEN = 1000
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = 120


Answer = tuple[Probability, int]  # and the number of the prompt's tokens


class Requests:
    """Requests to one server about one model; safe to use from several threads.

    Raises:
        ServiceError: the server does not say how it spells yes and no, or has no single token for one.
    """

    def __init__(
        self, http: Http, settings: JudgeSettings, rubric: Rubric, processing: Processing | None
    ) -> None:
        self.http = http
        self._rubric = rubric
        self._processing = processing
        self._own = settings.api == "vllm"
        self.model = served_name(settings)
        self.ids = self._answer_ids() if self._own else {}
        """Spelling -> token id, of the spellings that are one token; empty for servers that are not vLLM."""
        self.together = False
        """Whether `ask_together` works: set by `try_together`."""

    def ask(self, ask: Ask, known: bool, timeout_s: float | None = None) -> Answer:
        """The answer to a question.

        Args:
            ask: the question.
            known: the server has its frames from an earlier request, so that their id may do.
            timeout_s: for this request, instead of the usual one.

        Raises:
            Refused, NoAnswer: asking again gives the same.
            Fault: the server did not do what it was asked.
        """

        def asked(with_data: bool, retries: int | None) -> Answer:
            messages = self._conversation(ask, with_data)
            reply = self.http.post(_CHAT, self._asked(ask) | {"messages": messages}, timeout_s, retries)
            expected = None if self._processing is None else self._tokens(self._processing, ask)
            tokens = self._check(reply, expected, ask, 1)
            return self._probability(_choices(reply, 1)[0], ask.words), tokens

        if known and self._own and ask.sees:
            try:
                return asked(False, 0)
            except (Refused, Fault):
                pass  # its cache may have let go of the frames: bring them along again
        return asked(True, None)

    def ask_together(self, asks: Sequence[Ask]) -> list[Answer | NoAnswer]:
        """`ask` for several questions about one segment in one request, tried once; an answer each, in order.

        Raises:
            Refused, Fault: there are no answers; of one question asked alone there may be.
        """
        assert self._processing is not None, "try_together has said no"
        first = asks[0]
        messages = [self._conversation(ask, place == 0) for place, ask in enumerate(asks)]
        reply = self.http.post(_TOGETHER, self._asked(first) | {"messages": messages}, retries=0)
        # The reply has the sum of the prompts' lengths: had one lost frames, the sum would be too small.
        lengths = [self._tokens(self._processing, ask) for ask in asks]
        self._check(reply, sum(lengths), first, len(asks))
        found: list[Answer | NoAnswer] = []
        for choice, length in zip(_choices(reply, len(asks)), lengths, strict=True):
            try:
                found.append((self._probability(choice, first.words), length))
            except NoAnswer as error:
                found.append(error)
        return found

    def try_together(self, ask: Ask, expected: Probability) -> None:
        """Find out whether the server takes questions together, and answers them as it does one alone.

        Without the checkpoint's processor they are asked one by one: the length of each prompt is not known.
        """
        if not self._own or self._processing is None:
            return
        try:
            first, *_ = self.ask_together([ask, _longer(ask)])
        except (Unanswered, UserError):  # an older vLLM, whose answer to a foreign address is 404
            return
        same = not isinstance(first, NoAnswer) and abs(first[0].value - expected.value) <= SAME
        self.together = same

    @staticmethod
    def _tokens(processing: Processing, ask: Ask) -> int:
        return processing.tokens(ask.segment if ask.sees else None, ask.text)

    def _conversation(self, ask: Ask, with_data: bool) -> list[dict[str, Any]]:
        if not ask.sees:
            return conversation(self._rubric.concern_system, [], ask.text)
        media = self._rubric.frames.media
        if self._own:
            parts = media_parts(ask.segment, media, self.http.near, remembered=True, with_data=with_data)
        else:
            parts = media_parts(ask.segment, media)
        return conversation(self._rubric.system, parts, ask.text)

    def _asked(self, ask: Ask) -> dict[str, Any]:
        """All of a request but its messages."""
        segment = ask.segment
        asked: dict[str, Any] = {
            "model": self.model,
            "max_completion_tokens": 1,
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": _MOST_TOP_LOGPROBS,
        }
        if self._own:
            # Ids, because different tokens may read the same, and the words asked for, however unlikely.
            ids = self._named(ask.words)
            asked |= {
                "top_logprobs": len(ids) + 1,
                "logprob_token_ids": list(ids.values()),
                "return_tokens_as_token_ids": True,
            }
            if (
                ask.sees
                and segment.timing is not None
                and (self._processing is None or self._processing.dated(segment.timing, segment.frames.shape))
            ):
                # Without it vLLM dates the frames at one a second. It takes it from nobody unless started
                # with --trust-request-mm-kwargs: it is said only where it means something.
                asked["media_io_kwargs"] = {"video": _clock(segment.timing)}
        return asked

    def _named(self, words: Words) -> dict[str, int]:
        """Spelling -> token id, of those of `words` that are one token."""
        return {spelling: self.ids[spelling] for spelling in words.spellings if spelling in self.ids}

    def _check(self, reply: dict[str, Any], expected: int | None, ask: Ask, asked: int) -> int:
        """The number of the prompts' tokens, if `asked` questions were answered in a token each."""
        if reply.get("model") != self.model:
            raise Fault(f"{self.model} was asked, and {_BRIEF.repr(reply.get('model'))} answers")
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        tokens = usage.get("prompt_tokens")
        if not isinstance(tokens, int) or isinstance(tokens, bool):
            raise Fault("the answer does not say how many tokens the prompt had (usage.prompt_tokens)")
        if expected is not None and tokens != expected:
            shown = f" with all {len(ask.segment.frames)} frames" if ask.sees else ""
            raise Fault(
                f"the prompt had {tokens} tokens on the server and has {expected}{shown}: it did not look at "
                "what it was sent"
            )
        if usage.get("completion_tokens") != asked:
            wanted = "one token was" if asked == 1 else f"{asked} tokens were"
            raise Fault(f"{wanted} asked for and {_BRIEF.repr(usage.get('completion_tokens'))} came")
        return tokens

    def _probability(self, choice: dict[str, Any], words: Words) -> Probability:
        try:
            first = choice["logprobs"]["content"][0]
            pairs = {_token(item["token"]): _logprob(item["logprob"]) for item in first["top_logprobs"]}
        except (KeyError, IndexError, TypeError, ValueError, OverflowError):
            raise Fault("the answer has no log-probabilities") from None
        # Servers that are not vLLM differ in whether a token keeps its leading space; the rubric names both.
        if self._own:
            named = {spelling: f"token_id:{token}" for spelling, token in self._named(words).items()}
            missing = [spelling for spelling, token in named.items() if token not in pairs]
            if missing:
                raise Fault(f"the log-probability of {missing[0]!r} was asked for and is not in the answer")
            pairs = {spelling: pairs[token] for spelling, token in named.items()}
        return read_answer(pairs, words)

    def _answer_ids(self) -> dict[str, int]:
        """Token ids of the answers by the served tokenizer."""
        root = self.http.root()

        def encode(spelling: str) -> Any:
            asked = {"model": self.model, "prompt": spelling, "add_special_tokens": False}
            try:
                tokens = root.post("/tokenize", asked).get("tokens")
                if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
                    raise Fault("no list of token ids")
                return tokens
            except (Unanswered, UserError) as error:
                raise ServiceError(
                    f"judge: {root.url}/tokenize does not answer as vLLM's ({error}). For a server of "
                    "another kind say judge.api: openai"
                ) from None

        return answer_ids(self._rubric, self.model, encode)


def _token(said: Any) -> str:
    """A JSON text as one, no longer than tokens are. Raises ValueError for anything else."""
    if not isinstance(said, str) or len(said) > _LONGEST_TOKEN:
        raise ValueError
    return said


def _logprob(said: Any) -> float:
    """A JSON number as one. Raises ValueError for anything else: `false` would be a probability of 1."""
    if type(said) not in (int, float):
        raise ValueError
    return float(said)


def _choices(reply: dict[str, Any], asked: int) -> list[dict[str, Any]]:
    """The answers of a reply to so many questions, in their order. Raises Fault."""
    found = reply.get("choices")
    if not isinstance(found, list) or len(found) != asked or not all(isinstance(one, dict) for one in found):
        raise Fault(f"{asked} questions were asked and not so many were answered: no log-probabilities")
    indices = [one.get("index") for one in found]
    if indices != list(range(asked)) or not all(type(index) is int for index in indices):
        raise Fault(f"the answers are numbered {_BRIEF.repr(indices)}, and not in the order of the questions")
    return found


def _clock(timing: Timing) -> dict[str, Any]:
    """vLLM's words for when the frames of a list are."""
    return {
        "num_frames": -1,
        "fps": timing.fps,
        "frames_indices": list(timing.indices),
        "total_num_frames": timing.length,
    }


def self_test(requests: Requests, settings: JudgeSettings, first: Ask) -> dict[str, str]:
    """Check, before the first clip counts, on synthetic frames that the server does what it is asked.

    The first request is also the warm-up: vLLM compiles at the first one that wants log-probabilities, which
    may take half a minute, and no clip's time-out should pay for it.

    Returns:
        What the server says of itself: "library", to be kept with each answer.

    Raises:
        ServiceError: it does not serve the model, or ignores the frames, the question, the log-probabilities
            or the length that it is asked for; or it does not answer at all.
    """
    http = requests.http
    about = {"library": _library(http, settings)}
    _check_served(http, requests.model)
    shape = first.segment.frames.shape
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    # How likely the words that may answer are at the sight of noise says nothing about the server.
    words = replace(first.words, min_mass=0.0)
    moving = replace(first, segment=replace(first.segment, frames=noise), words=words, sees=True)
    still = replace(moving, segment=replace(first.segment, frames=np.full(shape, 237, np.uint8)))
    try:
        one, tokens = requests.ask(moving, False, settings.start_timeout_s)
        again, _ = requests.ask(moving, True)
        other, _ = requests.ask(still, False)
        _, longer = requests.ask(_longer(moving), True)
        if not abs(one.value - again.value) <= SAME:
            raise Fault(
                f"the same question about the same frames gave {one.value:.4f} and {again.value:.4f}: it "
                "ignores the temperature, or mixes up ids of frames"
            )
        if one.logprobs == other.logprobs:
            raise Fault("noise and a blank picture get the very same answer: it does not look at the frames")
        if longer <= tokens:
            raise Fault("a longer question has no more tokens: it cuts prompts")
    except Unanswered as error:
        raise ServiceError(f"judge: {http.url} does not pass the self-test: {error}") from None
    requests.try_together(moving, one)
    return about


def _longer(ask: Ask) -> Ask:
    """Another question about the same, with more tokens."""
    return replace(ask, text=f"{ask.text} {ask.text}")


def _check_served(http: Http, model: str) -> None:
    try:
        listed = http.get("/models").get("data")
    except Unanswered as error:
        raise ServiceError(f"judge: {http.url} does not answer: {error}") from None
    served = [item.get("id") for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    if model not in served:
        known = ", ".join(map(_BRIEF.repr, served[:_MOST_NAMED])) or "nothing"
        raise ServiceError(f"judge: {http.url} does not serve {model!r} but {known}: set judge.served_name")


def _library(http: Http, settings: JudgeSettings) -> str:
    if settings.api != "vllm":
        return "OpenAI-compatible"
    # It is kept with every answer: what makes no sense is asked for again.
    for retries in (0, None):
        try:
            version = http.root().get("/version", retries)["version"]
            if len(version) < _LONGEST_VERSION and version.isprintable():
                return f"vllm {version}"
        except UserError:  # an address that only old and foreign servers lack; the chat request decides
            break
        except (Unanswered, KeyError, TypeError, AttributeError):
            pass
    return "vllm, version unknown"
