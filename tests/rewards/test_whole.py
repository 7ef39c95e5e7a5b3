"""Rewards with networks: weights that do not fill them are refused before any work, by key and with a remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from data.errors import ModelError, UserError
from rewards import build_reward, reward_kind, reward_ref
from rewards.judge.server import ManagedServer
from rewards.judge.settings import JudgeSettings
from rewards.registry import reward_settings
from tests.miniature_rewards import CLIP, FLOW, JUDGE
from tests.rewards.test_preference import hpsv2_folder, pickscore_folder  # noqa: F401  (fixtures)
from tests.rewards.test_videoscore import folder as videoscore_folder  # noqa: F401  (a fixture)

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """A reward in a folder of its own.

    Attributes:
        name: of its kind.
        folder: with its weights.
        settings: beside the folder.
        file: its weights.
        depth: where its configuration says a number of layers.
    """

    name: str
    folder: Path
    settings: dict[str, Any]
    file: str = "model.safetensors"
    depth: tuple[str, ...] = ()

    def check(self) -> None:
        """As plan and rounds do: the version, then the headers."""
        ref = reward_ref(self.name, self.name, {**self.settings, "model": str(self.folder)})
        reward_kind(ref.kind).whole(ref.settings)

    @property
    def weights(self) -> Path:
        return self.folder / self.file

    def change(self, change: Callable[[dict[str, Any]], None]) -> None:
        tensors = load_file(self.weights)
        change(tensors)
        save_file(tensors, self.weights, metadata={"format": "pt"})


@pytest.fixture(params=["clip", "flow", "hpsv2", "pickscore", "videoscore", "judge"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    def copied(folder: str | Path) -> Path:
        return Path(shutil.copytree(ROOT / folder, tmp_path / "model"))

    cpu = {"device": "cpu"}
    if request.param == "clip":
        depth = ("open_clip_config.json", "model_cfg", "text_cfg", "layers")
        return Case("clip", copied(CLIP["model"]), cpu, "open_clip_model.safetensors", depth)
    if request.param == "flow":
        return Case("flow", copied(FLOW["model"]), cpu)
    if request.param == "judge":
        settings = {**JUDGE, "backend": "local", "device": "cpu"}
        return Case(
            "judge",
            copied(JUDGE["model"]),
            settings,
            depth=("config.json", "text_config", "num_hidden_layers"),
        )
    folder = copied(request.getfixturevalue(f"{request.param}_folder"))
    if request.param == "hpsv2":
        depth = ("open_clip_config.json", "model_cfg", "text_cfg", "layers")
        return Case("hpsv2", folder, cpu, depth=depth)
    return Case(request.param, folder, cpu, depth=("config.json", "text_config", "num_hidden_layers"))


def of_shape(tensors: dict[str, Any]) -> str:
    return [key for key in sorted(tensors) if key.endswith(".weight") and tensors[key].ndim > 1][-1]


def drop(tensors: dict[str, Any]) -> None:
    del tensors[of_shape(tensors)]


def add(tensors: dict[str, Any]) -> None:
    tensors["model.odd.weight"] = torch.zeros(2)


def reshape(tensors: dict[str, Any]) -> None:
    tensors[of_shape(tensors)] = torch.zeros(3, 5)


def scale(tensors: dict[str, Any]) -> None:
    key = of_shape(tensors)
    tensors[key] = tensors[key].to(torch.float8_e4m3fn)
    tensors[f"{key.removesuffix('weight')}scale_weight"] = torch.ones(1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop, "lack 1 key"), (add, r"no place for \(.*odd\.weight"), (reshape, r"is \[3, 5\], not \["),
        (scale, "float8 numbers with scales of their own"),
    ],
)  # fmt: skip
def test_weights_of_another_network_are_refused_before_any_work_and_at_load(
    case: Case, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    case.check()
    case.change(change)
    with pytest.raises(ModelError, match=told) as failure:
        case.check()
    assert str(failure.value).startswith(f"{case.name}: {case.folder}")
    if case.name != "judge":  # which is loaded at the first question
        with pytest.raises(UserError, match=told):
            build_reward(case.name, {**case.settings, "model": str(case.folder)})


@pytest.mark.parametrize(("more", "told"), [(1, "lack"), (-1, "no place for")])
def test_a_layer_too_many_or_too_few_is_refused(case: Case, more: int, told: str) -> None:
    if case.name == "flow":  # whose depths are those of its two architectures
        (case.folder / "config.json").write_text('{"architecture": "raft_large"}')
        with pytest.raises(ModelError, match=told):
            case.check()
        return
    file, *keys, last = case.depth
    said = json.loads((case.folder / file).read_text())
    inner = said
    for key in keys:
        inner = inner[key]
    inner[last] += more
    if "layer_types" in inner:  # one for each layer
        inner["layer_types"] = (inner["layer_types"] * 2)[: inner[last]]
    (case.folder / file).write_text(json.dumps(said))
    with pytest.raises(ModelError, match=told):
        case.check()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "was cut off or changed"),
        (lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\n"), "pointer of git-LFS"),
        (lambda file: file.rename(file.with_suffix(".bin")), "only safetensors is read"),
        (lambda file: file.unlink(), "holds no weights"),
    ],
)
def test_files_that_are_not_whole_are_refused(case: Case, change: Callable[[Path], Any], told: str) -> None:
    change(case.weights)
    with pytest.raises(UserError, match=told):
        case.check()


@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b"null", b'{"model_cfg": {"text_cfg": 3}}', b"[" * 5000, b"\xff"]
)
def test_a_configuration_of_another_shape_is_refused_in_words_by_whoever_reads_it(
    case: Case, content: bytes
) -> None:
    own = case.folder / "open_clip_config.json"
    (own if own.exists() else case.folder / "config.json").write_bytes(content)
    kind = reward_kind(case.name)
    settings = reward_settings(case.name, {**case.settings, "model": str(case.folder)})
    refused = set()
    for door in ("version", "whole", "text_limit"):
        try:
            (getattr(kind, door) or str)(settings)
        except ModelError:
            refused.add(door)
    assert refused & {"version", "whole"}


def test_what_no_loader_reads_makes_no_other_version(case: Case) -> None:
    """Litter, and weights of another precision, judge nothing."""

    def version() -> str:
        return reward_ref(case.name, case.name, {**case.settings, "model": str(case.folder)}).version

    before = version()
    for place in (".ipynb_checkpoints", ".cache/huggingface", "old", ".git"):
        (case.folder / place).mkdir(parents=True)
        (case.folder / place / "config.json").write_text("{}")
        shutil.copy(case.weights, case.folder / place)
    for name in ("notes.txt", "config (copy).json", "._config.json", ".tokenizer.json.swp"):
        (case.folder / name).write_text("{}")
    shutil.copy(case.weights, case.weights.with_suffix(".fp16.safetensors"))
    assert version() == before
    case.change(lambda tensors: tensors[of_shape(tensors)].add_(1))
    assert version() != before


def test_a_server_is_not_started_for_a_judge_that_is_not_whole(tmp_path: Path) -> None:
    python = tmp_path / "judge" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/false")
    folder = Path(shutil.copytree(ROOT / JUDGE["model"], tmp_path / "model"))
    settings = JudgeSettings(model=str(folder), backend="vllm", venv=str(tmp_path / "judge"))
    case = Case("judge", folder, {})
    case.change(drop)
    with pytest.raises(ModelError, match="lack 1 key"):
        ManagedServer(settings)
    # A model that transformers does not know is vLLM's to judge; its files must be whole all the same.
    (folder / "config.json").write_text('{"model_type": "of_vllm_alone", "architectures": ["OfVllmAlone"]}')
    reward_kind("judge").whole(settings)
    case.weights.write_bytes(case.weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match="was cut off"):
        reward_kind("judge").whole(settings)


def test_a_judge_without_words_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ROOT / JUDGE["model"], tmp_path / "model"))
    (folder / "tokenizer.json").unlink()
    settings = JudgeSettings(model=str(folder), backend="local", device="cpu")
    with pytest.raises(ModelError, match="holds no tokenizer's words"):
        reward_kind("judge").whole(settings)
