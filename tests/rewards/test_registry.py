from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import UserError
from rewards import build_reward, reward_kind, reward_kinds, reward_settings, reward_version
from rewards.clip import ClipSettings
from rewards.flow import FlowSettings
from tests.doc_files import files_of
from tests.miniature_rewards import SETTINGS
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "torchvision",
    "open_clip",
    "transformers",
    "cv2",
    "av",
    "duckdb",
    "prefect",
    "matplotlib",
    "PIL",
    "httpcore",
)

# Those whose version is not of what a store holds.
KINDS = [name for name, kind in reward_kinds().items() if kind.held is None]
PINNED = {"revision": "0" * 40}
# Any text with a place for the clip's prompt does; a rubric has one.
ASKED = {**PINNED, "prompt": "rewards/judge/rubrics/general.yaml"}
MIXTURE = {"components": {"sharpness": {"worst": 0.0, "best": 1.0}}}


def settings_of(name: str, judge: Path) -> object:
    """Defaults, but for what they do not say: weights, of the judge random ones, commits of published models,
    what a mixture mixes."""
    own = {"judge": {"model": str(judge)}, "composite": MIXTURE, "hpsv2": PINNED, "videoscore": ASKED}
    return (SETTINGS | own).get(name, {})


def versions_in_another_process(cwd: Path, judge: Path) -> dict[str, str]:
    code = (
        "import json, sys; from rewards import reward_kinds, reward_version\n"
        f"settings = { ({name: settings_of(name, judge) for name in KINDS})!r}\n"
        "reward_kinds()\n"
        "versions = {name: reward_version(name, said) for name, said in settings.items()}\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print(json.dumps([versions, loaded]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=True
    )
    versions, loaded = json.loads(done.stdout)
    assert loaded == []
    return dict(versions)


def test_versions_are_the_same_in_every_process_and_folder_and_need_no_heavy_library(
    tmp_path: Path, tiny_vlm: Path
) -> None:
    here = {name: reward_version(name, settings_of(name, tiny_vlm)) for name in KINDS}
    assert len(set(here.values())) == len(KINDS)
    assert versions_in_another_process(tmp_path, tiny_vlm) == here


@pytest.mark.parametrize(
    "name", ["physics", "judge", "motion", "sharpness", "flicker", "clip", "flow", "composite"]
)
def test_a_built_reward_has_the_version_that_was_promised(name: str, tiny_vlm: Path) -> None:
    settings = settings_of(name, tiny_vlm)
    reward = build_reward(name, settings)
    assert reward.name == name
    assert reward.version == reward_version(name, settings)
    assert reward.range[0] < reward.range[1]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("clip", {"frames": 5}),
        ("clip", {"precision": "bf16"}),
        ("clip", {"model": "ViT-B-32"}),
        ("clip", {"model": "ViT-B-32", "pretrained": "openai"}),
        ("flow", {"stride": 3}),
        ("flow", {"pairs": 2}),
        ("flow", {"updates": 9}),
        ("flow", {"top": 0.1}),
        ("flow", {"short_side": 256}),
        ("flow", {"model": "raft_large"}),
        ("motion", {"stride": 1}),
        ("motion", {"pairs": 3}),
    ],
)
def test_a_setting_that_matters_changes_the_version(name: str, changed: dict[str, object]) -> None:
    own = SETTINGS.get(name, {})
    assert reward_version(name, own | changed) != reward_version(name, own)


@pytest.mark.parametrize("name", ["clip", "flow"])
def test_device_and_batch_size_do_not_change_the_version(name: str) -> None:
    own = SETTINGS[name]
    assert reward_version(name, own | {"device": "cpu", "batch_size": 3}) == reward_version(name, own)


@pytest.mark.parametrize(
    ("name", "file"), [("clip", "open_clip_model.safetensors"), ("flow", "model.safetensors")]
)
def test_the_version_follows_the_weights_and_not_their_place(name: str, file: str, tmp_path: Path) -> None:
    source = ROOT / SETTINGS[name]["model"]
    for part in source.iterdir():
        (tmp_path / part.name).write_bytes(part.read_bytes())
    assert reward_version(name, {"model": str(tmp_path)}) == reward_version(name, SETTINGS[name])
    (tmp_path / "CARD.md").write_text("reworded")
    assert reward_version(name, {"model": str(tmp_path)}) == reward_version(name, SETTINGS[name])
    weights = bytearray((tmp_path / file).read_bytes())
    weights[-1] ^= 1
    (tmp_path / file).write_bytes(weights)
    assert reward_version(name, {"model": str(tmp_path)}) != reward_version(name, SETTINGS[name])


def test_settings_come_as_a_model_mapping_or_not_at_all() -> None:
    assert reward_settings("flow", {"stride": 3}) == FlowSettings(stride=3)
    assert reward_settings("flow", FlowSettings(stride=3)) == FlowSettings(stride=3)
    assert reward_settings("flow") == FlowSettings()
    assert reward_settings("flow", {"top": 1}) == FlowSettings(top=1)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("phisics", None, "did you mean 'physics'"),
        ("clip", {"frame": 4}, "did you mean frames"),
        ("clip", {"frames": "4"}, "valid integer"),
        ("clip", {"frames": True}, "valid integer"),
        ("clip", {"frames": 0}, "greater than or equal to 1"),
        ("clip", {"precision": "int4"}, "fp32"),
        ("clip", ["frames"], "valid dictionary"),
        ("flow", {"stride": 0}, "stride"),
        ("flow", {"top": 0.0}, "top"),
        ("flow", {"short_side": 64}, "128"),
        ("motion", {"pairs": 0}, "pairs"),
        ("flow", ClipSettings(), "valid dictionary"),
    ],
)
def test_bad_settings_say_what_is_wrong(name: str, settings: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        reward_settings(name, settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("clip", {"model": "no-such-model"}),
        ("flow", {"model": "no-such-model"}),
        ("flow", {"model": "raft_small", "pretrained": "no-such-weights"}),
        ("flow", {"device": "gpu"}),
        ("clip", {"device": "abacus"}),
    ],
)
def test_what_cannot_be_loaded_is_bad_input(name: str, settings: dict[str, object]) -> None:
    with pytest.raises(UserError):
        build_reward(name, settings)


@pytest.mark.parametrize("name", ["clip", "flow"])
def test_a_missing_folder_has_no_version(name: str) -> None:
    with pytest.raises(UserError, match="no folder"):
        reward_version(name, {"model": "weights/of/nobody"})


@pytest.mark.parametrize("name", ["clip", "flow"])
def test_a_folder_without_safetensors_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="safetensors"):
        reward_version(name, {"model": str(tmp_path)})
    with pytest.raises(UserError, match="safetensors"):
        build_reward(name, {"model": str(tmp_path)})


@pytest.mark.parametrize(
    ("name", "file"), [("clip", "open_clip_model.safetensors"), ("flow", "model.safetensors")]
)
def test_a_damaged_folder_is_bad_input(name: str, file: str, tmp_path: Path) -> None:
    source = ROOT / SETTINGS[name]["model"]
    for part in source.iterdir():
        (tmp_path / part.name).write_bytes(part.read_bytes())
    (tmp_path / file).write_bytes(b"not safetensors at all")
    with pytest.raises(UserError, match=str(tmp_path)):
        build_reward(name, {"model": str(tmp_path)})


def other_package(folder: Path, entry: str, name: str) -> dict[str, str]:
    """A package on PYTHONPATH whose reward is the one of docs/add-a-reward.md under a name."""
    (folder / "lamp.py").write_text(
        files_of("docs/add-a-reward.md")["rewards/brightness.py"].replace(
            'name="brightness"', f'name="{name}"'
        )
    )
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "lamp"\n\n[project.entry-points."vidloop.rewards"]\n{entry} = "lamp:REWARD"\n'
    )
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}


def told(environment: dict[str, str], cwd: Path) -> str:
    code = "from rewards import reward_kinds, reward_version; print(reward_version('lamp', {'skip': 2}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_a_reward_of_another_package_has_the_same_rights(tmp_path: Path) -> None:
    environment = other_package(tmp_path, "lamp", "lamp")
    assert len(told(environment, tmp_path)) == 16
    code = (
        "from flows.config.load import load_recipe\n"
        "recipe = load_recipe('mini', ['rewards=[physics, lamp]', 'lamp.skip=3', 'feedback=lamp'])\n"
        "print(recipe.rewards['lamp'].skip, recipe.teacher)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["3", "lamp"]


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    said = told(other_package(tmp_path, "clip", "clip"), tmp_path)
    assert "two rewards are called 'clip': of rewards.clip and of" in said
    assert str(tmp_path) in said


def test_an_entry_point_bears_the_rewards_own_name(tmp_path: Path) -> None:
    said = told(other_package(tmp_path, "bright", "lamp"), tmp_path)
    assert "is a reward that calls itself 'lamp'" in said


def test_a_kind_that_lacks_something_is_an_error_when_it_is_made() -> None:
    known = reward_kind("motion")
    with pytest.raises(TypeError, match="is no name of a reward"):
        replace(known, name="Mo/tion")
