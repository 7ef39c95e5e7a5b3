"""Tasks: one cached, resumable unit of work each, and the runners that work through them.

    recipe parts + store -> fingerprints -> units -> runner -> manifests in the store

A stage is a list of units. A unit is a question (its key), a label and `run()`, which computes the answer and
commits it. Whoever runs units looks first whether the store holds the answers, whole; what is broken is
dropped and computed again, alone.

What comes in: `context.RoundContext`, plain data.
What goes out: manifests, and a small `StageResult` a stage.
Who calls: flows/. This room knows models, rewards and data; only `prefect_runner` knows Prefect.

Open first: `units` (what a unit is, the plain runner), then `stages` (the table of them). After that

    context         what a round is made of; models that stay loaded between units
    fingerprints    the question each unit asks, which is its key
    generate, score, curate, finetune, evaluate     a stage each, with its entry for the table (`stage_spec`)
    prefect_runner  the same units as Prefect task runs
    remake          a clip made again from its id
    rounds          the round's folder; `summary`: what it came to, typed; `campaign_record`: rounds in a row
"""

__all__ = ["context", "stages", "units"]
