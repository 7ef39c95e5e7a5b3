"""The table of stages, and that everything that speaks of stages is made from it."""

from __future__ import annotations

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
