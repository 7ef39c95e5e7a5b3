"""A DPO step on one pair with a LoRA: ours against the plain way, in one process.

    python -m benchmarks.training_pair                       results/training-pair.json
    python -m benchmarks.training_pair --resume              what an ended run of it left undone
    python -m benchmarks.training_pair --card-gb 80 --size 14b --steps 4     results/memory-training.json

Both sides are in `benchmarks.training_sides`, and how their loss curves are compared. Ours is the product's
own `train`: stored latents, embeddings and reference errors, compiled blocks, the fastest attention kernel,
and no more recomputing than memory asks; once held to 0.6 of the plain way's peak, and once with all the
memory there is. The reference pass comes on top and is measured with the product's `measure`; the ratio is
given without it, and with it spread over `--epochs`. Every run is written when it is there.

`--card-gb` asks what ours takes of a card with that memory, twice: every block recomputed, and as little
recomputed as the card allows; nothing else is on the GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from time import monotonic
from typing import Any, Final, Literal

import torch

from benchmarks.harness import (
    Clock,
    Result,
    ceiling,
    device_name,
    elapsed,
    forward_flops,
    options,
    release,
    versions,
    write,
)  # fmt: skip
from benchmarks.training_sides import (
    CONTROL_LR,
    LIBRARIES,
    Encoders,
    Shape,
    Sides,
    Timed,
    device_of,
    equality,
    ours,
    pairs_of,
    plain,
    reference_table,
    shape_of,
    shape_options,
    stored,
    told,
)  # fmt: skip
from models.training.settings import TrainSettings

PLAIN_RUNS: Final = {"plain, again": False, "plain, other kernel": True, "plain, a third time": False}
"""The plain runs beside the timed one, and whether attention is another kernel's. Alike but for rounding: the
same kernel again rounds otherwise too, on a GPU, where its sums have no fixed order."""
# Ours is held to this part of plain's peak.
_MEMORY: Final = 0.585
# Of a card: what the driver, the libraries' own memory and the holes between tensors take of it.
_USABLE: Final = 0.94
# Compiling, trials and library start-up end within these steps.
_WARM: Final = 3


@dataclass(frozen=True)
class Bench:
    """What every measurement here has."""

    asked: argparse.Namespace
    clock: Clock
    device: torch.device
    dtype: torch.dtype
    shape: Shape
    plain: TrainSettings
    fast: TrainSettings

    def result(self, name: str, plain: float, ours: float, unit: str, **more: Any) -> Result:
        """Written, with the shape that all have."""
        asked = {key: getattr(self.asked, key) for key in ("rank", "pairs", "steps", "draws", "epochs")}
        shape = {**asdict(self.shape), "tokens": self.shape.tokens, **asked, "dtype": str(self.dtype)}
        shape |= more.pop("shape", {})
        result = Result(
            name, plain, ours, unit, more_is_better=False, libraries=LIBRARIES, shape=shape, **more
        )
        write(result, self.asked.out)
        return result


def main(arguments: list[str] | None = None) -> Result:
    """Measure, print the table and write the result."""
    asked = _parse(arguments)
    device, dtype = device_of(asked)
    settings = TrainSettings(
        objective="dpo", beta=500.0, steps=asked.steps, batch_size=1, micro_batch=1, lr=asked.lr, warmup=5,
        schedule="constant", rank=asked.rank, alpha=float(asked.rank), shift=3.0,
        fixed_noise_samples=asked.draws,
        reference_errors="stored", probe=0, seed=0, attention="default",
    )  # fmt: skip
    fast = settings.changed(compile=asked.compile, attention="fastest", gradient_checkpointing="auto")
    bench = Bench(asked, Clock(asked.seconds), device, dtype, shape_of(asked), settings, fast)
    if asked.card_gb is not None:
        return card(bench)
    return pair(bench)


def pair(bench: Bench) -> Result:
    """Both sides timed, and whether they learn alike."""
    asked, shape, device, dtype, clock = bench.asked, bench.shape, bench.device, bench.dtype, bench.clock
    settings, fast, until = bench.plain, bench.fast, monotonic() + asked.seconds
    question = {
        "device": device_name(), "shape": asdict(shape), "pairs": asked.pairs, "plain": settings.model_dump(),
        "ours": fast.model_dump(), "control": CONTROL_LR, "versions": versions(*LIBRARIES),
    }  # fmt: skip
    sides = Sides(asked.out / "training-pair.sides", question, resume=asked.resume)
    runs: dict[str, Timed] = {}

    def run(name: str, measure: Callable[[], Timed]) -> Timed:
        runs[name] = timed = sides.take(name, asked.steps, measure)
        clock.say(f"{name} {timed.step(_WARM):.3f} s a step, {len(timed.losses)} steps")
        return timed

    top = ceiling(device)
    encoders = Encoders(shape, 2 * asked.pairs, device, dtype, settings.seed)
    rows = torch.arange(2 * asked.pairs)
    data = pairs_of(encoders.latents(rows).cpu(), encoders.embeds(rows[: asked.pairs]).float().cpu())
    before = run("plain", partial(plain, data, shape, settings, device, dtype, encoders, until=until))
    encoding = {
        "text": elapsed(partial(encoders.embeds, rows[:1]), device),
        "video": elapsed(partial(encoders.latents, rows[:2]), device),
    }
    del encoders
    release(device)
    table, reference = reference_table(data, shape, fast, device, dtype)
    clock.say(f"reference {reference:.4f} s a forward pass of a clip")
    budget = None if before.peak_bytes is None else _MEMORY * before.peak_bytes / 1e9
    for name, how in {
        "ours": fast.changed(memory_gb=budget),
        "ours, all memory": fast,
        "control": fast.changed(lr=CONTROL_LR * fast.lr),
    }.items():
        run(name, partial(ours, data, shape, how, table, device, dtype, until=until))
    # Encoding in the loop gives the plain way the same inputs at every visit: once is enough.
    again = partial(plain, data, shape, settings, device, dtype, stored(data, device), until=until)
    for name, otherwise in PLAIN_RUNS.items():
        run(name, partial(again, otherwise=otherwise))

    losses = {name: timed.losses for name, timed in runs.items()}
    plain_runs = [losses[name] for name in ("plain", *PLAIN_RUNS)]
    # One that the clock cut short would shorten the comparison for all.
    whole = [run for run in plain_runs if len(run) == asked.steps]
    same = equality(
        whole if len(whole) > 1 else plain_runs,
        {"ours": losses["ours"], "ours_all_memory": losses["ours, all memory"]},
        losses["control"],
    )
    flops = forward_flops(shape.network(torch.device("meta"), dtype), shape.latent[1:], shape.text_length)
    work = 2 * (2 * flops["linear"] + 3.5 * flops["attention"]) / 1e12
    # Every pair visit of an epoch reads two stored errors; measuring all draws of both clips costs this once.
    share = 2 * asked.draws * reference / asked.epochs
    facts = {}
    for name in ("plain", "ours", "ours, all memory"):
        timed = runs[name]
        once, held = timed.step(_WARM), timed.peak_bytes
        facts[name] = {
            "seconds_a_step": once,
            "pair_steps_per_second": 1 / once,
            "ratio": before.step(_WARM) / once,
            "ratio_with_reference_pass": before.step(_WARM) / (once + (share if name != "plain" else 0.0)),
            "useful_tflops": work / once,
            "of_ceiling": work / once / top,
            "peak_gb": None if held is None else held / 1e9,
            "memory_ratio": held / before.peak_bytes if held and before.peak_bytes else None,
            "first_step_seconds": timed.seconds[0],
            **timed.facts,
            "losses": timed.losses,
            "seconds": timed.seconds,
        }
    result = bench.result(
        "training-pair",
        before.step(_WARM),
        runs["ours"].step(_WARM),
        "seconds a step of one pair",
        equality=same,
        memory_ratio=facts["ours"]["memory_ratio"],
        details={
            "runs": facts,
            "ceiling_tflops": top,
            "reference_seconds_a_clip_and_draw": reference,
            "epochs_from_which_storing_pays": asked.draws,
            "losses_of_plain_again": plain_runs[1:],
            "losses_of_the_control": losses["control"],
            "plain_encoding_seconds": encoding,
            "runs_of_an_earlier_command": sides.resumed,
            "seconds_in_all": clock.seconds,
        },
    )
    print(told(same))
    return result


def card(bench: Bench) -> Result:
    """What ours takes of a card's memory."""
    asked, room = bench.asked, _USABLE * bench.asked.card_gb
    settings = bench.fast.changed(beta=TrainSettings().beta, fixed_noise_samples=2, memory_gb=room)
    data = bench.shape.pairs(1)
    table, _ = reference_table(data, bench.shape, settings, bench.device, bench.dtype)
    ways: dict[str, Literal[True, "auto"]] = {
        "every block recomputed": True,
        f"as the {asked.card_gb:.0f} GB card allows": "auto",
    }
    rows: dict[str, dict[str, Any]] = {}
    for name, how in ways.items():
        release(bench.device)
        recomputing = settings.changed(gradient_checkpointing=how)
        run = ours(data, bench.shape, recomputing, table, bench.device, bench.dtype)
        rows[name] = {
            "peak_gb": None if run.peak_bytes is None else run.peak_bytes / 1e9,
            "fits": None if run.peak_bytes is None else run.peak_bytes / 1e9 <= room,
            "seconds_a_step": run.step(min(2, asked.steps - 1)),
            "first_step_seconds": run.seconds[0],
            **run.facts,
            "losses": run.losses,
        }
        bench.clock.say(f"{name}: {rows[name]['peak_gb']} GB")
    least, most = rows.values()
    result = bench.result(
        "memory-training",
        least["seconds_a_step"],
        most["seconds_a_step"],
        "seconds a step of one pair, recomputing every block against what the card allows",
        shape={"card_gb": asked.card_gb, "usable_gb": room},
        equality={"losses": {name: row["losses"] for name, row in rows.items()}},
        details={"runs": rows, "seconds_in_all": bench.clock.seconds},
    )
    return result


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__)
    shape_options(parser)
    parser.add_argument("--pairs", type=int, default=4, help="that the runs learn from")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--draws", type=int, default=8, help="fixed draws a prompt, of the stored errors")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--epochs", type=int, default=20, help="over which the reference pass is spread")
    parser.add_argument("--seconds", type=float, default=450, help="runs are cut short to keep to it")
    parser.add_argument("--resume", action="store_true", help="take up the sides that lie in --out")
    parser.add_argument("--card-gb", type=float, help="instead: memory on a card of so many 1e9 bytes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
