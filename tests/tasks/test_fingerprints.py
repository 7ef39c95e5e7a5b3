"""Stage keys of fixed settings. A key that changes makes every stored answer unreachable: raise the stage's version
in tasks/fingerprints.py when that is meant, and then write the new keys into golden_keys.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.curation import CurateSettings
from data.keys import digest
from data.outside import ConversionSettings, Source
from data.records import Prompt, prompt_id
from data.video import VideoSettings
from models.families.settings import ModelSettings, SampleSettings
from models.gate.settings import GateSettings
from models.training.settings import TrainSettings
from tasks import fingerprints
from tasks.context import BestOf, ClipJob, EvaluationPlan, Generation, PolicyRef, RewardRef
from tests.tiny_round import ROOT

GOLDEN = Path(__file__).parent / "golden_keys.json"

HOW = Generation(
    root="/somewhere/store",
    model=ModelSettings(family="wan", path="/somewhere/model", revision=None, dtype="float32", device="cpu"),
    sample=SampleSettings(steps=10, guidance=3.0, height=64, width=64, frames=17, max_sequence_length=16),
    video=VideoSettings(codec="libx264", crf=4, pix_fmt="yuv444p", preset="veryfast"),
    fps=8,
    batch_size=2,
)
POLICY = PolicyRef("m1", "local-1")
TEXT = "a red ball falls"
JOBS = [
    ClipJob(Prompt(prompt_id(TEXT), TEXT, "falling down", "fall", "train", "world"), seed) for seed in (1, 2)
]
REWARD = RewardRef("physics", "v1", None)
EVALUATE = EvaluationPlan(REWARD, ("motion",), (REWARD,), "heldout", (("heldout", tuple(JOBS)),))


def asked() -> dict[str, dict[str, Any]]:
    return {
        "generate": fingerprints.generate(HOW, POLICY, JOBS),
        "import": fingerprints.imported(
            "outside", ConversionSettings(fps=8.0), [(Source("a.mp4", "5" * 64), JOBS[0].prompt)]
        ),
        "encode": fingerprints.encode(HOW, "local-1", "d1"),
        "score": fingerprints.score(REWARD, "d1"),
        "best-of": fingerprints.best_of("b1", BestOf(2, REWARD), ["d1", "d2"], ["d3", "d4"]),
        "curate": fingerprints.curate(CurateSettings(feedback="physics"), REWARD, "d1", "d2"),
        "reference": fingerprints.reference(HOW.model, TrainSettings(fixed_noise_samples=4), POLICY, "d1"),
        "finetune": fingerprints.finetune(HOW.model, TrainSettings(), POLICY, "d3", "d1"),
        "evaluate": fingerprints.evaluate(
            POLICY,
            PolicyRef("m2", "local-1", "a", "b"),
            EVALUATE,
            GateSettings(),
            [["m1", "heldout", "d4", "d5"]],
        ),
    }


def found() -> dict[str, dict[str, Any]]:
    return {
        name: {"version": question["version"], "key": digest(question)} for name, question in asked().items()
    }


def test_keys_are_those_that_stores_hold() -> None:
    assert found() == json.loads(GOLDEN.read_text()), (
        "a stage's key changed: raise its version in tasks/fingerprints.py and write found() into golden_keys.json"
    )


def test_keys_are_the_same_in_every_process() -> None:
    code = "import json, tests.tasks.test_fingerprints as t; print(json.dumps(t.found()))"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout) == found()


@pytest.mark.parametrize(
    "change",
    [
        {"root": "/elsewhere"},
        {"model": HOW.model.changed(path="/elsewhere", device="cuda:1")},
    ],
)
def test_where_something_lies_and_runs_is_no_part_of_a_question(change: dict[str, Any]) -> None:
    assert fingerprints.generate(replace(HOW, **change), POLICY, JOBS) == asked()["generate"]


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 4},
        {"fps": 16},
        {"video": HOW.video.changed(crf=20)},
        {"sample": HOW.sample.changed(guidance=2.0)},
        {"model": HOW.model.changed(dtype="bfloat16")},
        {"model": HOW.model.changed(quantise="fp8-storage")},
        {"sample": HOW.sample.changed(guidance_2=2.0)},
    ],
)
def test_what_changes_pixels_changes_the_question(change: dict[str, Any]) -> None:
    assert digest(fingerprints.generate(replace(HOW, **change), POLICY, JOBS)) != digest(asked()["generate"])


def test_how_training_is_cut_into_pieces_is_no_part_of_its_question() -> None:
    pieces = TrainSettings(micro_batch=4, checkpoint_every=7, gradient_checkpointing=True)
    assert fingerprints.finetune(HOW.model, pieces, POLICY, "d3", "d1") == asked()["finetune"]
    other = TrainSettings(lr=1e-5)
    assert fingerprints.finetune(HOW.model, other, POLICY, "d3", "d1") != asked()["finetune"]


def test_experts_and_quantised_weights_are_other_questions_and_one_network_keeps_its_own() -> None:
    experts = [
        fingerprints.finetune(HOW.model, TrainSettings(expert=expert), POLICY, "d3", "d1")
        for expert in (None, "high", "low")
    ]
    assert len({digest(question) for question in experts}) == 3
    assert experts[0] == asked()["finetune"]
    # the range of noise levels is the expert's, and follows from the model
    ranged = TrainSettings(expert="high", sigma_range=(0.875, 1.0))
    assert fingerprints.finetune(HOW.model, ranged, POLICY, "d3", "d1") == experts[1]
    held = HOW.model.changed(quantise="fp8-storage")
    assert fingerprints.finetune(held, TrainSettings(), POLICY, "d3", "d1") != asked()["finetune"]
    tables = [
        digest(
            fingerprints.reference(model, TrainSettings(fixed_noise_samples=4, expert=expert), POLICY, "d1")
        )
        for model in (HOW.model, held)
        for expert in (None, "high", "low")
    ]
    assert len(set(tables)) == 6
    assert tables[0] == digest(asked()["reference"])


def test_reference_errors_know_of_no_objective_and_no_beta() -> None:
    other = TrainSettings(
        objective="kto", beta=1.0, fixed_noise_samples=4, lr=1.0, rank=1, kl=0.5, batch_size=3
    )
    assert fingerprints.reference(HOW.model, other, POLICY, "d1") == asked()["reference"]
    for change in (
        {"fixed_noise_samples": 5},
        {"seed": 1},
        {"shift": 3.0},
        {"timestep_sampling": "uniform"},
        {"logit_std": 2.0},
    ):
        settings = TrainSettings(fixed_noise_samples=4).changed(**change)
        assert fingerprints.reference(HOW.model, settings, POLICY, "d1") != asked()["reference"]


@pytest.mark.parametrize("change", [{"dtype": "bfloat16"}, {"quantise": "fp8-storage"}])
def test_where_an_adapter_was_once_rounded_away_the_question_is_a_new_one(change: dict[str, Any]) -> None:
    low, tuned = replace(HOW, model=HOW.model.changed(**change)), PolicyRef("m2", "local-1", "a", "b")
    settings = TrainSettings(fixed_noise_samples=4)
    for how, marked in ((low, True), (HOW, False)):
        assert ("adapter" in fingerprints.sampling(how, tuned)) is marked
        assert "adapter" not in fingerprints.sampling(how, POLICY), "there is none"
        assert ("adapter" in fingerprints.finetune(how.model, settings, POLICY, "d3", [])) is marked
        assert ("adapter" in fingerprints.reference(how.model, settings, tuned, "d1")) is marked
        assert "adapter" not in fingerprints.reference(how.model, settings, POLICY, "d1")
