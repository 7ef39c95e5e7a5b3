"""What a whole round's worth of units is read by: the question holds a digest of the list, table `inputs` the list."""

from __future__ import annotations

from pathlib import Path

import typer.testing

import flows.cli.round
from data.keys import digest
from data.lineage import parents
from data.policies import taught
from data.store import Manifest, Store
from flows.cli.app import app
from flows.config.load import load_recipe
from flows.config.resolve import open_round
from flows.reporting import build_report
from tasks import curate
from tests.tiny_round import HELDOUT, TRAIN, Tiny, summaries, write_prompts

COMMANDS = (flows.cli.round,)
LISTED = ("curate", "finetune", "evaluate")


def units(tiny: Tiny) -> tuple[Store, dict[str, Manifest]]:
    store, (summary,) = Store.open(tiny.store), summaries(tiny.store)
    found = {stage: store.manifest(summary["stages"][stage]["key"]) for stage in LISTED}
    return store, {stage: manifest for stage, manifest in found.items() if manifest is not None}


def test_a_question_holds_the_digest_of_a_list_and_its_unit_the_list(finished: Tiny) -> None:
    store, found = units(finished)
    for stage, manifest in found.items():
        assert manifest.parents == ()
        rows = store.read(manifest.key, "inputs")
        assert {row.unit for row in rows} == {manifest.key}
        assert all(store.manifest(row.key).digest == row.digest for row in rows)
        lists: dict[str, list[str]] = {}
        for row in rows:
            lists.setdefault(row.role, []).append(row.digest)
        said = manifest.question
        match stage:
            case "curate":
                asked = {"clips": said["clips"], "scores": said["scores"]}
            case "finetune":
                asked = {"clips": said["clips"]}
                assert lists.pop("curation") == [said["curation"]]
            case _:
                asked = {
                    f"{policy} {split} {what}": one
                    for policy, split, *both in said["inputs"]
                    for what, one in zip(("clips", "scores"), both, strict=True)
                }
        assert {role: digest(some) for role, some in lists.items()} == asked


def test_whoever_asks_what_a_unit_was_made_of_finds_it(copied: Tiny) -> None:
    store, found = units(copied)
    assert found["curate"].key in parents(store, found["finetune"])
    policy = store.read(found["finetune"].key, "policies")[0]
    assert taught(store, policy.policy_id)[policy.policy_id] == {text for text, _ in TRAIN[:2]}
    assert HELDOUT[0][0] in build_report(store).read_text()


def test_explain_names_the_units_that_differ(copied: Tiny, tmp_path: Path) -> None:
    store, found = units(copied)
    write_prompts(tmp_path / "train.jsonl", TRAIN[:1])
    fewer = f"generate.prompts={tmp_path / 'train.jsonl'}"
    asked = curate.unit(open_round(load_recipe(str(copied.recipe), [fewer]), store, "run"))
    done = typer.testing.CliRunner().invoke(app, ["explain", asked.key, *copied.args("--set", fewer)])
    assert done.exit_code == 0, done.output
    assert f"Nearest in the store: {found['curate'].key}" in done.output
    gone = [row for row in store.read(found["curate"].key, "inputs") if row.place == 1]
    assert [row.role for row in gone] == ["clips", "scores"]
    for row in gone:
        assert f"inputs, {row.role}[1]: nothing here, unit {row.key[:12]} there" in done.output
