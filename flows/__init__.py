"""Flows: what a person triggers.

    vidloop round | Prefect UI -> recipe -> stage flows -> tasks -> summary, report, champion

What comes in: a recipe file, a store, settings changed by name.
What goes out: a round's folder with its `summary.json`, lines a newcomer can read, an exit code.
Who calls: the command line (`cli`) and Prefect's workers.

Open first: `recipe` (every setting), then `playing` (the walk through the five stages). After that

    recipe_file     YAML and --set, with errors that name the nearest key
    opening         recipe -> RoundContext: everything that is checked before any work
    round           the round as one Prefect flow of five stage flows; `plain_round`: without Prefect
    improving       rounds in a row: plan, play, record, stop; `series`: their record; `improve`: the flow
    nights          one more round a night, from champion to champion; `nightly`: the flow; `approval`: the
                    form of a person's word; `notifying`: the webhook; `gc_flow`: what may be removed
    studying/       a grid of feedbacks and objectives, each cell a round's last stages; `study`: the flow
    generate_videos, score_with_rewards, curate_dataset, offline_rl_finetune, evaluate_policy     a stage each
    forms           what a person may change in the Prefect UI; `planning`: what a round would run, in words
    serving/        `vidloop serve`: server, bootstrap, workers, and what can be wrong with them
    prefect_settings    how Prefect is set before it is imported
    cli, cli_*      the command line
    reporting/      the HTML report
"""
