"""A finished store with a file of every kind, ways to damage one, and the commands that must live with it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import typer.testing
import yaml

import flows.cli.calibrate
import flows.cli.campaign
import flows.cli.round
import flows.cli.store
from data.store import Store, failpoints
from flows.cli.app import app
from tests.tiny_round import HELDOUT, TRAIN, Ended, Tiny, build_tiny_wan, tiny_settings, write_prompts

COMMANDS = (flows.cli.calibrate, flows.cli.campaign, flows.cli.round, flows.cli.store)
# What lies in a store, each kind by a pattern; of several files the first is taken.
KINDS: Final = {
    "format": "format.json",
    "manifest of generate": "manifests/generate/*.json",
    "manifest of score": "manifests/score/*.json",
    "manifest of curate": "manifests/curate/*.json",
    "manifest of finetune": "manifests/finetune/*.json",
    "manifest of evaluate": "manifests/evaluate/*.json",
    "inputs": "parts/*/*/*/inputs-*.parquet",
    "clips": "parts/generate/*/*/clips-*.parquet",
    "prompts": "parts/generate/*/*/prompts-*.parquet",
    "scores": "parts/score/*/*/scores-*.parquet",
    "examples": "parts/curate/*/*/examples-*.parquet",
    "pairs": "parts/curate/*/*/pairs-*.parquet",
    "policies": "parts/finetune/*/*/policies-*.parquet",
    "evaluations": "parts/evaluate/*/*/evaluations-*.parquet",
    "video": "media/*/*.mp4",
    "latents or adapter": "media/*/*.safetensors",
    "champion": "champion.json",
    "champion's copy": "champion.copy.json",
    "summary": "rounds/*/summary.json",
    "recipe": "rounds/*/recipe.json",
    "report": "rounds/*/report.html",
    "record": "improvements/*/summary.json",
    "record's copy": "improvements/*/summary.copy.json",
    "record's page": "improvements/*/report.html",
    "calibration": "calibrations/*.json",
    "calibration's page": "calibrations/*.html",
    "version of a reward": "rewards/*.json",
    "facts": "runs/*.jsonl",
    "checkpoint": "scratch/*/*.checkpoint",
    "lock": "locks/improve.lock",
    "log of what is aside": "aside/log.jsonl",
}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 0x80
    path.write_bytes(content)


def _replace(path: Path, place: Callable[[Path], object]) -> None:
    path.unlink()
    place(path)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("somebody's")


DAMAGES: Final[dict[str, Callable[[Path], object]]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "one bit flipped": _flip,
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"\x01"),
    "deleted": Path.unlink,
    "a folder": lambda path: _replace(path, _folder),
    "a link to outside": lambda path: _replace(path, lambda at: at.symlink_to(__file__)),
    "a link to nothing": lambda path: _replace(path, lambda at: at.symlink_to("/nowhere/at/all")),
    "other JSON": lambda path: path.write_text('{"a": [1]}'),
    "a text": lambda path: path.write_text("nothing of the kind\n"),
    "unreadable": lambda path: path.chmod(0),
}


def run(*args: str) -> Ended:
    """A command in this process; a round is always plain."""
    done = typer.testing.CliRunner().invoke(app, list(args))
    return Ended(done.exit_code, done.stdout, done.output)


def build(folder: Path) -> Tiny:
    """Play a round, one from its policy as the champion in a series, a calibration, and half a training."""
    build_tiny_wan(folder / "wan")
    write_prompts(folder / "train.jsonl", TRAIN[:2])
    write_prompts(folder / "heldout.jsonl", HELDOUT)
    said = tiny_settings(folder / "wan", folder)
    said["rewards"] = ["sharpness"]
    said["generate"] |= {"clips_per_prompt": 2, "batch_size": 1, "frames": 5}
    said["evaluate"] |= {"guards": ["diversity"], "metric": "sharpness", "same_as_feedback": True}
    said["finetune"] |= {"steps": 2, "checkpoint_every": 1, "batch_size": 2}
    said["improve"] = {"rounds": 1}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(said))
    tiny = Tiny(folder, folder / "store")
    expect(run("round", *tiny.args("--plain")))
    policy = ask(tiny, "SELECT policy_id FROM policies")[0]["policy_id"]
    expect(run("champion", "set", policy, "--store", str(tiny.store)))
    expect(run("improve", *tiny.args("--plain")))
    labels = folder / "labels.csv"
    clips = ask(tiny, "SELECT clip_id FROM clips ORDER BY clip_id")
    rows = [f"{row['clip_id']},{place % 2}" for place, row in enumerate(clips)]
    labels.write_text("\n".join(["clip_id,label", *rows]))
    asked = ("--reward", "sharpness", "--labels", str(labels), "--controls", "0")
    expect(run("calibrate", *tiny.args(*asked)))
    (tiny.store / "calibrations/sharpness.html").write_text("to be set aside")
    with pytest.MonkeyPatch.context() as patch:
        failpoints.reset()
        patch.setenv("VIDLOOP_FAILPOINT", "finetune.after_checkpoint")
        patch.setenv("VIDLOOP_FAILPOINT_ACTION", "raise")
        assert run("round", *tiny.args(*HALF)).code == 3
    failpoints.reset()
    Store.open(tiny.store).set_aside("calibrations/sharpness.html", "so that something is aside")
    expect(run("scrub", "--store", str(tiny.store)))
    return tiny


HALF: Final = ("--plain", "--set", "finetune.lr=2e-3")


def expect(ended: Ended) -> None:
    assert ended.code == 0, ended.err


def ask(tiny: Tiny, sql: str) -> list[dict[str, str]]:
    done = run("query", sql, "--format", "json", "--store", str(tiny.store))
    expect(done)
    found: list[dict[str, str]] = json.loads(done.out)
    return found
