"""The study: which feedback, with which objective, improves the model most? A grid of ordinary rounds.

    recipe    the grid as data: feedbacks, objectives with the settings to be tried, seeds, variants
    grid      its cells
    opening   a cell's RoundContext: the recipe's own, with what the cell changes
    cells     a cell played: curate, finetune, evaluate against one shared store; its rows
    best_of   best-of-n sampling, without training
    plans     what is done in which order: pools, tuning, cells, rounds in a row
    crew      worker processes, each with its models resident
    engine    plans and crew together: progress, time limit, failures
    facts     the rows read back, and what the report says of them

Nothing here knows Prefect.
"""
