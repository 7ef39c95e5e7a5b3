"""Training over several processes: the same result as in one, and no process left behind when one fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data.errors import StageFailed, UserError
from models import lora
from models.families.base import Family
from models.families.settings import ModelSettings
from models.training.distributed import ProcessGroup, check_devices, launch_processes
from models.training.launch_ddp import train_distributed
from models.training.reference import ErrorTable, measure
from models.training.settings import TrainSettings
from models.training.train_data import Clips, TrainData
from models.training.trainer import TrainJob, train

Tune = Callable[..., TrainSettings]


def test_a_group_deals_out_every_part_once() -> None:
    parts = list("abcdefg")
    dealt = [ProcessGroup(rank, 3).shard(parts) for rank in range(3)]
    assert sorted(part for share in dealt for part in share) == parts
    assert ProcessGroup().shard(parts) == parts


def test_a_group_may_have_nothing_to_agree_on() -> None:
    # sft and rwr log no worst case: their first step ended in an error where several processes trained
    ProcessGroup(0, 2).all_reduce([])


def test_more_processes_than_devices_is_refused() -> None:
    with pytest.raises(UserError, match=r"finetune\.processes asks for 99 GPUs.*shows"):
        check_devices(99)


def test_a_failing_process_ends_the_others_and_is_quoted(tmp_path: Path) -> None:
    program = tmp_path / "child.py"
    program.write_text(
        "import os, sys, time\n"
        "if os.environ['RANK'] == '1':\n"
        "    sys.exit('the second one broke')\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(StageFailed, match=r"process 1 ended with exit code 1(.|\n)*the second one broke"):
        launch_processes((str(program),), 2, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["dpo-anchor", "kto", "sft", "rwr-anchor", "nft"])
def test_two_processes_learn_what_one_learns(
    family: Family, model: ModelSettings, train_data: TrainData, tune: Tune, tmp_path: Path, objective: Any
) -> None:
    settings = tune(objective=objective, batch_size=6, micro_batch=2, fixed_noise_samples=3, steps=5)
    clips = Clips(*(getattr(train_data, name) for name in Clips.__dataclass_fields__))
    errors = measure(family.load_transformer(model), family, clips, settings, 4)
    table = ErrorTable(train_data.clip_ids, dict(zip(train_data.clip_ids, errors, strict=True)))
    one = train(
        family.load_transformer(model), family, TrainJob(train_data, settings, "b", reference_errors=table)
    )
    (tmp_path / "job").mkdir()
    told: list[dict[str, float]] = []
    two = train_distributed(
        model,
        TrainJob(
            train_data, settings.changed(processes=2), "b", tmp_path / "checkpoints", reference_errors=table
        ),
        tmp_path / "job",
        told.append,
    )
    assert told == two.curve
    assert len(list((tmp_path / "checkpoints").glob("step-*"))) == 1
    # Gradients are summed in another order. A reward is beta/2 = 100 times a difference of two errors of order
    # 1, and float32 knows those to 1.2e-7.
    for ours, theirs in zip(two.curve, one.curve, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=100 * 2 * 1.2e-7)
    left, right = (lora.read(run.adapter).tensors for run in (one, two))
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=1e-3, atol=1e-5)
    words = (tmp_path / "job" / "rank-1.log").read_text()
    assert not re.search("Traceback", words), words


@pytest.mark.slow
def test_pairs_of_segments_reach_every_process(
    family: Family, model: ModelSettings, train_data: TrainData, tune: Tune, tmp_path: Path
) -> None:
    settings = tune(objective="dpo", batch_size=4, micro_batch=2, steps=2)
    frames = torch.ones(len(train_data.pairs), train_data.latents.shape[2], dtype=torch.bool)
    frames[:, 0] = False
    by_segment = replace(train_data, pair_frames=frames)
    one = train(family.load_transformer(model), family, TrainJob(by_segment, settings, "b"))
    whole = train(family.load_transformer(model), family, TrainJob(train_data, settings, "b"))
    two = train_distributed(model, TrainJob(by_segment, settings.changed(processes=2), "b"), tmp_path)
    losses = [[entry["loss"] for entry in run.curve] for run in (one, two, whole)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2][1] != pytest.approx(losses[0][1], rel=1e-6)
