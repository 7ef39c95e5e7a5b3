"""Sizes that a model does not take are refused by its configurations alone: no weights, no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.errors import UserError
from flows.config.load import load_recipe
from models.families.check_fit import check_fit
from models.families.settings import ModelSettings, SampleSettings

# What the published configurations say of sizes; what they leave out, diffusers' classes have defaults for.
PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "wan2.1-1.3b": {"vae": {"z_dim": 16}, "transformer": {"patch_size": [1, 2, 2]}},
    "wan2.2-ti2v-5b": {
        "vae": {"scale_factor_spatial": 16, "scale_factor_temporal": 4},
        "transformer": {"patch_size": [1, 2, 2]},
    },
    "wan2.2-t2v-a14b": {"vae": {"z_dim": 16}, "transformer": {"patch_size": [1, 2, 2]}},
    "cogvideox-2b": {
        "vae": {"block_out_channels": [128, 256, 256, 512], "temporal_compression_ratio": 4},
        "transformer": {"patch_size": 2, "max_text_seq_length": 226},
        "scheduler": {"_class_name": "CogVideoXDDIMScheduler"},
    },
    "ltx-video": {
        "vae": {"patch_size": 4, "patch_size_t": 1, "spatio_temporal_scaling": [True, True, True, False]},
        "transformer": {"patch_size": 1},
        "scheduler": {
            "_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0, "use_dynamic_shifting": True,
            "shift_terminal": 0.1,
        },
    },
}  # fmt: skip


def saved(folder: Path, name: str) -> tuple[ModelSettings, SampleSettings]:
    """The configurations of a published model, without weights, and its recipe's settings."""
    for part, config in PUBLISHED[name].items():
        (folder / part).mkdir(parents=True)
        file = "scheduler_config.json" if part == "scheduler" else "config.json"
        (folder / part / file).write_text(json.dumps(config))
    made = load_recipe(f"recipes/{name}.yaml")
    return ModelSettings(device="cpu", family=made.model.family, path=str(folder)), made.generate.as_part(
        SampleSettings
    )


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("wan2.1-1.3b", {"frames": 34}, r"frames is 34; this model needs 1 \+ a multiple of 4"),
        ("wan2.1-1.3b", {"height": 488}, "height is 488; this model needs a multiple of 16"),
        ("wan2.2-ti2v-5b", {"width": 848}, "width is 848; this model needs a multiple of 32"),
        ("wan2.2-t2v-a14b", {"frames": 16}, r"1 \+ a multiple of 4"),
        ("cogvideox-2b", {"frames": 53}, r"frames is 53; this model needs 1 \+ a multiple of 8"),
        ("cogvideox-2b", {"max_sequence_length": 512}, "is 512; this model was trained with 226"),
        ("cogvideox-2b", {"flow_shift": 3.0}, "flow_shift is set, but CogVideoXDDIMScheduler"),
        ("ltx-video", {"height": 464}, "height is 464; this model needs a multiple of 32"),
        ("ltx-video", {"steps": 1}, "schedule needs at least 2"),
        ("ltx-video", {"flow_shift": 3.0}, "no constant shift"),
    ],
)
def test_recipes_fit_their_published_models_and_what_is_off_is_told(
    tmp_path: Path, name: str, change: dict[str, Any], told: str
) -> None:
    model, settings = saved(tmp_path, name)
    check_fit(model, settings)
    with pytest.raises(UserError, match=told):
        check_fit(model, settings.changed(**change))


def test_the_configurations_of_a_hub_id_are_those_of_its_commit_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    commit = "a" * 40
    _, settings = saved(tmp_path / "models--own--wan" / "snapshots" / commit, "wan2.1-1.3b")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    off = settings.changed(frames=34)
    with pytest.raises(UserError, match="frames is 34"):
        check_fit(ModelSettings(device="cpu", family="wan", path="own/wan", revision=commit), off)
    check_fit(ModelSettings(device="cpu", family="wan", path="own/wan", revision=commit), settings)
    # not there: it is asked again when the model is fetched
    check_fit(ModelSettings(device="cpu", family="wan", path="own/wan", revision="b" * 40), off)


@pytest.mark.parametrize("text", ["{", "[]", '{"patch_size": 4}', '{"patch_size": [1, 2]}'])
def test_a_configuration_that_is_none_is_left_to_the_family_to_name(tmp_path: Path, text: str) -> None:
    model, settings = saved(tmp_path, "wan2.1-1.3b")
    (tmp_path / "transformer" / "config.json").write_text(text)
    check_fit(model, settings.changed(frames=34))


def test_asking_takes_no_torch() -> None:
    code = (
        "import sys; from models.families import family_names, get_family; import models.families.fit\n"
        "grids = [get_family(name).grid(lambda part: {}) for name in family_names()]\n"
        "print(bool(grids) and {'torch', 'diffusers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
