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


@pytest.mark.parametrize(
    "part", ["transformer/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"]
)
def test_one_changed_byte_is_another_base(wan_folder: Path, tmp_path: Path, part: str) -> None:
    copy = tmp_path / "changed"
    shutil.copytree(wan_folder, copy)
    data = bytearray((copy / part).read_bytes())
    data[-3] ^= 1
    (copy / part).write_bytes(data)
    assert policy.base_id(wan_folder) != policy.base_id(copy)


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
