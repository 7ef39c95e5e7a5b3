"""Backend `local`: the model in this process, by transformers. For machines where no server can run."""

from __future__ import annotations

import importlib.metadata
import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from data.device import resolve_device
from data.networks import transformers_line
from rewards.judge.answers import Ask, Reply, Unanswered, read_answer
from rewards.judge.processing import Processing, answer_ids
from rewards.judge.rubric import Rubric
from rewards.judge.settings import JudgeSettings, model_path
from rewards.judge.whole import check_judge
from rewards.loading import opening


class LocalBackend:
    """Answers by the class's own forward pass; loaded at the first question.

    Batches hold prompts of one length, so that nothing is padded and an answer does not depend on its
    neighbours beyond rounding.
    """

    down = None

    def __init__(self, settings: JudgeSettings, rubric: Rubric) -> None:
        self._settings = settings
        self._rubric = rubric
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Processing, dict[str, int]] | None = None

    def prepare(self) -> None:
        """Nothing: the model takes this process's time and memory."""

    @property
    def identity(self) -> dict[str, str]:
        """Who answers, to be kept with each answer."""
        return {"backend": "local", "library": f"transformers {importlib.metadata.version('transformers')}"}

    @property
    def network(self) -> str | None:
        """How the model computes; None: it was not asked yet."""
        return transformers_line(self._loaded[0]) if self._loaded else None

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """One reply for each question, in order. RuntimeError: torch cannot compute one alone."""
        model, processing, ids = self._load()
        groups: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
        for place, ask in enumerate(asks):
            seen = ask.segment if ask.sees else None
            shape = ask.segment.frames.shape if ask.sees else ()
            groups[processing.tokens(seen, ask.text), shape].append(place)
        replies: dict[int, Reply] = {}
        for places in groups.values():
            for start in range(0, len(places), self._settings.batch_size):
                some = places[start : start + self._settings.batch_size]
                replies.update(zip(some, self._answer(model, processing, ids, asks, some), strict=True))
        return [replies[place] for place in range(len(asks))]

    def close(self) -> None:
        """Forget the model."""
        with self._lock:
            self._loaded = None

    def _answer(
        self,
        model: Any,
        processing: Processing,
        ids: dict[str, int],
        asks: Sequence[Ask],
        some: Sequence[int],
    ) -> list[Reply]:
        import torch

        inputs = processing.inputs(
            [asks[place].segment for place in some if asks[place].sees], [asks[place].text for place in some]
        )
        tokens = int(inputs["input_ids"].shape[1])
        try:
            with torch.inference_mode():
                on_device = {
                    # Pixels only: seconds a frame, which Qwen2.5-VL's positions follow, would be rounded.
                    name: value.to(model.device, model.dtype if name.startswith("pixel_values") else None)
                    for name, value in inputs.items()
                }
                logits = model(**on_device, logits_to_keep=1).logits[:, -1]
                rows = logits.float().log_softmax(-1)[:, list(ids.values())].cpu().tolist()
        except RuntimeError:  # torch.OutOfMemoryError is one; cuBLAS and the CPU's allocator raise it itself
            if len(some) == 1:
                raise
            rows = None
        if rows is None:  # outside the handler, so that the failed batch's memory is free
            middle = len(some) // 2
            return [
                reply
                for half in (some[:middle], some[middle:])
                for reply in self._answer(model, processing, ids, asks, half)
            ]
        return [
            _reply(asks[place], dict(zip(ids, row, strict=True)), tokens)
            for place, row in zip(some, rows, strict=True)
        ]

    def _load(self) -> tuple[Any, Processing, dict[str, int]]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._open()
            return self._loaded

    def _open(self) -> tuple[Any, Processing, dict[str, int]]:
        import torch
        from transformers import AutoModelForImageTextToText

        settings, path = self._settings, model_path(self._settings)
        device = resolve_device(settings.device)
        check_judge(settings)
        processing = Processing(path, settings.revision, self._rubric)
        with opening("judge", path):
            model: Any = AutoModelForImageTextToText.from_pretrained(
                path,
                revision=settings.revision or None,
                dtype=getattr(torch, settings.dtype),
                trust_remote_code=False,
                use_safetensors=True,
            )
        model.to(device).eval().requires_grad_(False)
        return model, processing, answer_ids(self._rubric, path, processing.encode)


def _reply(ask: Ask, logprobs: dict[str, float], tokens: int) -> Reply:
    try:
        found = read_answer(logprobs, ask.words)
    except Unanswered as error:
        # The same model in this process gives the same: asking again helps nobody.
        return Reply(None, str(error), tokens=tokens)
    return Reply(found, tokens=tokens)
