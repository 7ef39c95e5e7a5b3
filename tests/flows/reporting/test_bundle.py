"""The evidence of a round: one folder from which its verdict follows, without vidloop."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import typer.testing
import yaml

import flows.cli.store
from data.errors import ConfigError, StoreError
from data.store import Store, failpoints
from flows.cli.app import app
from flows.reporting.bundle import Options, outside, write_bundle
from tests.evidence import sums, verdict
from tests.tiny_round import HELDOUT, TRAIN, Tiny, play, tiny_settings, write_prompts

COMMANDS = (flows.cli.store,)
SECRET = "hunter2"
# Noise has more or less of sharpness, so that there is a gain with an interval; a judge is named, and not asked.
CHANGED: dict[str, dict[str, Any]] = {
    "rewards": {
        "physics": {}, "sharpness": {},
        "examiner": {
            "kind": "judge", "backend": "local", "model": "miniature/weights/judge",
            "rubric": "miniature/rubrics/world.yaml", "url": f"https://judge.example/{SECRET}/v1",
            "server_args": f"--api-key {SECRET}",
        },
    },
    "score": {"rewards": ["physics", "sharpness"]},
    "evaluate": {"clips": 8, "metric": "sharpness", "same_as_feedback": True, "guards": ["motion", "diversity", "flicker"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Tiny:
    """One round that the tests of this file look at and never change."""
    folder = tmp_path_factory.mktemp("evidence")
    write_prompts(folder / "train.jsonl", TRAIN)
    write_prompts(folder / "heldout.jsonl", HELDOUT)
    settings = tiny_settings(tiny_model, folder)
    for part, said in CHANGED.items():
        settings[part] = said if part == "rewards" else {**settings.get(part, {}), **said}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
    tiny = Tiny(folder, folder / "store")
    play(tiny)
    return tiny


@pytest.fixture(scope="module")
def evidence(played: Tiny) -> Path:
    return write_bundle(Store.open(played.store), None, played.folder / "evidence", Options(weights=True))


@pytest.fixture
def copy(evidence: Path, tmp_path: Path) -> Path:
    """The evidence somewhere else, to be tampered with."""
    return Path(shutil.copytree(evidence, tmp_path / "elsewhere"))


def gate(tiny: Tiny) -> dict[str, Any]:
    """What the gate found, as the stage committed it."""
    (manifest,) = Store.open(tiny.store).manifests("evaluate")
    return manifest.info


def assert_gives(found: dict[tuple[str, str], dict[str, Any]], said: dict[str, Any]) -> None:
    primary = said["primary"]
    gain = found[primary["metric"], "overall"]
    wanted = [primary[name] for name in ("before", "after", "delta", "ci_low", "ci_high", "prompts")]
    told = [gain[name] for name in ("before", "after", "value", "low", "high", "prompts")]
    assert told == pytest.approx(wanted, rel=1e-9)
    for name, guard in said["guards"].items():
        row = found[name, "overall"]
        told = [row[column] for column in ("before", "after", "value", "low", "high")]
        wanted = [guard[column] for column in ("before", "after", "ratio", "ci_low", "ci_high")]
        assert told == pytest.approx(wanted, rel=1e-9), name
        broken = {place for (metric, place), one in found.items() if metric == name and not one["holds"]}
        assert broken == set(guard["broken_in"])
    assert found["promoted", "all of these"]["holds"] == said["promoted"]


def test_the_digests_verify_and_name_every_file(evidence: Path) -> None:
    assert sums(evidence).returncode == 0, sums(evidence).stderr
    named = {line.split("  ", 1)[1] for line in (evidence / "SHA256SUMS").read_text().splitlines()}
    held = {path.relative_to(evidence).as_posix() for path in evidence.rglob("*") if path.is_file()}
    assert named == held - {"SHA256SUMS"}
    assert {
        "README.md", "recipe.yaml", "summary.json", "report.html", "verdict.sql", "versions.json", "clips/index.csv",
        "tables/clips.parquet", "tables/scores.parquet", "tables/evaluations.parquet", "tables/policies.parquet",
        "tables/prompts.parquet", "tables/examples.parquet", "tables/pairs.parquet", "tables/rubrics.parquet",
        "stages/generate.json", "stages/score.json", "stages/curate.json", "stages/finetune.json", "stages/evaluate.json",
    } <= named  # fmt: skip


@pytest.mark.parametrize("name", ["tables/evaluations.parquet", "report.html", "verdict.sql"])
def test_one_changed_byte_is_noticed(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    assert sums(copy).returncode != 0
    assert name in sums(copy).stdout


def test_the_documented_query_gives_the_verdict_from_the_rows_alone(copy: Path, played: Tiny) -> None:
    for path in copy.iterdir():
        if path.name not in ("tables", "verdict.sql"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = gate(played)
    assert said["primary"]["ci_low"] is not None
    assert_gives(verdict(copy), said)


def test_one_changed_row_changes_the_verdict(copy: Path, played: Tiny) -> None:
    path = copy / "tables/evaluations.parquet"
    table = pq.read_table(path)
    after = json.loads((copy / "summary.json").read_text())["policy_after"]
    chosen = pc.and_(pc.equal(table["metric"], "sharpness"), pc.equal(table["policy_id"], after))
    at = chosen.to_pylist().index(True)
    values = table["value"].to_pylist()
    values[at] *= 1.01
    where = table.schema.get_field_index("value")
    pq.write_table(table.set_column(where, "value", [values]), path)
    with pytest.raises(AssertionError):
        assert_gives(verdict(copy), gate(played))
    assert sums(copy).returncode != 0


def test_rows_of_a_prompt_that_is_gone_give_no_interval(copy: Path) -> None:
    path = copy / "tables/evaluations.parquet"
    table = pq.read_table(path)
    gone = table["prompt_id"][0].as_py()
    pq.write_table(table.filter(pc.not_equal(table["prompt_id"], gone)), path)
    found = verdict(copy)["sharpness", "overall"]
    assert (found["low"], found["high"], found["holds"]) == (None, None, False)


def test_rows_of_the_round_are_all_there(evidence: Path, played: Tiny) -> None:
    rows = {path.stem: pq.read_table(path).num_rows for path in (evidence / "tables").iterdir()}
    assert rows["clips"] == 9 + 2 * 8
    assert rows["prompts"] == len(TRAIN) + len(HELDOUT)
    assert rows["examples"] == 9
    assert rows["evaluations"] == 2 * (3 * 8 + 4)
    scores = pq.read_table(evidence / "tables/scores.parquet")
    assert Counter(scores["reward"].to_pylist()) == {
        "physics": 9,
        "sharpness": 25,
        "motion": 16,
        "flicker": 16,
    }


def test_videos_are_the_judged_files_and_nobody_chose_them(evidence: Path, played: Tiny) -> None:
    shas = set(pq.read_table(evidence / "tables/clips.parquet")["video_sha256"].to_pylist())
    videos = sorted((evidence / "clips").rglob("*.mp4"))
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in videos} <= shas
    lines = list(csv.DictReader((evidence / "clips/index.csv").open()))
    assert {line[side] for line in lines for side in ("before_file", "after_file")} == {
        path.relative_to(evidence).as_posix() for path in videos
    }
    means: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        means.setdefault(line["prompt_id"], []).append((float(line["before"]), float(line["after"])))
    assert {len(pairs) for pairs in means.values()} == {2}  # every seed of a prompt
    best = max(means, key=lambda prompt: sum(after for _, after in means[prompt]))
    worst = min(means, key=lambda prompt: sum(after for _, after in means[prompt]))
    why = {line["prompt_id"]: line["chosen_as"] for line in lines}
    assert "best" in why[best]
    assert "worst" in why[worst]


@pytest.mark.slow
def test_the_number_of_prompts_and_the_lot_are_options(played: Tiny, tmp_path: Path) -> None:
    def lot(count: int, seed: int) -> set[str]:
        folder = write_bundle(
            Store.open(played.store), None, tmp_path / f"{count}-{seed}", Options(count, seed)
        )
        lines = list(csv.DictReader((folder / "clips/index.csv").open()))
        return {line["prompt_id"] for line in lines if "by lot" in line["chosen_as"]}

    drawn = {seed: lot(1, seed) for seed in range(6)}
    assert all(len(one) == 1 for one in drawn.values())
    assert len(set.union(*drawn.values())) > 1
    assert lot(0, 0) == set()


def test_it_holds_no_secret_and_no_path_of_this_machine(
    evidence: Path, played: Tiny, tiny_model: Path
) -> None:
    hidden = [SECRET, "judge.example", str(played.folder), str(tiny_model.parent), str(Path.home()) + "/"]
    for path in evidence.rglob("*"):
        if path.is_file() and path.suffix != ".mp4":
            data = path.read_bytes()
            for word in hidden:
                assert word.encode() not in data, (path.name, word)
    for path in (evidence / "tables").iterdir():
        text = json.dumps(pq.read_table(path).to_pylist())
        assert not any(word in text for word in hidden), path.name
    recipe = yaml.safe_load((evidence / "recipe.yaml").read_text())
    assert recipe["model"]["path"] == tiny_model.name
    assert recipe["evaluate"]["prompts"] == "heldout.jsonl"
    assert recipe["rewards"]["examiner"]["rubric"] == "miniature/rubrics/world.yaml"
    assert "url" not in recipe["rewards"]["examiner"]
    assert socket.gethostname() not in (evidence / "versions.json").read_text()


def test_messages_lose_paths_and_addresses_and_nothing_else() -> None:
    said = outside.message(
        "cannot read /data/store/media/ab.mp4: no file; either/or; 3/4 of http://10.0.0.3:8000/v1"
    )
    assert said == "cannot read …/ab.mp4: no file; either/or; 3/4 of (an address)"
    assert outside.message("media/ab/abc.mp4 and </td></tr>") == "media/ab/abc.mp4 and </td></tr>"


def test_versions_and_kernels_are_those_of_the_run(evidence: Path) -> None:
    told = json.loads((evidence / "versions.json").read_text())
    (generated,) = told["stages"]["generate"]
    assert {"torch", "diffusers", "duckdb"} <= generated["versions"]["packages"].keys()
    assert generated["versions"]["attention"]
    assert generated["versions"]["torch"]["cpu_kernels"]
    assert told["settings"]["model.dtype"] == "float32"
    assert [one["clips"] for one in told["clips"]] == [25]
    assert "no run noted versions" in told["stages"]["curate"][0]["reason"]


def test_the_adapter_is_that_of_the_digest(evidence: Path, played: Tiny, tmp_path: Path) -> None:
    (policy,) = pq.read_table(evidence / "tables/policies.parquet").to_pylist()
    weights = evidence / f"weights/{policy['policy_id']}.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == policy["adapter_sha256"]
    assert policy["adapter_sha256"] in (evidence / "README.md").read_text()
    without = write_bundle(Store.open(played.store), None, tmp_path / "without")
    assert not (without / "weights").exists()


def test_the_same_round_gives_the_same_bytes(evidence: Path, played: Tiny, tmp_path: Path) -> None:
    again = write_bundle(Store.open(played.store), None, tmp_path / "again", Options(weights=True))
    assert (again / "SHA256SUMS").read_text() == (evidence / "SHA256SUMS").read_text()


def test_a_folder_with_something_in_it_is_refused(played: Tiny, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(ConfigError, match="not an empty folder"):
        write_bundle(Store.open(played.store), None, tmp_path)
    with pytest.raises(ConfigError, match="not an empty folder"):
        write_bundle(Store.open(played.store), None, tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("nth", [1, 20])
def test_a_full_disk_names_the_path_and_leaves_nothing(
    nth: int, played: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failpoints, "_passes", Counter())
    monkeypatch.setenv("VIDLOOP_FAILPOINT", f"bundle.after_file:{nth}")
    monkeypatch.setenv("VIDLOOP_FAILPOINT_ACTION", "enospc")
    with pytest.raises(StoreError, match=rf"disk full at {tmp_path}/evidence/\w+"):
        write_bundle(Store.open(played.store), None, tmp_path / "evidence")
    assert list(tmp_path.iterdir()) == []


def test_a_round_that_compared_nothing_has_no_claim(
    store: Store, tmp_path: Path, make_round: Callable[..., None]
) -> None:
    nothing = {"before": None, "after": None, "delta": None, "ci_low": None, "ci_high": None, "n": 0}
    make_round(store, "r2", policy_after=None, verdict="no training data", guards={}, stages={},
               primary={"metric": "physics", "reason": "no new policy"} | nothing)  # fmt: skip
    with pytest.raises(ConfigError, match=r"no new policy.*no claim"):
        write_bundle(store, None, tmp_path / "evidence")


def test_the_command_writes_it(played: Tiny, tmp_path: Path) -> None:
    arguments = ["report", "--store", str(played.store), "--bundle", str(tmp_path / "out"), "--prompts", "1"]
    done = typer.testing.CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "".join(done.output.split()) == str(tmp_path / "out")
    assert sums(tmp_path / "out").returncode == 0
