"""The shipped recipe, as a newcomer runs it: a whole round of the miniature, and what a second one costs.

The README states what a round gains, on three seeds; here one of them has to gain what is promised at least.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from data import champion
from data.store import Store
from tests.evidence import sums, verdict
from tests.tiny_round import ROOT, Ended, cached, summaries

ENVIRONMENT = Path(os.environ.get("VIDLOOP_JUDGE_VENV", ROOT / ".venv-judge")).absolute()
if not (ENVIRONMENT / "bin/python").exists():
    pytest.skip(f"no vLLM at {ENVIRONMENT}: `make judge`, or set VIDLOOP_JUDGE_VENV", allow_module_level=True)
SERVED = ["--set", f"judge.venv={ENVIRONMENT}"]


@pytest.mark.slow
def test_one_round_of_the_miniature(tmp_path: Path, vidloop: Callable[..., Ended]) -> None:
    store = tmp_path / "store"
    ended = vidloop("round", "--store", store, *SERVED, limit_s=3000)
    assert ended.code == 0, ended.err
    summary = summaries(store)[0]
    primary = summary["primary"]
    assert summary["feedback"] == "judge"
    assert summary["stages"]["score"]["failed"] == 0
    assert "was not calibrated" not in ended.out
    assert primary["n"] >= 400
    assert 0.25 <= primary["before"] <= 0.5
    assert primary["delta"] >= 0.34
    assert primary["ci_low"] > 0
    assert all(guard["ok"] for guard in summary["guards"].values())
    assert summary["promoted"]
    crowned = champion.read(Store.open(store))
    assert crowned is not None
    assert crowned.policy_id == summary["policy_after"]
    assert f"{primary['before']:.3f} to {primary['after']:.3f}" in ended.out
    assert (store / "rounds" / summary["round"] / "report.html").stat().st_size < 15e6

    # Others can check it: the digests hold, and the rows give the verdict.
    evidence = tmp_path / "evidence"
    ended = vidloop("report", "--store", store, "--bundle", evidence)
    assert ended.code == 0, ended.err
    assert sums(evidence).returncode == 0
    found = verdict(evidence)
    gain = found["physics", "overall"]
    told = [gain[name] for name in ("before", "after", "value", "low", "high")]
    assert told == pytest.approx(
        [primary[name] for name in ("before", "after", "delta", "ci_low", "ci_high")]
    )
    assert found["promoted", "all of these"]["holds"]
    for name, guard in summary["guards"].items():
        assert found[name, "overall"]["value"] == pytest.approx(guard["after"] / guard["before"]), name

    # Again: nothing is left to compute, and the verdict stands.
    ended = vidloop("round", "--plain", "--store", store, *SERVED)
    assert ended.code == 0, ended.err
    again = summaries(store)[1]
    assert all(found == all_ for found, all_ in cached(again).values())
    assert again["primary"] == primary

    # Clips and scores serve another objective.
    more = ["--set", "finetune.objective=sft", "--set", "finetune.steps=2", "--set", "evaluate.clips=16",
            "--set", "evaluate.also=[]"]  # fmt: skip
    ended = vidloop("round", "--plain", "--store", store, *SERVED, *more)
    assert ended.code == 0, ended.err
    found = cached(summaries(store)[2])
    assert found["generate"][0] == found["generate"][1]
    assert found["score"][0] == found["score"][1]
    assert found["finetune"] == (0, 1)
