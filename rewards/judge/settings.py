"""Settings of the judge, and what its scores' versions are digests of. Nothing here loads a model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from data.errors import ConfigError
from data.keys import digest, tree_digest
from rewards.base import Part
from rewards.judge.rubric import Question, Rubric, load_rubric
from rewards.loading import HUB, local_folder

NAME: Final = "judge"
# Environment variable: the address of a running server for every run that names none.
URL_VARIABLE: Final = "VIDLOOP_JUDGE_URL"
# Raise it when the same model, rubric and frames would give other values.
_CODE: Final = 2
# The chat template is a file of its own in newer checkpoints; cards may be reworded without a new version.
_CONTENT: Final = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True)
class JudgeSettings:
    """Who judges, and by which rubric.

    Attributes:
        backend: "vllm": an OpenAI-compatible server, started by the run if no `url` is given; "local":
            transformers in this process.
        model: a folder with a transformers checkpoint; or a hub id, "hf-hub:org/name".
        revision: of a hub id.
        rubric: YAML file with the questions.
        dtype: "float32", "bfloat16" or "float16". Part of the version, and so is the backend.

    None of the following is part of the version:
        url: of a server that is running, up to and with /v1; "": what VIDLOOP_JUDGE_URL says, and where
            that is empty too, the run starts one.
        served_name: what that server calls the model; "": `model` itself.
        key_env: environment variable that holds the server's key.
        ca_file: certificates (PEM) of who signed an https server's; "": the public authorities.
        api: "vllm", or "openai" for servers that know none of vLLM's own fields.
        timeout_s: for one request, all of it.
        concurrency: clips judged at the same time.
        retries: of a request that may pass: connection, time-out, 429, 5xx, a reply that makes no sense.
        breaker: so many questions in a row unanswered after their retries, and the judge counts as down.
        environment: folder of the virtual environment that has vLLM.
        server_args: more arguments for the server, as in a shell.
        early_start: a round starts a server of its own while it still generates clips, if that server is one
            for the CPU; on a GPU it would take memory that generation has.
        start_timeout_s: for the server to load the model and answer.
        gpu_share: share of the GPU's memory that the server may take.
        max_tokens: longest prompt, in tokens, that the server must take.
        device: of the local backend: "auto", "cpu", "cuda", "cuda:1".
        batch_size: questions in one forward pass of the local backend.
    """

    backend: str = "vllm"
    model: str = "miniature/weights/judge"
    revision: str = ""
    rubric: str = "miniature/rubrics/world.yaml"
    dtype: str = "float32"
    url: str = ""
    served_name: str = ""
    key_env: str = "VIDLOOP_JUDGE_KEY"
    ca_file: str = ""
    api: str = "vllm"
    timeout_s: float = 120.0
    concurrency: int = 8
    retries: int = 4
    breaker: int = 5
    environment: str = ".venv-judge"
    server_args: str = ""
    early_start: bool = True
    start_timeout_s: float = 600.0
    gpu_share: float = 0.3
    max_tokens: int = 2048
    device: str = "auto"
    batch_size: int = 16

    def __post_init__(self) -> None:
        for name, value, known in (
            ("backend", self.backend, ("vllm", "local")),
            ("dtype", self.dtype, ("float32", "bfloat16", "float16")),
            ("api", self.api, ("vllm", "openai")),
        ):
            if value not in known:
                raise ConfigError(f"judge.{name} is {value!r}: use one of {', '.join(known)}")
        if self.address and not self.address.startswith(("http://", "https://")):
            name = "judge.url" if self.url else URL_VARIABLE
            raise ConfigError(f"{name} is {self.address!r}: it must begin with http:// or https://")
        for name, least in (("concurrency", 1), ("retries", 0), ("breaker", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"judge.{name} is {getattr(self, name)}: it must be at least {least}")
        if self.timeout_s <= 0 or self.start_timeout_s <= 0:
            raise ConfigError("judge.timeout_s and judge.start_timeout_s must be greater than 0")

    @property
    def address(self) -> str:
        """Of a server that is running; "" if the run is to start one."""
        return self.url or os.environ.get(URL_VARIABLE, "")


def judge_version(settings: JudgeSettings) -> str:
    """Digest of the parts' versions and of how they combine. ConfigError for want of model or rubric."""
    rubric = load_rubric(settings.rubric)
    parts = [
        [part.version, question.weight]
        for part, question in zip(judge_parts(settings), rubric.questions, strict=True)
    ]
    names = [question.id for question in rubric.questions]
    return digest(["judge", _CODE, names, parts, rubric.combine, rubric.threshold])[:16]


def judge_parts(settings: JudgeSettings) -> tuple[Part, ...]:
    """The questions as parts of the reward, each with a version of its own. Raises as `judge_version`."""
    rubric = load_rubric(settings.rubric)
    model = model_identity(settings)
    return tuple(
        Part(
            part_name(question),
            digest(["judge-question", _CODE, model, settings.backend, _asked(rubric, question)])[:16],
            tuple(question.categories),
        )
        for question in rubric.questions
    )


def part_name(question: Question) -> str:
    """Value of column `reward` for one question's scores."""
    return f"{NAME}/{question.id}"


def model_identity(settings: JudgeSettings) -> dict[str, str]:
    """What names the model in a version: the content of a folder, or a hub id and its revision.

    Raises:
        ConfigError: the folder does not exist or holds no safetensors.
    """
    folder = local_folder(settings.model)
    if folder is not None:
        if not any(folder.rglob("*.safetensors")):
            raise ConfigError(f"{folder} holds no .safetensors file; other weight formats are not read")
        return {"content": tree_digest(folder, _CONTENT), "dtype": settings.dtype}
    if not settings.model.startswith(HUB):
        raise ConfigError(f"judge.model: there is no folder {settings.model}; for a hub id say {HUB}org/name")
    return {"name": settings.model.removeprefix(HUB), "revision": settings.revision, "dtype": settings.dtype}


def model_path(settings: JudgeSettings) -> str:
    """The model as transformers and vLLM take it: an absolute folder, or a hub id."""
    folder = local_folder(settings.model)
    return settings.model.removeprefix(HUB) if folder is None else str(folder.resolve())


def served_name(settings: JudgeSettings) -> str:
    """What the server calls the model. A server of our own is told a name that holds no path."""
    return settings.served_name or (model_path(settings) if settings.address else NAME)


def _asked(rubric: Rubric, question: Question) -> str:
    return rubric.question_digest(question)
