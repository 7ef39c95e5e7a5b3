"""Each ailment by its name, from the numbers that a run leaves; a healthy run has none."""

from pathlib import Path
from typing import Any

import pytest

from models.training.diagnosis import diagnose

SYMPTOMS = Path(__file__).resolve().parents[3] / "docs" / "symptoms.md"

HEALTHY: dict[str, Any] = {
    "units": 100,
    "epochs": 4.0,
    "effective_sample_size": 80.0,
    "last_quarter": {
        "gap/chosen": -0.002, "gap/rejected": 0.004, "error/chosen": 0.5, "error/rejected": 0.5, "displaced": 0.1,
        "rewards/accuracies": 0.8, "saturated": 0.0, "dead": 0.1, "logit/rms": 0.7,
    },
    "probe": {
        "sigmas": [0.1, 0.9],
        "clips": {"taught": 4, "avoided": 4, "held out": 4},
        "reference": {"taught": [1.0, 1.0], "avoided": [1.0, 1.0], "held out": [1.0, 1.0]},
        "policy": {"taught": [0.99, 0.99], "avoided": [1.01, 1.01], "held out": [1.0, 1.0]},
        "drift": {"taught": [0.001, 0.001], "avoided": [0.001, 0.001], "held out": [0.001, 0.001]},
    },
}  # fmt: skip

AILING: list[tuple[str, dict[str, Any], str]] = [
    ("likelihood displacement", {"last_quarter": {"gap/chosen": 0.05, "displaced": 0.9}}, "11.1% above"),
    ("wrong order", {"last_quarter": {"rewards/accuracies": 0.45}}, "Only 45%"),
    ("saturation", {"last_quarter": {"saturated": 0.8}}, "80% of the pairs"),
    ("dead pairs", {"last_quarter": {"dead": 0.9}}, "90% of the pairs"),
    ("effective sample size collapse", {"effective_sample_size": 3.0}, "worth 3.0 clips of 100"),
    ("learned by heart", {"probe": {"policy": {"held out": [1.0, 1.2]}}}, r"noise level 0.9 \(\+20.0%\)"),
    ("learned by heart", {"epochs": 400.0}, "seen 400 times"),
    ("drift from the reference", {"probe": {"drift": {"taught": [0.3, 0.3]}}}, "moved by 10%"),
]


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        name: merged(one.get(name, {}), value) if isinstance(value, dict) else value
        for name, value in {**one, **other}.items()
    } | {name: merged(value, other.get(name, {})) for name, value in one.items() if isinstance(value, dict)}


def test_a_healthy_run_has_no_ailment_and_its_numbers_are_told() -> None:
    found = diagnose(HEALTHY)
    assert [finding.name for finding in found] == ["", ""]
    assert (
        "chosen clips' error differs from the reference's by -0.40%, the rejected clips' by +0.81%"
        in found[0].text
    )
    assert "taught -1.0% (4 clips), avoided +1.0% (4 clips), held out +0.0% (4 clips)" in found[1].text
    assert "avoided +1.0% at 0.1, +1.0% at 0.9; held out +0.0% at 0.1" in found[1].text


@pytest.mark.parametrize(
    ("name", "change", "said"), AILING, ids=[f"{n} {i}" for i, (n, _, _) in enumerate(AILING)]
)
def test_an_ailment_is_named_with_its_number(name: str, change: dict[str, Any], said: str) -> None:
    named = {finding.name: finding.text for finding in diagnose(merged(HEALTHY, change)) if finding.name}
    assert list(named) == [name]
    import re

    assert re.search(said, named[name])


def test_every_ailment_has_its_row_of_advice() -> None:
    advised = SYMPTOMS.read_text()
    for name in {name for name, _, _ in AILING} | {"motion loss"}:
        assert f"| report: **{name}**" in advised


def test_what_was_not_measured_is_passed_over() -> None:
    assert diagnose({}) == ()
    assert diagnose({"last_quarter": {"loss": 1.0, "error": 0.5}, "units": 3, "epochs": 1.0}) == ()


def test_a_measured_beta_is_told_with_the_logit_it_reached() -> None:
    run = {
        "calibration": {"beta": 26.3, "target_spread": 1.0, "error_spread": 0.076},
        "last_quarter": {"logit/rms": 0.21},
    }
    (found,) = diagnose(run)
    assert "Beta 26.3 was measured for a spread of the logit of 1" in found.text
    assert "reached 0.21" in found.text
