"""The command that makes the miniature's weights (`make weights` calls it).

    python -m miniature.train.pretrain --device cuda --out miniature/weights/wan
    torchrun --nproc-per-node 2 -m miniature.train.pretrain --vae OLD --out NEW      # on two GPUs, VAE kept

Trains the VAE, then the transformer with its text encoder, saves a `WanPipeline` in float16, measures the
saved files with the oracle and writes CARD.md beside them.

A stated share of the clips breaks the law that its caption names. A base that never saw impossible physics
would hardly fail, and there would be nothing to improve: large models learn from footage that is cut, sped
up, rendered and wrong.
"""

import argparse
import copy
import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from miniature.train import quality
from miniature.train.architecture import MAX_WORDS, assemble, build_text_encoder, build_transformer
from miniature.train.card import write_card
from miniature.train.denoiser import Denoiser, DenoiserSettings, train_denoiser
from miniature.train.tokenizer import build_tokenizer
from miniature.train.vae import VaeSettings, encode, train_vae
from miniature.world.catalog import TEMPLATES, vocabulary
from miniature.world.corpus import processes, sample_corpus
from miniature.world.render import render
from miniature.world.scene import Scene

Settings = TypeVar("Settings", DenoiserSettings, VaeSettings)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that sample and judge"
    )
    parser.add_argument("--scenes", type=int, default=131072)
    parser.add_argument("--vae-scenes", type=int, default=24576)
    parser.add_argument("--broken-share", type=float, default=0.5, help="share of clips that break one law")
    parser.add_argument(
        "--broken", action="append", default=[], metavar="TEMPLATE=SHARE", help="for one template"
    )
    parser.add_argument("--vae", type=Path, help="a saved pipeline whose VAE is kept")
    parser.add_argument(
        "--start", type=Path, help="a saved pipeline whose transformer and text encoder train on"
    )
    parser.add_argument("--width", type=int, default=256, help="of the transformer")
    parser.add_argument("--layers", type=int, default=5, help="of the transformer")
    parser.add_argument("--vae-start", type=Path, help="a saved pipeline whose VAE is trained further")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    for settings, prefix in ((DenoiserSettings, ""), (VaeSettings, "vae_")):
        for field in _numbers(settings):
            flags = [f"--{prefix}{field.name}".replace("_", "-")]
            if field.name == "decoder_width":  # so the VAE's card says it
                flags.append("--decoder-width")
            parser.add_argument(*flags, type=type(field.default), default=field.default)
    parser.add_argument("--flow-shift", type=float, default=5.0)
    parser.add_argument("--measure", type=int, default=2000, help="samples that the card's figures rest on")
    return parser.parse_args()


def _numbers(settings: type[DenoiserSettings] | type[VaeSettings]) -> list[dataclasses.Field[Any]]:
    """The fields of settings that are numbers; whether to compile is one question for both."""
    return [field for field in dataclasses.fields(settings) if field.name != "compile"]


def _settings(args: argparse.Namespace, settings: type[Settings], prefix: str = "") -> Settings:
    """What the command line says of `settings`."""
    given = {field.name: getattr(args, prefix + field.name) for field in _numbers(settings)}
    return settings(**given, compile=args.compile)


def _get_vae(
    args: argparse.Namespace, scenes: Sequence[Scene], device: torch.device, say: Callable[[str], None]
) -> AutoencoderKLWan:
    """The VAE that `--vae` keeps, or one trained on the corpus (from `--vae-start` on)."""
    if args.vae:
        kept = AutoencoderKLWan.from_pretrained(args.vae, subfolder="vae", dtype=torch.float32)
        return kept.to(device).eval()
    clips = render(scenes[: args.vae_scenes], 64, device)
    settings = _settings(args, VaeSettings, "vae_")
    start = AutoencoderKLWan.from_pretrained(args.vae_start, subfolder="vae") if args.vae_start else None
    vae = train_vae(clips, settings, args.seed, say, start)
    # Kept at once: a failure later on must not cost the minutes spent here (see --vae).
    copy.deepcopy(vae).to("cpu", torch.float16).save_pretrained(args.out / "vae")
    return vae


def _get_denoiser(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> Denoiser:
    """The transformer and text encoder to train: fresh, or those of `--start`."""
    torch.manual_seed(args.seed)
    if args.start:
        transformer = WanTransformer3DModel.from_pretrained(
            args.start, subfolder="transformer", dtype=torch.float32
        )
        text_encoder = UMT5EncoderModel.from_pretrained(args.start / "text_encoder", dtype=torch.float32)
        return Denoiser(transformer, text_encoder)
    return Denoiser(build_transformer(args.width, args.layers), build_text_encoder(tokenizer))


def _measure(
    args: argparse.Namespace, scenes: Sequence[Scene], pool: Executor, say: Callable[[str], None]
) -> None:
    """Measures the saved files and writes their card."""
    measured = quality.measure(args.out, args.device, args.measure, quality.Sampling(), args.seed + 1, pool)
    say(json.dumps(measured))
    broken = sum(scene.violation is not None for scene in scenes)
    facts = {
        "scenes": len(scenes),
        "share of scenes that break a law": round(broken / len(scenes), 3),
        "seed": args.seed,
        "samples measured": args.measure,
        "measured with": str(quality.Sampling()),
    }
    command = "python -m miniature.train.pretrain " + shlex.join(sys.argv[1:])
    title = "The miniature: a Wan model of 2-D physics"
    write_card(args.out, title, command, [f"{name}: {value}" for name, value in facts.items()], measured, {})
    card = {"title": title, "command": command, "facts": facts, "measured": measured}
    (args.out / "card.json").write_text(json.dumps(card, indent=1) + "\n")


def main() -> None:
    """Trains, saves, measures and writes the card."""
    args = parse()
    started = time.monotonic()
    rank, ranks = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device(args.device, rank) if args.device == "cuda" else torch.device(args.device)
    if ranks > 1:
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)

    def say(text: str) -> None:
        if rank == 0:
            print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)

    torch.set_float32_matmul_precision("high")
    shares = dict.fromkeys(TEMPLATES, args.broken_share)
    shares |= {name: float(share) for name, share in (item.split("=") for item in args.broken)}
    with processes(max(1, args.workers // ranks)) as pool:
        # Every process has scenes of its own; one alone has just those that `--seed` names.
        scenes = sample_corpus(args.scenes // ranks, shares, args.seed + 1_000_000 * rank, pool)
        say(f"{len(scenes)} scenes, {sum(scene.violation is not None for scene in scenes)} of them broken")
        vae = _get_vae(args, scenes, device, say)
        latents = torch.cat(
            [
                encode(vae, render(scenes[i : i + 1024], 64, device)).to(torch.bfloat16)
                for i in range(0, len(scenes), 1024)
            ]
        )
        say(f"encoded: latents {tuple(latents.shape)}")
        settings = _settings(args, DenoiserSettings)
        tokenizer = build_tokenizer(vocabulary(), "</s>", MAX_WORDS)
        model = _get_denoiser(args, tokenizer)
        captions = [scene.caption for scene in scenes]
        trained = train_denoiser(model, tokenizer, latents, captions, settings, args.seed, say)
        if rank == 0:
            pipe = assemble(trained.transformer, vae, trained.text_encoder, tokenizer, args.flow_shift)
            pipe.to("cpu", torch.float16).save_pretrained(args.out)
            say(f"saved {args.out}")
            if args.measure:
                _measure(args, scenes, pool, say)
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
