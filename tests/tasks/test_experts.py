"""A model of two experts through whole rounds: each is trained where it is asked, and the policy has both adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load

from data.errors import UserError
from data.store import Store
from models.lora import FILE_NAME, read
from models.policy import base_id
from tasks.policies import find_policy
from tests.tiny_round import Tiny, build_tiny_wan, cached, play

BOUNDARY = 0.875


@pytest.fixture(scope="session")
def a14b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "a14b"
    build_tiny_wan(folder, BOUNDARY)
    return folder


@pytest.fixture
def options(a14b: Path) -> tuple[str, ...]:
    # six steps with shift 3: two of the first expert, four of the second
    return (
        "model.family=wan-experts", f"model.path={a14b}", "generate.steps=6", "generate.guidance_2=1.5",
        "finetune.steps=3", "finetune.lr=0.01",
    )  # fmt: skip


def trained(store: Store, summary: dict[str, Any]) -> Any:
    (policy,) = store.read(summary["stages"]["finetune"]["key"], "policies")
    return policy


@pytest.mark.slow
def test_a_round_trains_both_experts_and_plain_diffusers_plays_what_it_made(
    tiny: Tiny, a14b: Path, options: tuple[str, ...], tmp_path: Path
) -> None:
    summary = play(tiny, *options, "finetune.expert=both")
    store = Store.open(tiny.store)
    assert cached(summary)["finetune"] == (0, 2)
    low = trained(store, summary)
    assert summary["policy_after"] == low.policy_id
    policy = find_policy(store, low.policy_id, base_id(a14b))
    paths = dict(policy.experts)
    assert list(paths) == ["high", "low"]
    files = {name: store.read_media(path) for name, path in paths.items()}
    assert {name: read(data).facts["expert"] for name, data in files.items()} == {
        "high": "high",
        "low": "low",
    }
    # the policy between has the first adapter alone, and the last one descends from it
    between = find_policy(store, low.parents[0], base_id(a14b))
    assert between.experts == (("high", paths["high"]),)

    # a stored clip of the new policy, and the one that plain diffusers makes with both files
    clip = next(
        clip
        for unit in store.manifests("generate")
        for clip in store.read(unit.key, "clips")
        if clip.policy_id == low.policy_id and clip.row_in_batch == 0
    )
    held = load(store.read_media(clip.latent_path))
    plain = WanPipeline.from_pretrained(a14b)
    plain.set_progress_bar_config(disable=True)

    def made(**experts: bytes) -> torch.Tensor:
        plain.unload_lora_weights()
        for name, data in experts.items():
            # a folder each: what was loaded may still be mapped to its file
            (tmp_path / name).mkdir(exist_ok=True)
            if not (tmp_path / name / FILE_NAME).exists():
                (tmp_path / name / FILE_NAME).write_bytes(data)
            second = {"load_into_transformer_2": True} if name == "low" else {}
            plain.load_lora_weights(tmp_path / name, **second)
        latents: torch.Tensor = plain(
            clip.prompt, negative_prompt="", height=32, width=32, num_frames=9, num_inference_steps=6,
            guidance_scale=2.0, guidance_scale_2=1.5, max_sequence_length=16, output_type="latent",
            generator=torch.Generator().manual_seed(clip.seed),
        ).frames  # fmt: skip
        return latents[0]

    ours = held["latents"][clip.latent_row]
    apart = (made(**files) - ours).abs().max()
    assert apart < 1e-4, "merged or not, batched or alone"
    for name in files:
        without = {other: data for other, data in files.items() if other != name}
        assert (made(**without) - ours).abs().max() > 10 * apart, f"the {name} adapter changes nothing"


@pytest.mark.slow
def test_experts_share_what_was_trained_and_go_on_from_it(tiny: Tiny, options: tuple[str, ...]) -> None:
    stored = ("finetune.fixed_noise_samples=2", "finetune.reference_errors=stored", "finetune.objective=dpo")
    alone = play(tiny, *options, *stored, "finetune.expert=high")
    store = Store.open(tiny.store)
    both = play(tiny, *options, *stored, "finetune.expert=both")
    # three shards of errors and a training run an expert; those of the first are there
    assert cached(alone)["finetune"] == (0, 4)
    assert cached(both)["finetune"] == (4, 8)
    assert trained(store, both).parents == [alone["policy_after"]]
    rows = [row for unit in store.manifests("reference") for row in store.read(unit.key, "reference_errors")]
    names = {row.draws for row in rows}
    assert len(names) == 2
    levels = sorted((min(of), max(of)) for of in ([r.sigma for r in rows if r.draws == n] for n in names))
    assert levels[0][1] < BOUNDARY <= levels[1][0]
    assert {row.policy_id for row in rows} == {alone["policy_before"]}

    further = play(tiny, *options, f"policy={both['policy_after']}", "finetune.expert=low")
    further_key = further["stages"]["finetune"]["key"]
    policy = find_policy(store, further["policy_after"], trained(store, both).base_id)
    before = find_policy(store, both["policy_after"], trained(store, both).base_id)
    assert dict(policy.experts)["high"] == dict(before.experts)["high"]
    assert dict(policy.experts)["low"] != dict(before.experts)["low"]
    assert further["policy_before"] == both["policy_after"]
    # what was learned of low noise was measured there
    measured = json.loads(trained(store, further).settings)
    assert measured["expert"] == "low"
    assert measured["sigma_range"] == [0.0, BOUNDARY]
    counts = next(unit for unit in store.manifests("finetune") if unit.key == further_key).info
    assert max(counts["probe"]["sigmas"]) < BOUNDARY


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["model.family=wan-experts"], "has two experts: say finetune.expert"),
        (["finetune.expert=low"], "has one network: leave it out"),
        (["generate.guidance_2=2.0"], "has one network"),
        (["model.family=wan-experts", "finetune.expert=both", "generate.guidance=1.0",
          "generate.guidance_2=3.0"], "switches guidance off for both experts"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_refused_before_any_work(
    tiny: Tiny, given: list[str], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        play(tiny, *given)
    assert not list(tiny.store.glob("manifests/*"))


def test_the_family_must_be_that_of_the_folder(tiny: Tiny, a14b: Path) -> None:
    with pytest.raises(UserError, match=r"say model\.family: wan-experts"):
        play(tiny, f"model.path={a14b}")
    with pytest.raises(UserError, match="has no second expert"):
        play(tiny, "model.family=wan-experts", "finetune.expert=both")
