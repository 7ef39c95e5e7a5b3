"""Command `study`: which feedback, with which objective, improves the model most?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from data.store import Store
from flows.cli.app import answers, app
from flows.cli.options import (
    NOTHING_SET,
    DryOption,
    PlainOption,
    SetOption,
    StoreOption,
    prefect_ready,
)
from flows.reporting import console
from flows.reporting.messages import DEFAULT_STORE
from flows.rounds.dry_run import store_to_look_at
from tasks.round_ids import new_round_id

DEFAULT_STUDY = "recipes/study-mini.yaml"
NO_PARTS: list[str] = []

study_app = typer.Typer(
    help="A grid of feedbacks and objectives on shared clips and scores; `study report` writes it up.",
    invoke_without_command=True,
)
app.add_typer(study_app, name="study")

StudyOption = Annotated[str, typer.Option("--recipe", "-r", help="YAML file with the grid.")]
OnlyOption = Annotated[
    list[str],
    typer.Option(
        "--only", help="This part: main, in-a-row, noise, pairs, reference, category-heldout, draws; repeat."
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--max-minutes", min=0.01, help="Begin nothing later than this; the same command continues."
    ),
]


@study_app.callback()
@answers
def study_command(
    call: typer.Context,
    recipe: StudyOption = DEFAULT_STUDY,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = NOTHING_SET,
    only: OnlyOption = NO_PARTS,
    max_minutes: MinutesOption = None,
    plain: PlainOption = False,
    dry_run: DryOption = False,
) -> None:
    """Play the study, or what is left of it."""
    if call.invoked_subcommand is not None:
        return
    from studies.grid import parts
    from studies.recipe import load_study

    console.choose(console.to_console(Console()))
    study, chosen = load_study(recipe, set_), parts(only)
    if dry_run:
        from studies.messages import show

        with store_to_look_at(store) as looked_at:
            for line in show(study, looked_at, chosen):
                console.info(line)
        return
    opened = Store.open(store, create=True)
    if plain:
        from studies.engine import play
        from studies.messages import conclude

        conclude(play(study, opened, chosen, console.info, max_minutes), console.info)
        return
    with prefect_ready(opened, new_round_id(opened)):
        from studies.flow import study_flow

        study_flow(recipe=recipe, store=opened.url, overrides=set_, only=only, max_minutes=max_minutes)


@study_app.command("report")
@answers
def report_command(
    recipe: StudyOption = DEFAULT_STUDY,
    store: StoreOption = DEFAULT_STORE,
    set_: SetOption = NOTHING_SET,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of study.md and study.json.")] = "docs",
) -> None:
    """Write study.md, its plots and study.json from the rows in a store."""
    from studies.facts import Facts
    from studies.recipe import load_study
    from studies.report import write

    study = load_study(recipe, set_)
    for path in write(study, Facts(Store.open(store), study), Path(out)):
        print(path)
