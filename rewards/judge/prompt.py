"""The one prompt builder of both backends: rubric first, media next, question last.

What is common to all questions of a clip stands at the front, so that a server's prefix cache computes it
once; what differs stands at the end.
"""

from __future__ import annotations

from typing import Any

from rewards.base import CannotJudge
from rewards.judge.rubric import PROMPT, Frames

# Chat templates write control tokens like this; a prompt that holds one could end its own turn.
_CONTROL = ("<|", "|>")


def question_text(text: str, prompt: str) -> str:
    """A rubric's question about a clip of this prompt, or about the prompt.

    Raises:
        CannotJudge: the prompt holds what could be read as a control token of the chat template.
    """
    found = [mark for mark in _CONTROL if mark in prompt]
    if found and PROMPT in text:
        raise CannotJudge(f"the prompt holds {found[0]!r}, which chat templates read as a control token")
    return text.replace(PROMPT, " ".join(prompt.split()))


def conversation(system: str, media: list[dict[str, Any]], question: str) -> list[dict[str, Any]]:
    """Messages of one request.

    `media` are content parts: with data for a server, bare for a processor; none where a question is about a
    prompt alone.
    """
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": [*media, {"type": "text", "text": question}]},
    ]


def bare_media(frames: Frames) -> list[dict[str, Any]]:
    """Media parts without data, as transformers' chat templates take them."""
    if frames.media == "video":
        return [{"type": "video"}]
    return [{"type": "image"}] * frames.count
