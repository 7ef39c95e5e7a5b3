"""The deployments of the stages in prefect.yaml, made from the table of stages: `make generated`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from flows.reporting.messages import DEFAULT_RECIPE, DEFAULT_STORE
from flows.rounds import stage_flows
from tasks.stages import STAGES

FILE: Final = Path(__file__).with_name("prefect.yaml")
MARK: Final = "  # From here on made from tasks/stages.py: `make generated`.\n"


def with_stages(text: str) -> str:
    """A prefect.yaml with the deployments of all stages at its end."""
    made = (
        f"  - name: {name}\n"
        f'    description: "Stage {number}. {stage.does}"\n'
        f"    entrypoint: {stage_flows.__name__}.{stage_flows.FLOWS[name].fn.__name__}\n"
        f"    parameters: {{recipe: {DEFAULT_RECIPE}, store: {DEFAULT_STORE}}}\n"
        "    work_pool: *people\n"
        for number, (name, stage) in enumerate(STAGES.items(), start=1)
    )
    return text.partition(MARK)[0] + MARK + "\n".join(made)


if __name__ == "__main__":
    FILE.write_text(with_stages(FILE.read_text("utf-8")), encoding="utf-8")
