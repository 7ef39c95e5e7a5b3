import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data.errors import UserError
from models import policy

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_local_base_is_its_content_not_its_place(wan_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(wan_folder, copy)
    assert policy.base_id(wan_folder) == policy.base_id(copy)
    (copy / "README.md").write_text("a card changes nothing")
    (copy / "card.json").write_text("{}")
    assert policy.base_id(wan_folder) == policy.base_id(copy)


def test_the_id_of_the_miniature_stays() -> None:
    """Stores that were begun with it hold its policies under this id."""
    assert policy.base_id("miniature/weights/wan") == "local-a7eb2e6610aeaeae30f0fcec60927fa9"
    assert policy.former_id("miniature/weights/wan") == "local-a7eb2e6610aeaeae30f0fcec60927fa9"


def test_what_no_loader_reads_is_no_part_of_a_model(wan_folder: Path, tmp_path: Path) -> None:
    """What editors, file managers, notebooks, git and downloads leave, and weights that are not loaded."""
    copy = Path(shutil.copytree(wan_folder, tmp_path / "model"))
    network = copy / "transformer"
    weights = network / "diffusion_pytorch_model.safetensors"
    for place in (copy, network):
        for litter in (".ipynb_checkpoints", ".git", ".cache/huggingface", "__MACOSX", "old"):
            (place / litter).mkdir(parents=True)
            for name in ("config.json", "model_index.json", "README.txt"):
                (place / litter / name).write_text("{}")
            shutil.copy(weights, place / litter)
    for name in (
        ".DS_Store", "._config.json", ".config.json.swp", "config.json~", "config.json.bak", "config (copy).json",
        "config-checkpoint.json", "README.md", "notes.txt", "sample.png", "Untitled.ipynb",
        "._diffusion_pytorch_model.safetensors",
    ):  # fmt: skip
        (network / name).write_text("{}")
    shutil.copy(weights, weights.with_suffix(".fp16.safetensors"))
    shutil.copy(weights, network / "lora.safetensors")
    (copy / "transformer_old").mkdir()
    shutil.copy(weights, copy / "transformer_old")
    assert policy.base_id(copy) == policy.base_id(wan_folder) == policy.former_id(wan_folder)
    assert policy.former_id(copy) != policy.base_id(copy)
    assert policy.former_id(tmp_path / "none") is None


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json",
        "text_encoder/config.json", "vae/diffusion_pytorch_model.safetensors",
        "transformer/diffusion_pytorch_model.safetensors",
    ],
)  # fmt: skip
def test_whatever_a_loader_reads_is_part_of_a_model(wan_folder: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(wan_folder, tmp_path / "model"))
    data = (copy / name).read_bytes()
    changed = data[:-1] + bytes([data[-1] ^ 1]) if name.endswith("safetensors") else data + b" "
    (copy / name).write_bytes(changed)
    assert policy.base_id(copy) != policy.base_id(wan_folder)


def test_a_hub_base_is_pinned_to_a_commit() -> None:
    assert policy.base_id("owner/name", COMMIT) == f"hub-owner/name@{COMMIT}"
    for moving in (None, "main", "v1.0", COMMIT[:12]):
        with pytest.raises(UserError, match="pinned commit"):
            policy.base_id("owner/name", moving)


def test_paths_that_are_no_model_are_refused(tmp_path: Path, wan_folder: Path) -> None:
    with pytest.raises(UserError, match=r"no model_index\.json"):
        policy.base_id(tmp_path)
    with pytest.raises(UserError, match="no model at"):
        policy.base_id(tmp_path / "missing")
    with pytest.raises(UserError, match="remove the revision"):
        policy.base_id(wan_folder, COMMIT)


def test_a_policy_is_its_base_its_parents_and_its_adapter() -> None:
    ids = {
        policy.policy_id("b"),
        policy.policy_id("c"),
        policy.policy_id("b", ["m1"], "aa"),
        policy.policy_id("b", ["m1"], "bb"),
        policy.policy_id("b", ["m2"], "aa"),
        policy.policy_id("b", ["m1", "m2"], "aa"),
    }
    assert len(ids) == 6
    assert policy.policy_id("b", ["m1"], "aa") == policy.policy_id("b", ("m1",), "aa")


def test_ids_and_settings_cost_no_torch() -> None:
    """A fully cached round needs only these."""
    light = "models, models.policy, models.training.settings, models.gate.verdict, models.families"
    script = f"import {light}, sys; print({{'torch', 'diffusers', 'peft', 'prefect', 'duckdb', 'av'}} & set(sys.modules))"
    told = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(policy.__file__).parents[1],
    ).stdout
    assert told.strip() == "set()"
