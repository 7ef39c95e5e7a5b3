"""Clips of the base model with the oracle's answers, for a judge to learn from and to be measured on.

    python -m miniature.train.judge_samples --device cuda --workers 16 --out DIR
    python -m miniature.train.train_judge --device cuda --workers 16 --samples DIR --out WEIGHTS

A judge that has only seen rendered clips does not know how a generator fails. Two sets: `train`, of
captions drawn over all templates but for those of the prompt sets heldout and dev, and `measure`, of the
prompts of heldout and unseen. Models and judges never import each other, so the clips travel as files:
`frames` uint8 [N, T, H, W, 3] as safetensors, and a line of JSON for each with caption and grades.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from miniature.train.quality import Sampling, load, sample
from miniature.world.catalog import TEMPLATES, caption
from miniature.world.corpus import processes, verdicts
from miniature.world.prompts import prompt_set
from miniature.world.scene import random_subjects

_KEPT_BACK = ("heldout", "dev")


def training_captions(count: int, seed: int) -> list[str]:
    """`count` captions over all templates alike, none of them a held-out or dev prompt."""
    rng = np.random.default_rng(seed)
    kept_back = {prompt.text for split in _KEPT_BACK for prompt in prompt_set(split)}
    names = sorted(TEMPLATES)
    found: list[str] = []
    while len(found) < count:
        name = names[len(found) % len(names)]
        text = caption(name, random_subjects(name, rng))
        if text not in kept_back:
            found.append(text)
    return found


def measured_captions(count: int) -> list[str]:
    """About `count` captions: the held-out and unseen prompts, each equally often."""
    prompts = [prompt.text for split in ("heldout", "unseen") for prompt in prompt_set(split)]
    return prompts * max(1, round(count / len(prompts)))


def write(
    folder: Path, part: str, clips: torch.Tensor, captions: Sequence[str], pool: Executor | None
) -> float:
    """Write one set with the oracle's verdicts; returns the share that it passes."""
    judged = verdicts(clips.numpy(), captions, pool)
    rows = [
        {
            "caption": text,
            **{name: value for name, value in dataclasses.asdict(one).items() if name != "reason"},
        }
        for text, one in zip(captions, judged, strict=True)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"frames": clips.contiguous()}, folder / f"{part}.safetensors")
    (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return float(np.mean([one.passed for one in judged]))


def generate(
    weights: Path, device: str, captions: Sequence[str], samplings: Sequence[Sampling], seed: int, batch: int
) -> tuple[torch.Tensor, list[str]]:
    """(clips uint8 [N, T, H, W, 3] on the CPU, their captions): an equal share by each way of sampling."""
    pipe = load(weights, device)
    parts, texts = [], []
    for place, sampling in enumerate(samplings):
        share = list(captions[place :: len(samplings)])
        parts.append(sample(pipe, share, sampling, seed + place, batch))
        texts += share
    return torch.cat(parts), texts


def main() -> None:
    """Writes both sets and prints the share that the oracle passes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=Path("miniature/weights/wan"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--count", type=int, default=12_000, help="clips to train on")
    parser.add_argument("--measure", type=int, default=1_700, help="clips to measure on, about")
    parser.add_argument("--steps", type=int, default=Sampling.steps)
    parser.add_argument(
        "--guidance", type=float, nargs="+", default=[Sampling.guidance], help="one or several"
    )
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=1, help="processes of the oracle")
    args = parser.parse_args()
    ways = [Sampling(steps=args.steps, guidance=guidance) for guidance in args.guidance]
    sets = {
        "train": (training_captions(args.count, args.seed), ways, args.seed),
        # Measured as a round samples: at the first guidance.
        "measure": (measured_captions(args.measure), ways[:1], args.seed + 1000),
    }
    with processes(args.workers) as pool:
        for part, (captions, samplings, seed) in sets.items():
            clips, texts = generate(args.weights, args.device, captions, samplings, seed, args.batch)
            passed = write(args.out, part, clips, texts, pool)
            print(f"{part}: {len(clips)} clips, the oracle passes {passed:.3f}", flush=True)


if __name__ == "__main__":
    main()
