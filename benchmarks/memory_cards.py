"""What each recipe's model takes of a GPU's memory, in one go: does it fit a card of 24, 80 or 141 GB?

    python -m benchmarks.memory_cards                                     results/memory-cards.json
    python -m benchmarks.memory_cards --quantise fp8-storage --recipes wan2.1-14b,wan2.2-t2v-a14b
    python -m benchmarks.memory_cards --tables                            of docs/cards.md, from that file

One process, random weights of the published sizes, the recipe's own clip: its text encoder alone on one
prompt, two denoising steps of one clip, the decoding of it untiled, and two training steps of one pair with
every block recomputed. Nothing is compiled, so that a model takes seconds. Of two experts one is on the
GPU and the other on the host, as on a card that does not hold both: they change places while denoising, and
the first is trained. Rows of an earlier run stay in the file unless they are measured again; each names its
command and its machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import torch
from jinja2 import Environment, StrictUndefined
from torch import Tensor

from benchmarks.full_size import build_pipeline, build_text_encoder, parameters, size_of
from benchmarks.harness import (
    Clock,
    allocated,
    command_line,
    device_name,
    elapsed,
    options,
    peak,
    release,
    versions,
    write_json,
)  # fmt: skip
from benchmarks.training_sides import BASE, device_of, pairs_of
from data.errors import VidloopError
from flows.config.load import load_recipe
from flows.config.recipe import Recipe
from flows.config.resolve import finetune_settings
from models.compile import fastest_attention
from models.families import get_family
from models.families.base import networks_of, quantise
from models.families.settings import Quantise, SampleSettings
from models.sampling.offload import STAYING, ModelOffloader
from models.training.trainer import TrainJob, train

NAME: Final = "memory-cards"
# Recipe and the size of `benchmarks.full_size` that it means.
MODELS: Final = {
    "wan2.1-1.3b": "1.3b",
    "ltx-video": "2b",
    "wan2.2-ti2v-5b": "5b",
    "cogvideox-2b": "2b",
    "cogvideox-5b": "5b",
    "wan2.1-14b": "14b",
    "wan2.2-t2v-a14b": "a14b",
}
# Sold as so many GB; in 1e9 bytes, which is less than what the cards show.
CARDS: Final = (24, 80, 141)
# Of a card: the driver, the libraries' own memory and the holes between tensors take the rest.
USABLE: Final = 0.94
# More than so many clips at once gain nothing at video sizes.
_MOST: Final = 16
# What `--tiny` takes in place of the recipe's clip: on the grid of every family.
_TINY: Final[dict[str, Any]] = {"height": 64, "width": 96, "frames": 9, "max_sequence_length": 16}
_STEPS: Final = 2
# Of two experts with a shift of 12: four of these are the first one's, the last is the second one's.
_STEPS_OF_TWO: Final = 5

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One recipe's model, as it is measured."""

    name: str
    recipe: Recipe
    size: str
    quantise: Quantise
    sample: SampleSettings

    @property
    def family(self) -> str:
        """As in recipes."""
        return self.recipe.model.family

    @classmethod
    def of(cls, name: str, how: Quantise, tiny: bool) -> Case:
        """A recipe's; `tiny`: of no size."""
        recipe = load_recipe(f"recipes/{name}.yaml")
        given = recipe.generate
        steps = _STEPS_OF_TWO if get_family(recipe.model.family).experts else _STEPS
        sample = given.as_part(SampleSettings).changed(steps=steps, decode_batch=None)
        size = "tiny" if tiny else MODELS[name]
        return cls(name, recipe, size, how, sample.changed(**_TINY) if tiny else sample)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, write the file; what was written."""
    asked = _parse(arguments)
    path = asked.out / f"{NAME}.json"
    held: list[Row] = json.loads(path.read_text())["rows"] if path.exists() else []
    if asked.tables:
        print(tables(held))
        return {"rows": held}
    kept = {(row["recipe"], row["quantise"]): row for row in held}
    clock = Clock(asked.max_seconds)
    device, dtype = device_of(asked)

    texts: dict[tuple[str, int], tuple[Tensor, int | None]] = {}
    content: dict[str, Any] = {}
    for name in asked.recipes.split(","):
        case = Case.of(name, asked.quantise, asked.tiny)
        if clock.left < 0:
            clock.say(f"{name} is left out: the time is up")
            continue
        # Most have the same text encoder, and those of one length the same embeddings.
        same = json.dumps(size_of(case.family, case.size).text_encoder), case.sample.max_sequence_length
        texts[same] = texts.get(same) or _encoded(case, device, dtype)
        kept[name, case.quantise] = row = _measure(case, texts[same], device, dtype)
        order = list(MODELS)
        content = {
            "name": NAME,
            "unit": "GB (1e9 bytes) of tensors at the peak",
            "cards": list(CARDS),
            "rows": sorted(
                kept.values(), key=lambda row: (order.index(row["recipe"]), row["quantise"] != "none")
            ),
        }
        write_json(path, content)
        told = row.get("error") or f"generation {_gb(row['generation'])}, training {_gb(row['training'])}"
        clock.say(f"{name} {case.quantise}: {told}")
    print(tables(content["rows"]))
    return content


def _encoded(case: Case, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, int | None]:
    """Embeddings [1, L, D] of a text, and bytes at the peak of a text encoder that is alone there."""
    encoder = build_text_encoder(case.family, case.size, str(device), dtype)
    release(device)
    with torch.no_grad():
        words = torch.ones(1, case.sample.max_sequence_length, dtype=torch.int64, device=device)
        embeds: Tensor = encoder(words).last_hidden_state.cpu()
    held = peak(device)
    del encoder
    release(device)
    return embeds, held


def _measure(case: Case, text: tuple[Tensor, int | None], device: torch.device, dtype: torch.dtype) -> Row:
    """One row. What went wrong stands in it, so that the others are still measured."""
    begun = time.monotonic()
    sample = case.sample
    row: Row = {
        "recipe": case.name, "model": f"{case.family}-{case.size}, random weights",
        "clip": f"{sample.height}x{sample.width}x{sample.frames}",
        "quantise": case.quantise, "dtype": str(dtype).removeprefix("torch."),
        "tokens of text": sample.max_sequence_length, "guidance": sample.guidance,
        "rank": case.recipe.finetune.rank, "generation": None, "training": None,
    }  # fmt: skip
    try:
        pipeline = build_pipeline(case.family, case.size, str(device), dtype, text=False)
        networks = networks_of(get_family(case.family).experts, pipeline)
        row["parameters"] = sum(parameters(network) for network in networks.values())
        for network in networks.values():
            quantise(network, case.quantise, dtype)
        # As on a card of no size: of several networks one is there at a time, and of one that is it.
        offloader = ModelOffloader(networks, torch.nn.Module(), device, 1 if len(networks) > 1 else None)
        row["generation"], shape = _generate(case, pipeline, offloader, text, device)
        offloader.to_device("transformer")
        network = pipeline.transformer
        del pipeline, networks, offloader
        row["training"] = _train(case, network, shape, text[0], device)
        del network
    except (VidloopError, RuntimeError) as failure:
        row["error"] = f"{type(failure).__name__}: {' '.join(str(failure).split())[:300]}"
    release(device)
    return row | {
        "seconds": round(time.monotonic() - begun, 1), "device": device_name(), "command": command_line(),
        "versions": versions("torch", "diffusers", "transformers", "peft"),
    }  # fmt: skip


def _generate(
    case: Case,
    pipeline: Any,
    offloader: ModelOffloader,
    text: tuple[Tensor, int | None],
    device: torch.device,
) -> tuple[Row, torch.Size]:
    """Peaks in GB of one clip's way, and the shape of its latent; null on a CPU, where nothing counts."""
    family = get_family(case.family)
    networks = networks_of(family.experts, pipeline)
    seconds = elapsed(lambda: offloader.to_device("transformer"), device)
    release(device)
    weights = allocated(device)
    embeds = text[0].to(device)
    negative = embeds if case.sample.guidance > 1 else None
    with fastest_attention(device), offloader.in_turn(networks):
        latents = family.sample_latents(pipeline, embeds, negative, [1], case.sample)
    denoising = peak(device)
    release(device)
    family.decode(pipeline, latents)
    peaks = {"encoding": text[1], "denoising": denoising, "decoding": peak(device)}
    known = [value for value in peaks.values() if value is not None]
    row: Row = {name: _in_gb(value) for name, value in peaks.items()}
    row |= {"weights": _in_gb(weights), "peak": _in_gb(max(known)) if known else None}
    if len(networks) > 1:
        first = networks["transformer"]
        held = sum(part.numel() * part.element_size() for part in (*first.parameters(), *first.buffers()))
        row |= {"waiting on the host": _in_gb(held), "seconds to the GPU": round(seconds, 1)}
    return row, latents.shape[1:]


def _train(case: Case, network: Any, latent: torch.Size, embeds: Tensor, device: torch.device) -> Row:
    """Peak in GB of two steps of one pair, as the recipe trains, with every block recomputed."""
    release(device)
    weights = allocated(device)
    family = get_family(case.family)
    settings = finetune_settings(case.recipe).changed(
        steps=_STEPS, batch_size=1, micro_batch=1, probe=0, compile=False,
        gradient_checkpointing=True, expert=family.experts[0] if family.experts else None,
    )  # fmt: skip
    latents = torch.randn(2, *latent, generator=torch.Generator().manual_seed(0))
    ends = [time.perf_counter()]
    job = TrainJob(pairs_of(latents, embeds.float()), settings, BASE)
    train(network, family, job, lambda _: ends.append(time.perf_counter()))
    return {
        "weights": _in_gb(weights), "peak": _in_gb(peak(device)),
        "seconds of the second step, eager": round(ends[2] - ends[1], 2),
    }  # fmt: skip


def _in_gb(held: int | None) -> float | None:
    return None if held is None else round(held / 1e9, 2)


def _gb(row: Row | None) -> str:
    return "not measured" if row is None or row["peak"] is None else f"{row['peak']:.1f} GB"


def tables(rows: Sequence[Row]) -> str:
    """The two tables of docs/cards.md, without rows that lack figures (of a CPU, or failed)."""
    page = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, autoescape=False)  # noqa: S701
    page.tests["fits"] = fits
    text = Path(__file__).with_suffix(".md.j2").read_text(encoding="utf-8")
    return page.from_string(text).render(
        rows=[row for row in rows if _known(row)],
        cards=CARDS,
        usable=USABLE,
        peaks=_peaks,
        settings_for=settings_for,
        least=lambda own, card: min(max(_peaks(row, card)) for row in own),
    )


def fits(row: Mapping[str, Any], card: int) -> bool:
    """Whether both a clip and a training step of `row` stay below what a card of `card` GB has."""
    return _known(row) and max(_peaks(row, card)) <= USABLE * card


def clips(row: Mapping[str, Any], card: int) -> int:
    """How many clips can be denoised at once, by one clip's peak; 0 where a single one does not fit."""
    found = row["generation"]
    one = found["denoising"] - found["weights"]
    room = USABLE * card - found["weights"] - _beside(row, card)
    return 0 if _peaks(row, card)[0] > USABLE * card else min(_MOST, int(room / one))


def settings_for(row: Mapping[str, Any], card: int) -> str:
    """What to say on the command line, so that the row's model fits the card as it was measured."""
    chosen = [f"generate.batch_size={clips(row, card)}"]
    if row["quantise"] != "none":
        # Such weights cannot be compiled; recipes compile their training.
        chosen += [f"model.quantise={row['quantise']}", "finetune.compile=false"]
    return " ".join(f"--set {setting}" for setting in chosen)


def _known(row: Mapping[str, Any]) -> bool:
    generation, training = row["generation"], row["training"]
    return bool(generation and training) and None not in (generation["peak"], training["peak"])


def _peaks(row: Mapping[str, Any], card: int) -> tuple[float, float]:
    """GB at the peaks of generation and of training."""
    found = row["generation"]
    beside = _beside(row, card)
    # The text encoder needs no room beside the networks: they leave for it.
    made: float = max(found["encoding"], found["denoising"] + beside, found["decoding"] + beside)
    return made, row["training"]["peak"]


def _beside(row: Mapping[str, Any], card: int) -> float:
    """GB of the other expert on a card that keeps both, as `models.sampling.offload` decides it."""
    other: float = row["generation"].get("waiting on the host") or 0.0
    return other if 2 * other <= STAYING * card else 0.0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--recipes", default=",".join(MODELS), help="names in recipes/, with commas between")
    parser.add_argument("--quantise", choices=get_args(Quantise), default="none", help="as model.quantise")
    parser.add_argument("--tiny", action="store_true", help="models and clips of no size, for tests")
    parser.add_argument("--max-seconds", type=float, default=420.0, help="no model is begun after them")
    parser.add_argument("--tables", action="store_true", help="only print the tables that the file gives")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.recipes.split(",") if name not in MODELS]
    if unknown:
        parser.error(f"no size is known for {unknown[0]} (known: {', '.join(MODELS)})")
    return asked


if __name__ == "__main__":
    main()
