"""A round from Python: the miniature learns from its judge, in this very process; some minutes on two cores.

python examples/play_a_round.py                                     the shipped recipe, store in ./store
python examples/play_a_round.py RECIPE STORE finetune.steps=20 ...   yours
"""

import sys

import vidloop


def main(recipe: str = "recipes/mini.yaml", store: str = "store", *overrides: str) -> None:
    """Play, and say what came of it."""
    settings = vidloop.load_recipe(recipe, overrides or ["judge.backend=local"])
    print(f"{settings.name}: {settings.feedback} teaches, {settings.evaluate.metric} examines")

    summary = vidloop.play_round(settings, store)
    primary = summary.primary
    print(summary.verdict)
    print(f"{primary.metric}: {primary.before} before, {primary.after} after, {primary.n} clips")
    print(f"Report: {vidloop.write_report(vidloop.open_store(store))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
