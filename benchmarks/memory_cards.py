"""What each recipe's model takes of a GPU's memory, in one go: does it fit a card of 24, 80 or 141 GB?

    python -m benchmarks.memory_cards                                     results/memory-cards.json
    python -m benchmarks.memory_cards --quantise fp8-storage --recipes wan2.1-14b,wan2.2-t2v-a14b
    python -m benchmarks.memory_cards --page                              docs/cards.md from that file

One process, random weights of the published sizes, the recipe's own clip: its text encoder alone on one
prompt, two denoising steps of one clip, the decoding of it untiled, and two training steps of one pair with
every block recomputed. Nothing is compiled, so that a model takes seconds. Of two experts one is on the
GPU and the other on the host, as on a card that does not hold both: they change places while denoising, and
the first is trained. Rows of an earlier run stay in the file unless they are measured again; each names its
command and its machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.cards_page import CARDS, write_page
from benchmarks.full_size import build_pipeline, build_text_encoder, parameters, size_of
from benchmarks.result import RESULTS, command_line, device_name, show, versions
from benchmarks.training_parts import BASE, elapsed, pairs_of, peak, release
from data.errors import VidloopError
from flows.config.load import load_recipe
from flows.config.recipe import Recipe
from flows.config.resolve import finetune_settings
from models.compiling import preferred_attention
from models.families import EXPERTS, get_family
from models.families.base import networks_of
from models.quantise import quantise
from models.sampling.offload import Residence
from models.settings import QUANTISED, Quantise, SampleSettings
from models.training.trainer import train

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
# What `--tiny` takes in place of the recipe's clip: on the grid of every family.
_TINY: Final[dict[str, Any]] = {"height": 64, "width": 96, "frames": 9, "max_sequence_length": 16}
_STEPS: Final = 2
# Of two experts with a shift of 12: four of these are the first one's, the last is the second one's.
_STEPS_OF_TWO: Final = 5
_PHASES: Final = ("weights", "encoding", "denoising", "decoding")

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

    @property
    def clip(self) -> str:
        """Height x width x frames."""
        return f"{self.sample.height}x{self.sample.width}x{self.sample.frames}"


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, write the file and the page; what was written."""
    asked = _parse(arguments)
    path = asked.out / f"{NAME}.json"
    if asked.page:
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": []}
        write_page(found, asked.docs)
        return found
    began = time.monotonic()
    device = torch.device(asked.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    cases = [_case(name, asked.quantise, asked.tiny) for name in asked.recipes.split(",")]
    texts = _encode(cases, device, dtype)
    kept = _earlier(path)
    for case in cases:
        if time.monotonic() - began > asked.max_seconds:
            print(f"{case.name} is left out: {asked.max_seconds:.0f} s are over", flush=True)
            continue
        kept[case.name, case.quantise] = row = _measure(case, texts[_text(case)], device, dtype)
        _write(path, list(kept.values()))
        told = row.get("error") or f"generation {_gb(row['generation'])}, training {_gb(row['training'])}"
        print(f"[{time.monotonic() - began:4.0f} s] {case.name} {case.quantise}: {told}", flush=True)
    content = _write(path, list(kept.values()))
    _table(content)
    return content


def _case(name: str, how: Quantise, tiny: bool) -> Case:
    recipe = load_recipe(f"recipes/{name}.yaml")
    given = recipe.generate
    steps = _STEPS_OF_TWO if EXPERTS.get(recipe.model.family) else _STEPS
    sample = SampleSettings(
        steps, given.guidance, given.height, given.width, given.frames, given.max_sequence_length
    )
    size = "tiny" if tiny else MODELS[name]
    return Case(name, recipe, size, how, dataclasses.replace(sample, **_TINY) if tiny else sample)


def _text(case: Case) -> tuple[str, int]:
    """Cases that are equal in this have the same embeddings: which encoder, and how long a text."""
    config = size_of(case.family, case.size).text_encoder
    return json.dumps(config, sort_keys=True), case.sample.max_sequence_length


def _encode(
    cases: list[Case], device: torch.device, dtype: torch.dtype
) -> dict[tuple[str, int], tuple[Tensor, int | None]]:
    """For each text encoder and length: embeddings [1, L, D], and bytes at the peak, it being alone there."""
    found: dict[tuple[str, int], tuple[Tensor, int | None]] = {}
    for config in dict.fromkeys(_text(case)[0] for case in cases):
        first = next(case for case in cases if _text(case)[0] == config)
        encoder = build_text_encoder(first.family, first.size, str(device), dtype)
        for length in dict.fromkeys(_text(case)[1] for case in cases if _text(case)[0] == config):
            release(device)
            with torch.no_grad():
                words = torch.ones(1, length, dtype=torch.int64, device=device)
                embeds = encoder(words).last_hidden_state
            found[config, length] = embeds.cpu(), peak(device)
        del encoder, embeds
        release(device)
    return found


def _measure(case: Case, text: tuple[Tensor, int | None], device: torch.device, dtype: torch.dtype) -> Row:
    """One row. What went wrong stands in it, so that the others are still measured."""
    begun = time.monotonic()
    row: Row = {
        "recipe": case.name, "model": f"{case.family}-{case.size}, random weights", "clip": case.clip,
        "quantise": case.quantise, "dtype": str(dtype).removeprefix("torch."),
        "tokens of text": case.sample.max_sequence_length, "guidance": case.sample.guidance,
        "rank": case.recipe.finetune.rank, "generation": None, "training": None,
    }  # fmt: skip
    try:
        pipeline = build_pipeline(case.family, case.size, str(device), dtype, text=False)
        networks = networks_of(get_family(case.family).experts, pipeline)
        row["parameters"] = sum(parameters(network) for network in networks.values())
        for network in networks.values():
            quantise(network, case.quantise, dtype)
        # As on a card of no size: of several networks one is there at a time, and of one that is it.
        residence = Residence(networks, torch.nn.Module(), device, 1 if len(networks) > 1 else None)
        row["generation"], shape = _generate(case, pipeline, residence, text, device)
        residence.bring("transformer")
        network = pipeline.transformer
        del pipeline, networks, residence
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
    case: Case, pipeline: Any, residence: Residence, text: tuple[Tensor, int | None], device: torch.device
) -> tuple[Row, torch.Size]:
    """Peaks in GB of one clip's way, and the shape of its latent; null on a CPU, where nothing counts."""
    family = get_family(case.family)
    networks = networks_of(family.experts, pipeline)
    seconds = elapsed(lambda: residence.bring("transformer"), device)
    release(device)
    weights = _allocated(device)
    embeds = text[0].to(device)
    negative = embeds if case.sample.guidance > 1 else None
    with preferred_attention(device), residence.in_turn(networks):
        latents = family.sample_latents(pipeline, embeds, negative, [1], case.sample)
    denoising = peak(device)
    release(device)
    family.decode(pipeline, latents)
    decoding = peak(device)
    peaks = {"encoding": text[1], "denoising": denoising, "decoding": decoding}
    known = [value for value in peaks.values() if value is not None]
    row: Row = {name: _in_gb(value) for name, value in peaks.items()}
    row["weights"] = _in_gb(weights)
    row["peak"] = _in_gb(max(known)) if known else None
    if len(networks) > 1:
        row["waiting on the host"] = _in_gb(_size(networks["transformer"]))
        row["seconds to the GPU"] = round(seconds, 1)
    return row, latents.shape[1:]


def _train(case: Case, network: Any, latent: torch.Size, embeds: Tensor, device: torch.device) -> Row:
    """Peak in GB of two steps of one pair, as the recipe trains, with every block recomputed."""
    release(device)
    weights = _allocated(device)
    family = get_family(case.family)
    first = family.experts[0] if family.experts else None
    settings = dataclasses.replace(
        finetune_settings(case.recipe), steps=_STEPS, batch_size=1, micro_batch=1, probe=0, compile=False,
        gradient_checkpointing=True, expert=first,
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    data = pairs_of(torch.randn(2, *latent, generator=draw), embeds.float())
    seconds: list[float] = []
    start = time.perf_counter()
    train(
        network, family, data, settings, BASE,
        on_step=lambda _: seconds.append(time.perf_counter() - start),
    )  # fmt: skip
    return {
        "weights": _in_gb(weights), "peak": _in_gb(peak(device)),
        "seconds of the second step, eager": round(seconds[1] - seconds[0], 2),
    }  # fmt: skip


def _allocated(device: torch.device) -> int | None:
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else None


def _size(network: torch.nn.Module) -> int:
    return sum(w.numel() * w.element_size() for w in (*network.parameters(), *network.buffers()))


def _in_gb(held: int | None) -> float | None:
    return None if held is None else round(held / 1e9, 2)


def _gb(row: Row | None) -> str:
    return "not measured" if row is None or row["peak"] is None else f"{row['peak']:.1f} GB"


def _earlier(path: Path) -> dict[tuple[str, str], Row]:
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    return {(row["recipe"], row["quantise"]): row for row in rows}


def _write(path: Path, rows: list[Row]) -> dict[str, Any]:
    order = list(MODELS)
    content = {
        "name": NAME,
        "unit": "GB (1e9 bytes) of tensors at the peak",
        "cards": list(CARDS),
        "rows": sorted(rows, key=lambda row: (order.index(row["recipe"]), row["quantise"] != "none")),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    os.replace(draft, path)
    return content


def _table(content: dict[str, Any]) -> None:
    def figure(row: Row, part: str, name: str) -> str:
        held = (row[part] or {}).get(name)
        return "-" if held is None else f"{held:.1f}"

    show(
        "Memory by recipe, GB",
        ["recipe", *_PHASES, "training", "s"],
        [
            [
                row["recipe"] + ("" if row["quantise"] == "none" else f" {row['quantise']}"),
                *(figure(row, "generation", name) for name in _PHASES),
                figure(row, "training", "peak"), f"{row['seconds']:.0f}",
            ]
            for row in content["rows"]
        ],
    )  # fmt: skip


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", default=",".join(MODELS), help="names in recipes/, with commas between")
    parser.add_argument("--quantise", choices=QUANTISED, default="none", help="as model.quantise")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="models and clips of no size, for tests")
    parser.add_argument("--max-seconds", type=float, default=420.0, help="no model is begun after them")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of memory-cards.json")
    parser.add_argument("--page", action="store_true", help="only write the page from the file")
    parser.add_argument("--docs", type=Path, default=RESULTS.parents[1] / "docs", help="folder of cards.md")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.recipes.split(",") if name not in MODELS]
    if unknown:
        parser.error(f"no size is known for {unknown[0]} (known: {', '.join(MODELS)})")
    return asked


if __name__ == "__main__":
    main()
