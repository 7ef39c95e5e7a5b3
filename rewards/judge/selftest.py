"""The self-test of a server: does it do what it is asked, or only answer? Run before the first clip counts.

Its first request is also the warm-up: vLLM compiles at the first one that wants log-probabilities, which may
take half a minute, and no clip's time-out should pay for it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from data.errors import ServiceError, UserError
from rewards.judge.answers import Ask, Fault, Unanswered
from rewards.judge.asking import SAME, Requests
from rewards.judge.settings import JudgeSettings
from rewards.judge.transport import Http


def self_test(requests: Requests, settings: JudgeSettings, first: Ask) -> dict[str, str]:
    """Check the server on synthetic frames of the shape that is to be judged.

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
    moving = replace(first.segment, frames=noise)
    still = replace(first.segment, frames=np.full(shape, 237, np.uint8))
    try:
        # How likely yes and no are at the sight of noise says nothing about the server.
        one, tokens = requests.ask(moving, first.text, False, settings.start_timeout_s, min_mass=0.0)
        again, _ = requests.ask(moving, first.text, True, min_mass=0.0)
        other, _ = requests.ask(still, first.text, False, min_mass=0.0)
        _, longer = requests.ask(moving, f"{first.text} {first.text}", True, min_mass=0.0)
        if not abs(one.yes - again.yes) <= SAME:
            raise Fault(
                f"the same question about the same frames gave P(yes) {one.yes:.4f} and {again.yes:.4f}: it "
                "ignores the temperature, or mixes up ids of frames"
            )
        if one.logprobs == other.logprobs:
            raise Fault("noise and a blank picture get the very same answer: it does not look at the frames")
        if longer <= tokens:
            raise Fault("a longer question has no more tokens: it cuts prompts")
    except Unanswered as error:
        raise ServiceError(f"judge: {http.url} does not pass the self-test: {error}") from None
    requests.try_together(moving, first.text, one)
    return about


def _check_served(http: Http, model: str) -> None:
    try:
        listed = http.get("/models").get("data")
    except Exception as error:
        if isinstance(error, UserError):
            raise
        raise ServiceError(f"judge: {http.url} does not answer: {error}") from None
    served = [item.get("id") for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    if model not in served:
        known = ", ".join(map(str, served)) or "nothing"
        raise ServiceError(f"judge: {http.url} does not serve {model!r} but {known}: set judge.served_name")


def _library(http: Http, settings: JudgeSettings) -> str:
    if settings.api != "vllm":
        return "OpenAI-compatible"
    try:
        return f"vllm {http.root().get('/version').get('version', 'unknown')}"
    except Exception:  # an address that only old and foreign servers lack; the chat request decides
        return "vllm, version unknown"
