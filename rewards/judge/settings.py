"""Settings of the judge, and what its scores' versions are digests of. Nothing here loads a model."""

from __future__ import annotations

import os
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import field_validator

from data.errors import ConfigError
from data.keys import digest
from data.settings import Several, setting
from rewards.base import Part
from rewards.judge.laws import decided, said_laws
from rewards.judge.permitted import KEY_VARIABLE, URL_VARIABLE, check_key_variable, server_options
from rewards.judge.recalibration import Recalibration, load_recalibration
from rewards.judge.rubric import Law, Question, Rubric, load_rubric
from rewards.kind import NetworkSettings, version_of
from rewards.loading import HUB, folder_content, local_folder

NAME: Final = "judge"
_SCHEMES: Final = ("http://", "https://")
# Raise it when the same model, rubric and frames would give other values.
_CODE: Final = 2


class JudgeSettings(NetworkSettings):
    """The judge: a vision-language model's P(yes) to the questions of a rubric."""

    backend: Literal["vllm", "local"] = setting(
        "vllm", "Backend", "A vLLM server, or transformers in the run's process."
    )
    model: str = setting(
        "", "Model", "Folder with a transformers checkpoint, or a hub id: hf-hub:org/name. It must be said."
    )
    revision: str = setting("", "Revision", "Commit of a hub id.")
    rubric: str = setting(
        "rewards/judge/rubrics/general.yaml",
        "Rubric",
        "YAML file: questions, frames, how answers combine, threshold.",
        min_length=1,
    )
    recalibration: str = setting(
        "",
        "Recalibration",
        "File of `vidloop calibrate --fit`, by which P(yes) becomes what people said; empty: none.",
    )
    laws: Several[str] = setting(
        (),
        "Laws of prompts",
        "Prompt sets or files whose `laws` say which laws of the rubric concern each prompt. Of prompts that "
        "none of them names, the judge is asked by the text alone.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = setting(
        "float32", "Precision", "Of the model; part of the scores' version, as the backend is."
    )
    url: str = setting(
        "",
        "Address",
        f"Of a server that is running, up to and with /v1; empty: {URL_VARIABLE}, else the run starts one.",
        cost_only=True,
        private=True,
    )
    served_name: str = setting(
        "",
        "Served name",
        "What that server calls the model; empty: its path or id.",
        cost_only=True,
        private=True,
    )
    api_key_env: str = setting(
        KEY_VARIABLE,
        "Key",
        f"Environment variable with the server's key: {KEY_VARIABLE}, or one that begins {KEY_VARIABLE}_.",
        cost_only=True,
        formerly="key_env",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
    )
    ca_file: str = setting(
        "",
        "Authority",
        "PEM file of who signed an https server's certificate; empty: the public authorities.",
        cost_only=True,
        private=True,
    )
    api: Literal["vllm", "openai"] = setting(
        "vllm", "API", "openai for servers that know none of vLLM's own fields.", cost_only=True
    )
    timeout_s: float = setting(
        120.0, "Time-out", "Of a request, all of it.", unit="s", cost_only=True, gt=0.0
    )
    concurrency: int = setting(
        8, "Concurrency", "Clips judged at the same time.", cost_only=True, ge=1, le=1024
    )
    retries: int = setting(
        4, "Retries", "Of a request that failed and may pass.", cost_only=True, ge=0, le=20
    )
    breaker: int = setting(
        5,
        "Breaker",
        "Unanswered questions in a row after which the judge counts as down.",
        cost_only=True,
        ge=1,
    )
    venv: str = setting(
        ".venv-judge",
        "Environment",
        "Virtual environment that has vLLM (`make judge`).",
        cost_only=True,
        private=True,
        formerly="environment",
        min_length=1,
    )
    server_args: str = setting(
        "",
        "Server arguments",
        "More of vLLM's, as in a shell: those that decide about memory, speed and frames.",
        cost_only=True,
        private=True,
    )
    early_start: bool = setting(
        True,
        "Early start",
        "A server on the CPU starts while clips are still being generated; on a GPU it would take memory "
        "that generation has.",
        cost_only=True,
    )
    start_timeout_s: float = setting(
        600.0, "Start time-out", "For the server to load and answer.", unit="s", cost_only=True, gt=0.0
    )
    gpu_memory_utilization: float = setting(
        0.3,
        "GPU share",
        "Of its memory, for a server of the run.",
        cost_only=True,
        formerly="gpu_share",
        gt=0.0,
        lt=1.0,
    )
    max_model_len: int = setting(
        2048,
        "Longest prompt",
        "That the server must take.",
        unit="tokens",
        cost_only=True,
        formerly="max_tokens",
        ge=64,
    )
    batch_size: int = setting(
        16, "Batch size", "Questions a forward pass of the local backend.", cost_only=True, ge=1
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if url and (fault := _fault(url)):
            raise ValueError(fault)
        return url

    @property
    def address(self) -> str:
        """Of a server that is running; "" if the run is to start one. ConfigError: it is no address."""
        found = self.url or os.environ.get(URL_VARIABLE, "")
        if found and (fault := _fault(found)):
            raise ConfigError(f"{URL_VARIABLE} {fault}")
        return found

    @property
    def in_process(self) -> bool:
        """See `NetworkSettings.in_process`."""
        return self.backend == "local"

    @property
    def managed(self) -> bool:
        """Whether the run starts a server of its own."""
        return self.backend == "vllm" and not self.address


def _fault(url: str) -> str | None:
    """What is wrong with a server's address, without the address."""
    if not url.startswith(_SCHEMES):
        return "must begin with http:// or https://"
    try:
        user = urlsplit(url).username
    except ValueError:
        return "is no address"
    return None if user is None else "names a user: what the server wants to know is in judge.api_key_env"


def check_permitted(settings: JudgeSettings) -> None:
    """Raise ConfigError if the operator does not let a recipe send this key there, or start such a server."""
    if settings.managed:
        server_options(settings.server_args)
    elif not settings.in_process:
        check_key_variable(settings.api_key_env, settings.address)


def server_key(settings: JudgeSettings) -> str:
    """The key of a server that is running, without the blanks around it; "" if there is none.

    A key from a mounted secret or a file often ends in a line break. Raises ConfigError, which does not
    repeat the key: a recipe may not send it there, or it holds a character that no HTTP header can hold.
    """
    check_key_variable(settings.api_key_env, settings.address)
    key = os.environ.get(settings.api_key_env, "").strip()
    if not all(" " <= character <= "~" for character in key):
        raise ConfigError(
            f"judge: the key in {settings.api_key_env} holds a character that no HTTP header can hold, such "
            "as a line break or a letter that is not ASCII: set that environment variable anew"
        )
    return key


def judge_version(settings: JudgeSettings) -> str:
    """Digest of the parts' versions and of how they combine. ConfigError for want of model or rubric."""
    rubric = load_rubric(settings.rubric)
    parts = zip(judge_parts(settings), rubric.asked, strict=True)
    asked = [[one.id, part.version, one.weight] for part, one in parts]
    lines = recalibration_of(settings, rubric)
    mapped = [lines.digest] if settings.recalibration else []
    return digest(["judge", _CODE, asked, rubric.combine, rubric.passes, *mapped])[:16]


def recalibration_of(settings: JudgeSettings, rubric: Rubric) -> Recalibration:
    """The lines that the settings name. Raises ConfigError."""
    return load_recalibration(settings.recalibration, [one.id for one in rubric.questions])


def judge_parts(settings: JudgeSettings) -> tuple[Part, ...]:
    """Questions and laws as parts of the reward, each with a version of its own. Raises as `judge_version`.

    A law's version follows what the files of `settings.laws` say of it: which clips it is asked of.
    """
    rubric = load_rubric(settings.rubric)
    said = said_laws(settings.laws, rubric)

    def part(asked: Question | Law) -> Part:
        content = rubric.part_digest(asked)
        if isinstance(asked, Law):
            version = _version(settings, "judge-law", content, decided(said, asked))
            return Part(part_name(asked), version)
        return Part(part_name(asked), _version(settings, "judge-question", content), tuple(asked.categories))

    return tuple(map(part, rubric.asked))


def prompt_version(settings: JudgeSettings) -> str:
    """Digest of all that decides what is said of prompts by their text alone; "": nothing is asked."""
    rubric = load_rubric(settings.rubric)
    return _version(settings, "judge-prompts", rubric.concern_digest) if rubric.laws else ""


def _version(settings: JudgeSettings, name: str, *content: object) -> str:
    model = model_identity(settings)
    return version_of(
        name, _CODE, settings, [model, *content], "model", "revision", "rubric", "laws", "recalibration"
    )


def part_name(asked: Question | Law) -> str:
    """Value of column `reward` for the scores of one question, or law."""
    return f"{NAME}/{asked.id}"


def model_identity(settings: JudgeSettings) -> dict[str, str]:
    """What names the model in a version: the content of a folder, or a hub id and its revision.

    Raises:
        ConfigError: the folder does not exist or holds no safetensors.
    """
    if not settings.model:
        raise ConfigError(
            "judge.model: say which model judges: a folder with a transformers checkpoint, or a hub id "
            f"({HUB}org/name)"
        )
    # The chat template is a file of its own in newer checkpoints.
    content = folder_content(settings.model, "chat_template.jinja", "additional_chat_templates/*.jinja")
    if content is not None:
        return content
    if not settings.model.startswith(HUB):
        raise ConfigError(f"judge.model: there is no folder {settings.model}; for a hub id say {HUB}org/name")
    return {"name": settings.model.removeprefix(HUB), "revision": settings.revision}


def model_path(settings: JudgeSettings) -> str:
    """The model as transformers and vLLM take it: an absolute folder, or a hub id."""
    folder = local_folder(settings.model)
    return settings.model.removeprefix(HUB) if folder is None else str(folder.resolve())


def served_name(settings: JudgeSettings) -> str:
    """What the server calls the model. A server of our own is told a name that holds no path."""
    return settings.served_name or (model_path(settings) if settings.address else NAME)
