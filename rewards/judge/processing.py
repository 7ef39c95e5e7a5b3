"""The model's own chat template, tokenizer and frame preprocessing, as transformers runs them.

The local backend feeds its model with it; the client of a server uses it to know how many tokens the server
must see if it looks at every frame.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.errors import ModelError
from rewards.judge.answers import words_of, yes_or_no
from rewards.judge.frames import Segment, Timing
from rewards.judge.prompt import bare_media, conversation
from rewards.judge.rubric import Rubric
from rewards.loading import opening

if TYPE_CHECKING:
    import torch


class Processing:
    """Chat template, tokenizer and processor of one checkpoint.

    Raises:
        ModelError: the folder or hub id holds no processor that transformers can load.
    """

    def __init__(self, model: str, revision: str, rubric: Rubric) -> None:
        from transformers import AutoProcessor

        self._rubric = rubric
        with opening("judge", model):
            self._processor: Any = AutoProcessor.from_pretrained(
                model, revision=revision or None, trust_remote_code=False
            )
        # Fast tokenizers keep state while they encode.
        self._lock = threading.Lock()

    @classmethod
    def of(cls, processor: Any, rubric: Rubric) -> Processing:
        """Around a processor that is loaded already."""
        found = cls.__new__(cls)
        found._processor, found._rubric, found._lock = processor, rubric, threading.Lock()
        return found

    def text(self, question: str, sees: bool = True) -> str:
        """The conversation about one segment, in the words of the chat template, up to the answer.

        sees: False: the one about a prompt, without media.
        """
        rubric = self._rubric
        if sees:
            messages = conversation(rubric.system, bare_media(rubric.frames), question)
        else:
            messages = conversation(rubric.concern_system, [], question)
        with self._lock:
            return str(
                self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            )

    def inputs(self, segments: Sequence[Segment], questions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Model inputs of a batch whose prompts have the same number of tokens: one question a segment.

        `questions` are as `rewards.judge.prompt.question_text` gives them. Without segments they are about
        prompts, by their text alone.
        """
        return self._inputs([(one.frames, one.timing) for one in segments], questions)

    def _inputs(
        self, seen: Sequence[tuple[NDArray[np.uint8], Timing | None]], questions: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        import torch

        texts = [self.text(question, sees=bool(seen)) for question in questions]
        with self._lock:
            if not seen:
                media: dict[str, Any] = {}
            elif self._rubric.frames.media == "video":
                videos = [torch.from_numpy(np.ascontiguousarray(one)).permute(0, 3, 1, 2) for one, _ in seen]
                media = {
                    "videos": videos,
                    "do_sample_frames": False,
                    "video_metadata": [_metadata(timing) for _, timing in seen],
                }
            else:
                from PIL import Image

                media = {"images": [Image.fromarray(frame) for one, _ in seen for frame in one]}
            found = self._processor(text=texts, return_tensors="pt", **media)
            return {name: torch.as_tensor(value) for name, value in found.items()}

    def tokens(self, segment: Segment | None, question: str) -> int:
        """Tokens of a prompt about a segment: its pixels do not matter, but its size and its times do.

        None: of one without media.
        """
        if segment is None:
            return self.text_tokens(question, sees=False)
        return self._media_tokens(segment.frames.shape, segment.timing) + self.text_tokens(question)

    # A prompt has several clips, and each is asked the same.
    @functools.lru_cache(maxsize=4096)  # noqa: B019  (one processor lives as long as the judge)
    def text_tokens(self, question: str, sees: bool = True) -> int:
        """Tokens of the conversation, each piece of media counted as one."""
        return len(self.encode(self.text(question, sees)))

    @functools.lru_cache(maxsize=64)  # noqa: B019  (one processor lives as long as the judge)
    def _media_tokens(self, shape: tuple[int, ...], timing: Timing | None) -> int:
        """How many tokens more than their place in the text the media take, time stamps included."""
        blank = np.zeros(shape, np.uint8)
        return len(self._inputs([(blank, timing)], ["?"])["input_ids"][0]) - self.text_tokens("?")

    @functools.lru_cache(maxsize=64)  # noqa: B019  (one processor lives as long as the judge)
    def dated(self, timing: Timing, shape: tuple[int, ...]) -> bool:
        """Whether the model is told when the frames are: Qwen2.5-VL and Qwen3-VL are, Qwen2-VL is not."""
        import torch

        blank = np.zeros(shape, np.uint8)
        faster = replace(timing, fps=7 * timing.fps)
        one, other = (self._inputs([(blank, when)], ["?"]) for when in (timing, faster))
        return any(not torch.equal(one[name], other[name]) for name in one)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without the special tokens that some tokenizers put around it."""
        with self._lock:
            ids: list[int] = self._processor.tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids


def single_tokens(spellings: Sequence[str], encode: Callable[[str], object]) -> dict[str, int]:
    """Spelling -> token id, of those that `encode` makes one token of; of two with the same, the first."""
    found: dict[str, int] = {}
    for spelling in spellings:
        ids = encode(spelling)
        if isinstance(ids, list) and len(ids) == 1 and ids[0] not in found.values():
            found[spelling] = int(ids[0])
    return found


def _metadata(timing: Timing | None) -> Any:
    """transformers' words for when the frames of a video are."""
    from transformers.video_utils import VideoMetadata

    assert timing is not None, "a video has a clock"
    # A copy for each: a processor may add to the indices what it adds to the frames.
    return VideoMetadata(
        total_num_frames=timing.length,
        fps=timing.fps,
        duration=timing.length / timing.fps,
        frames_indices=list(timing.indices),
    )


def answer_ids(rubric: Rubric, who: str, encode: Callable[[str], object]) -> dict[str, int]:
    """`single_tokens` of all words that may answer the rubric's questions.

    Raises:
        ModelError: `who`, the judge, cannot say one of the words in one token.
    """
    kinds = [words_of(rubric), *([yes_or_no(rubric.answer)] if rubric.laws and rubric.scale else [])]
    ids = single_tokens([spelling for words in kinds for spelling in words.spellings], encode)
    for name, (_, spellings) in (word for words in kinds for word in words.of.items()):
        if not any(spelling in ids for spelling in spellings):
            raise ModelError(
                f"judge: no spelling of {name} in rubric {rubric.name} ({', '.join(map(repr, spellings))}) "
                f"is one token of {who}: add the spelling with which the model begins its answer"
            )
    return ids
