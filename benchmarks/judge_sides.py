"""The two clients that `benchmarks.judge` compares, each over stored mp4 files and the rubric's questions."""

from __future__ import annotations

import base64
import io
import json
from collections import ChainMap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction

import httpx

from data.video import decode_mp4
from rewards.base import LoadedClip
from rewards.judge.answers import read_answer, yes_or_no
from rewards.judge.frames import segments
from rewards.judge.judge import JudgeReward
from rewards.judge.prompt import conversation, question_text
from rewards.judge.rubric import Rubric
from rewards.judge.settings import part_name

# P(yes) by (clip, question).
Answers = dict[tuple[str, str], float]


@dataclass(frozen=True)
class StoredClip:
    """A clip as the store has it: the mp4 file's bytes."""

    clip_id: str
    prompt: str
    mp4: bytes


def ask_ours(judge: JudgeReward, shard: int, workers: int, clips: Sequence[StoredClip]) -> Answers:
    """P(yes) of every question about every clip as a round asks: shards side by side, each decoded once.

    Raises RuntimeError for a clip that was not judged.
    """

    def ask(some: Sequence[StoredClip]) -> Answers:
        loaded = [LoadedClip(clip.clip_id, clip.prompt, *decode_mp4(clip.mp4)) for clip in some]
        scored = judge.score_parts({part.name: loaded for part in judge.parts})
        answers: Answers = {}
        for question in judge.rubric.questions:
            for clip_id, judgement in scored.judgements[part_name(question)].items():
                if judgement.value is None:
                    raise RuntimeError(f"{clip_id}, {question.id}: {judgement.error}")
                answers[clip_id, question.id] = judgement.detail["answers"][0]["p_yes"]
        return answers

    shards = [clips[start : start + shard] for start in range(0, len(clips), shard)]
    with ThreadPoolExecutor(workers) as pool:
        return dict(ChainMap(*pool.map(ask, shards)))


class PlainClient:
    """One request at a time over one kept connection, the mp4 with each question; the server decodes it.

    Same conversation, same questions, same log-probabilities asked for as by ours.

    Args:
        url, key: of the server, up to and with /v1.
        model: what it is called there.
        rubric: the questions.
        ids: spelling -> token id of the answers that count.
    """

    def __init__(self, url: str, key: str, model: str, rubric: Rubric, ids: Mapping[str, int]) -> None:
        self._model = model
        self._rubric = rubric
        self._ids = ids
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=120, trust_env=False
        )

    def ask(self, clips: Sequence[StoredClip]) -> Answers:
        """P(yes) of every question about every clip. Raises httpx.HTTPError, or Fault for a bad answer."""
        return {
            (clip.clip_id, question.id): self._one(clip.mp4, question_text(question.text, clip.prompt))
            for clip in clips
            for question in self._rubric.questions
        }

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _one(self, mp4: bytes, text: str) -> float:
        url = "data:video/mp4;base64," + base64.b64encode(mp4).decode("ascii")
        media = [{"type": "video_url", "video_url": {"url": url}}]
        reply = self._http.post(
            "/chat/completions",
            json={
                "model": self._model,
                "messages": conversation(self._rubric.system, media, text),
                "max_completion_tokens": 1,
                "temperature": 0.0,
                "logprobs": True,
                "top_logprobs": len(self._ids) + 1,
                "logprob_token_ids": list(self._ids.values()),
                "return_tokens_as_token_ids": True,
            },
        )
        reply.raise_for_status()
        (choice,) = json.loads(reply.content)["choices"]
        top = {item["token"]: item["logprob"] for item in choice["logprobs"]["content"][0]["top_logprobs"]}
        found = {spelling: top[f"token_id:{token}"] for spelling, token in self._ids.items()}
        return read_answer(found, yes_or_no(self._rubric.answer)).value


def judged_frames_only(clip: StoredClip, rubric: Rubric) -> StoredClip:
    """The same clip as an mp4 without loss (libx264rgb, crf 0) of the frames that our client sends."""
    import av

    frames, fps = decode_mp4(clip.mp4)
    (only,) = segments(LoadedClip(clip.clip_id, clip.prompt, frames, fps), rubric.frames)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264rgb", rate=Fraction(fps), options={"crf": "0"})
        stream.height, stream.width = only.frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in only.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return StoredClip(clip.clip_id, clip.prompt, buffer.getvalue())
