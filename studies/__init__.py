"""The study: which feedback, with which objective, improves the model most? A grid of ordinary rounds.

    recipe    the grid as data: feedbacks, objectives with the settings to be tried, seeds, variants
    grid      its cells
    contexts  a cell's RoundContext: the recipe's own, with what the cell changes
    cells     a cell played: curate, finetune, evaluate against one shared store; its rows
    best_of   best-of-n sampling, without training
    plans     what is done in which order: pools, tuning, cells, rounds in a row
    workers   worker processes, each with its models resident
    engine    plans and workers together: progress, time limit, failures
    facts     the rows read back, with intervals over seeds and prompts
    report    study.md (tables, charts, `page.md.j2`) and study.json (contract)
    cli, flow `vidloop study`, found by entry point, and the Prefect flow

A client of the library: it imports the five packages, and none of them imports it.
"""

__all__ = ["cli", "engine", "flow", "recipe"]
