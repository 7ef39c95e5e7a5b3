"""A changed key of training or of a reward is another question, or stands here with the reason why it is not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.config.load import load_recipe
from flows.config.resolve import finetune_settings
from models.training.settings import FinetuneSettings
from rewards import reward_kinds, reward_version
from tests.flows.config.test_every_key import another
from tests.rewards.test_registry import settings_of
from tests.tiny_vlm import tiny_vlm  # noqa: F401  (a fixture)

NETWORK = "where the same network runs, and in which portions"
SERVER = "how the same server is reached or started"
# Keys that the answer does not depend on, beyond rounding.
COSTS_ONLY: Mapping[str, str] = {
    "finetune.micro_batch": "the same sum over the batch, in portions",
    "finetune.gradient_checkpointing": "the same activations, kept or computed again",
    "finetune.memory_gb": "how many activations are kept",
    "finetune.compile": "the same network, compiled",
    "finetune.attention": "the same attention, by another kernel",
    "finetune.processes": "the same batch, shared out",
    "finetune.checkpoint_every": "how much is done again after a crash",
    **{f"{kind}.device": NETWORK for kind in ("clip", "flow", "hpsv2", "judge", "pickscore", "videoscore")},
    **{f"{kind}.batch_size": NETWORK for kind in ("clip", "flow", "hpsv2", "judge", "pickscore")},
    **{
        f"judge.{key}": SERVER
        for key in (
            "url", "served_name", "api_key_env", "ca_file", "api", "timeout_s", "concurrency", "retries", "breaker",
            "venv", "server_args", "early_start", "start_timeout_s", "gpu_memory_utilization", "max_model_len",
        )
    },
}  # fmt: skip
HUB = {"model": "hf-hub:someone/another"}
COMMIT = {"revision": "1" * 40}
# Where any other value of the type is not legal, or not alone: what is said before, and what then.
LEGAL: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "finetune.objective": ({}, {"objective": "sft"}),
    "finetune.reference_errors": (
        {"fixed_noise_samples": 4, "prompt_dropout": 0.0, "reference_errors": "inline"},
        {"reference_errors": "stored"},
    ),
    **{f"{kind}.device": ({}, {"device": "cuda:1"}) for kind in reward_kinds()},
    "clip.pretrained": ({"model": "ViT-B-32", "pretrained": "openai"}, {"pretrained": "laion2b_s34b_b79k"}),
    "flow.pretrained": ({"model": "raft_small"}, {"pretrained": "C_T_V2"}),
    "composite.components": ({}, {"components": {"sharpness": {"worst": 0.0, "best": 2.0}}}),
    "flow.short_side": ({}, {"short_side": 192}),
    "judge.url": ({}, {"url": "http://localhost:8000/v1"}),
    "judge.rubric": ({}, {"rubric": "miniature/rubrics/world.yaml"}),
    "judge.recalibration": ({}, {"recalibration": "tests/rewards/judge/lines.json"}),
    "judge.laws": ({"rubric": "rewards/judge/rubrics/physics.yaml"}, {"laws": ["real-train"]}),
    "judge.revision": (HUB, COMMIT),
    **{f"{kind}.model": ({}, HUB) for kind in ("judge", "hpsv2", "pickscore", "videoscore")},
    **{f"{kind}.revision": ({}, COMMIT) for kind in ("hpsv2", "pickscore", "videoscore")},
    "videoscore.prompt": ({}, {"prompt": "miniature/rubrics/world.yaml"}),
}
# Legal with a model of two networks alone: tests/tasks/test_experts.py.
EXPERTS = "finetune.expert"


def finetune_keys() -> Iterator[str]:
    yield from FinetuneSettings.model_fields


def reward_keys() -> Iterator[tuple[str, str]]:
    for name, kind in reward_kinds().items():
        # Of one whose values lie in a store the version is of these: tests/rewards/test_people.py.
        for key in kind.settings.model_fields if kind.held is None else ():
            yield name, key


@pytest.mark.parametrize("key", [key for key in finetune_keys() if f"finetune.{key}" != EXPERTS])
def test_a_changed_key_of_training_is_another_question(key: str) -> None:
    name = f"finetune.{key}"

    def asked(*trees: Mapping[str, Any]) -> FinetuneSettings:
        said = [
            f"finetune.{k}={v if isinstance(v, str) else json.dumps(v)}"
            for tree in trees
            for k, v in tree.items()
        ]
        return finetune_settings(load_recipe("recipes/mini.yaml", said))

    first, then = LEGAL.get(name, ({}, None))
    before = asked(first)
    if then is None:
        then = {key: yaml.safe_load(another(type(before).model_fields[key], getattr(before, key)))}
    different = before.fingerprint() != asked(first, then).fingerprint()
    assert different == (name not in COSTS_ONLY), COSTS_ONLY.get(name, f"{name} is accepted and dropped")


@pytest.mark.parametrize(("kind", "key"), reward_keys())
def test_a_changed_key_of_a_reward_is_another_version(kind: str, key: str, tiny_vlm: Path) -> None:
    name = f"{kind}.{key}"
    first, then = LEGAL.get(name, ({}, None))
    given = {**settings_of(kind, tiny_vlm), **first}  # type: ignore[dict-item]
    field = reward_kinds()[kind].settings.model_fields[key]
    if then is None:
        then = {key: yaml.safe_load(another(field, given.get(key, field.default)))}
    different = reward_version(kind, given) != reward_version(kind, {**given, **then})
    assert different == (name not in COSTS_ONLY), COSTS_ONLY.get(name, f"{name} is accepted and dropped")


def test_every_key_on_the_list_is_one() -> None:
    known = {f"finetune.{key}" for key in finetune_keys()} | {f"{kind}.{key}" for kind, key in reward_keys()}
    assert {*COSTS_ONLY, EXPERTS} <= known
