"""Best of N without training against one round, and a round with best of N: who gets how far, at what cost.

    python -m benchmarks.best_of --store FOLDER         plays the rounds, writes results/best-of.json
    python -m benchmarks.best_of --page docs/best-of.md     the table of that file, into the page's markers
    python -m benchmarks.best_of --study docs/study.json --page docs/best-of.md    the same of a study's cells

The rounds are the miniature's, as `make round` plays them, a round a seed; the judge chooses and teaches, the
oracle examines. What the store holds is not computed again, so a run that was ended goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.harness import RESULTS, command_line, device_name, versions, write_json
from data.store import Store
from flows.config.load import load_recipe
from flows.config.recipe import Recipe
from flows.config.resolve import finetune_settings
from models.gate.intervals import mean
from models.gate.verdict import pair_up
from models.training.settings import TrainSettings
from tasks.jobs import training_prompts
from tasks.summary import BaselineFinding, RoundSummary
from vidloop import play_round

FILE: Final = RESULTS / "best-of.json"
ROUND: Final = "one round"
# Passes of the network that a trained clip takes: its own, and a backward pass of about two.
_TRAINED: Final = 1 + 2
_MARK: Final = "<!-- {} of python -m benchmarks.best_of{} -->"


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="play the rounds in this store; else only make the table")
    parser.add_argument("--recipe", default="recipes/mini.yaml")
    parser.add_argument("--by", default="judge", help="the reward that chooses")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4, 8], help="N, of the base")
    parser.add_argument("--after", type=int, default=4, help="N, of the trained policy")
    parser.add_argument("--set", dest="set_", action="append", default=[], help="of the recipe, as vidloop's")
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument("--study", type=Path, help="rows of a study of that recipe, in place of the results")
    parser.add_argument("--feedback", default="judge-binary", help="of the study's, that chooses and teaches")
    parser.add_argument("--objectives", nargs="+", default=["dpo-anchor", "sft"], help="of the study's")
    parser.add_argument("--page", type=Path, help="with markers that the table goes between")
    asked = parser.parse_args(arguments)
    if asked.store is not None:
        write_json(asked.results, measure(asked))
    read = json.loads((asked.study or asked.results).read_text("utf-8"))
    told = "\n".join(table(of_study(read, asked) if asked.study is not None else read))
    print(told)
    if asked.page is not None:
        text = asked.page.read_text("utf-8")
        begin, end = (_MARK.format(what, " --study" if asked.study else "") for what in ("begin", "end"))
        head, tail = text.split(begin)[0], text.split(end)[-1]
        asked.page.write_text(f"{head}{begin}\n{told}\n{end}{tail}", "utf-8")


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Play a round a seed; what the file holds."""
    beside = [f"{{best_of: {n}, by: {asked.by}}}" for n in asked.sizes]
    beside.append(f"{{best_of: {asked.after}, by: {asked.by}, from: candidate}}")
    said = [f"evaluate.baselines=[{', '.join(beside)}]", *asked.set_]
    store, rounds = Store.open(asked.store, create=True), []
    for seed in asked.seeds:
        rounds.append(play_round(load_recipe(asked.recipe, [*said, f"seed={seed}"]), store))
        print(f"seed {seed}: {rounds[-1].verdict}", flush=True)
    recipe = load_recipe(asked.recipe, said)
    paid = _round_cost(recipe, rounds[0])
    once = paid["sampling_passes"] + paid["training_passes"]
    return {
        "name": "best-of",
        "device": device_name(),
        "command": command_line(),
        "versions": versions("torch", "diffusers"),
        "seeds": asked.seeds,
        "metric": rounds[0].primary.metric,
        "passes_a_clip": _sampling(recipe),
        "round": paid,
        "arms": {
            name: {
                "n": _baseline(rounds[0], name).best_of if name != ROUND else 1,
                "trained": name.startswith(ROUND),
                **({"once": once} if name.startswith(ROUND) else {}),
                "pooled": _pooled(store, rounds, name),
                "seeds": [_gain(one, name) for one in rounds],
            }
            for name in _arms(rounds[0])
        },
        "verdicts": [one.verdict for one in rounds],
        "seconds": [{name: stage.seconds for name, stage in one.stages.items()} for one in rounds],
    }


def _arms(one: RoundSummary) -> dict[str, str]:
    """What is compared with the base, by name, with its id."""
    found = {}
    for it in one.beside.values():
        of = f"{ROUND}, " if it.sampled == one.policy_after else "base, "
        found[f"{of}best of {it.best_of} by {it.by}"] = it.policy or ""
    return {ROUND: one.policy_after or "", **found}


def _baseline(one: RoundSummary, arm: str) -> BaselineFinding:
    return next(it for it in one.beside.values() if it.policy == _arms(one)[arm])


def _gain(one: RoundSummary, arm: str) -> dict[str, Any]:
    """Means and gain over the base in one round, with the gate's interval."""
    found = one.primary if arm == ROUND else _baseline(one, arm).primary
    return {name: getattr(found, name) for name in ("before", "after", "delta", "ci_low", "ci_high", "n")}


def _pooled(store: Store, rounds: Sequence[RoundSummary], arm: str) -> dict[str, Any]:
    """The gain over the base in all rounds together; its interval is over prompts, of these trainings."""
    gains: list[float] = []
    prompts: list[str] = []
    for one in rounds:
        rows = store.read(one.key_of("evaluate") or "", "evaluations")
        before, after = (
            [row for row in rows if row.policy_id == policy and row.split not in one.also]
            for policy in (one.policy_before, _arms(one)[arm])
        )
        paired = pair_up(before, after, one.primary.metric).measured()
        gains += (paired.after - paired.before).tolist()
        prompts += paired.prompts
    clusters = np.unique(prompts, return_inverse=True)[1].astype(np.int64)
    found = mean(np.array(gains, np.float64), clusters, 0.95)
    return {"delta": found.value, "ci_low": found.low, "ci_high": found.high, "n": len(gains)}


def _sampling(recipe: Recipe) -> int:
    return recipe.generate.steps * (2 if recipe.generate.guidance > 1 else 1)


def _round_cost(recipe: Recipe, one: RoundSummary) -> dict[str, Any]:
    """What a round pays once, before its first clip is shown; its evaluation is left out."""
    clips = len(training_prompts(recipe.generate)) * recipe.generate.clips_per_prompt
    chosen = next(it.cost for it in one.beside.values() if it.cost is not None)
    settings = finetune_settings(recipe)
    return {
        "clips": clips,
        "judgements": round(clips * chosen.judgements / chosen.clips),
        "sampling_passes": clips * _sampling(recipe),
        "training_passes": _training(settings, settings.steps * settings.batch_size),
    }


def _training(settings: TrainSettings, units: int) -> int:
    """Passes that training takes for so many clips, or pairs."""
    reference = settings.compares_errors or settings.compares_predictions
    return units * (2 if settings.algorithm.pairwise else 1) * (_TRAINED + reference)


def of_study(rows: Sequence[dict[str, Any]], asked: argparse.Namespace) -> dict[str, Any]:
    """What `measure` gives, of cells of a study: best of n by a feedback, and rounds that it taught.

    Of best of n the study compares with the mean of the same candidates, a group of n clips a choice.
    """
    chosen = ("feedback", asked.feedback), ("variant", "main"), ("rounds", 1)
    held = [row for row in rows if all(row[key] == value for key, value in chosen)]
    recipe = load_recipe(asked.recipe)
    arms: dict[str, dict[str, Any]] = {}
    for name in asked.objectives:
        cells = [row for row in held if row["objective"] == name]
        settings = finetune_settings(recipe).changed(objective=name.removesuffix("-anchor"))
        first = cells[0]
        once = first["clips"] * _sampling(recipe) + _training(settings, first["steps"] * first["batch"])
        arms[f"{ROUND}, {name}"] = {"n": 1, "trained": True, "once": once, "seeds": cells}
    for size in sorted({row["best_of"] for row in held if row["objective"] == "best-of-n"}):
        cells = [row for row in held if row["best_of"] == size and row["objective"] == "best-of-n"]
        arms[f"base, best of {size}"] = {"n": size, "trained": False, "seeds": cells}
    for arm in arms.values():
        arm["seeds"] = [
            {**row, "delta": row["after"] - row["before"]}
            for row in sorted(arm["seeds"], key=lambda row: row["seed"])
        ]
    seeds = sorted({row["seed"] for row in held})
    return {"seeds": seeds, "metric": held[0]["metric"], "passes_a_clip": _sampling(recipe), "arms": arms}


def table(found: dict[str, Any]) -> Iterator[str]:
    """Markdown: a line for each way, with what it costs in passes of the video model.

    The last column: of how many clips, made with the trained policy, training and all are no dearer than the
    largest best of N of the base.
    """
    most = max(one["n"] for one in found["arms"].values() if not one["trained"])
    seeds = ", ".join(map(str, found["seeds"]))
    heads = [
        f"seeds {seeds}", found["metric"], "gain in points, mean", "each seed", "passes a clip",
        "passes paid once", f"as dear as best of {most} at",
    ]  # fmt: skip
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    trained = next(arm for arm in found["arms"].values() if arm["trained"])
    before = [one["before"] for one in trained["seeds"]]
    yield f"| base | {_share(float(np.mean(before)))} | | | {found['passes_a_clip']} | | |"
    for name, arm in found["arms"].items():
        after = [one["after"] for one in arm["seeds"]]
        each = "; ".join(_interval(one) for one in arm["seeds"])
        gain = arm.get("pooled") or {"delta": np.mean([one["delta"] for one in arm["seeds"]])}
        once, saved = arm.get("once", 0), (most - arm["n"]) * found["passes_a_clip"]
        paid, even = (
            (f"{once:,}", f"{-(-once // saved):,} clips") if arm["trained"] and saved > 0 else ("", "")
        )
        yield (
            f"| {name} | {_share(float(np.mean(after)))} | {_interval(gain)} | {each} | "
            f"{arm['n'] * found['passes_a_clip']} | {paid} | {even} |"
        )


def _interval(one: dict[str, Any]) -> str:
    if one.get("ci_low") is None:
        return f"{100 * one['delta']:+.1f}"
    return f"{100 * one['delta']:+.1f} ({100 * one['ci_low']:+.1f} to {100 * one['ci_high']:+.1f})"


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"


if __name__ == "__main__":
    main()
