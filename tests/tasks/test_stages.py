"""The table of stages, and that everything that speaks of stages is made from it."""

from __future__ import annotations

import subprocess
import sys

from prefect.flows import load_flow_from_entrypoint

from data.yaml_text import parse_yaml
from flows.cli import round as _commands  # noqa: F401  (importing it adds the commands)
from flows.cli.app import app
from flows.rounds.forms import FORMS
from flows.rounds.garbage import OURS
from flows.rounds.round import round_flow
from flows.rounds.stage_flows import FLOWS
from flows.serving import deployments
from tasks.fingerprints import VERSIONS
from tasks.stages import STAGES
from tests.tiny_round import ROOT


def test_names_people_know() -> None:
    assert {name: spec.flow for name, spec in STAGES.items()} == {
        "generate": "generate-videos",
        "score": "score-with-rewards",
        "curate": "curate-dataset",
        "finetune": "offline-rl-finetune",
        "evaluate": "evaluate",
    }


def test_the_deployments_are_those_that_the_table_makes() -> None:
    held = deployments.FILE.read_text("utf-8")
    assert held == deployments.with_stages(held), "`make generated` writes them anew"


def test_each_stage_is_a_flow_a_command_a_form_and_a_deployment() -> None:
    tree = parse_yaml((ROOT / "prefect.yaml").read_text("utf-8"), "prefect.yaml")
    assert isinstance(tree, dict)
    entrypoints = {one["name"]: one["entrypoint"] for one in tree["deployments"]}
    commands = {one.name for one in app.registered_commands}
    for name, spec in STAGES.items():
        assert name in commands
        assert FLOWS[name].name == spec.flow
        assert spec.flow in OURS
        assert spec.version == VERSIONS[name]
        assert load_flow_from_entrypoint(entrypoints[name]).name == spec.flow
        assert [*FLOWS[name].parameters.properties] == [
            "recipe", "store", "seed", "dry_run", name, "overrides"
        ]  # fmt: skip
        assert set(FORMS[name].recipe_keys.values()) == set(spec.form)
        assert name in round_flow.parameters.properties
    fields = round_flow.parameters.properties
    assert [*fields] == ["recipe", "store", "seed", "from_stage", "dry_run", *STAGES, "overrides"]
    assert fields["from_stage"]["enum"] == [*STAGES]


# A stage that somebody adds: its file's entry, and a line in the table. Nothing else knows of it beforehand.
SIXTH = """
from tasks import stages
from tasks.stage_spec import StageSpec

spec = StageSpec(
    name="export", flow="export-policy", version=1, title="the adapter as files", does="Write the adapter.",
    phases=lambda context: iter(()), form=("workers",), needs_device=False,
)
stages.STAGES = {**stages.STAGES, "export": spec}

from flows.cli import round
from flows.cli.app import app
from flows.reporting import console
from flows.rounds.garbage import OURS
from flows.rounds.round import round_flow
from flows.rounds.stage_flows import FLOWS, export_policy
from flows.serving.deployments import with_stages

assert FLOWS["export"] is export_policy
assert export_policy.parameters.definitions["ExportForm"]["properties"].keys() == {"workers"}
assert "export" in round_flow.parameters.properties
assert round_flow.parameters.properties["from_stage"]["enum"][-1] == "export"
assert "export" in [one.name for one in app.registered_commands]
assert "export-policy" in OURS
assert "entrypoint: flows.rounds.stage_flows.export_policy" in with_stages("")
lines = []
console.ProgressReporter(lines.append).on_stage_start("export")
assert lines == ["6/6 export: the adapter as files"]
"""


def test_a_stage_more_is_one_entry_of_the_table() -> None:
    done = subprocess.run([sys.executable, "-c", SIXTH], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
