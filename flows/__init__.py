"""Flows: what a person triggers.

    vidloop round | Prefect UI -> recipe -> stage flows -> tasks -> summary, report, champion

What comes in: a recipe file, a store, settings changed by name.
What goes out: a round's folder with its `summary.json`, lines a newcomer can read, an exit code.
Who calls: the command line and Prefect's workers.

Five folders, each of which may import those below it:

    cli         the command `vidloop`
    serving     `vidloop serve`: server, bootstrap, workers, and what can be wrong with them
    rounds      the stages as flows, the round made of them, rounds in a row, nights, approval
    reporting   what people see: lines on the terminal, the HTML report, pages in Prefect's UI
    config      the recipe (every setting), how it is read, and how it becomes what the stages work with

Open first: `config.recipe`, then `rounds.run_round` (the walk through the stages).
"""

__all__ = ["cli", "config", "reporting", "rounds", "serving"]
