"""Trains the miniature's CLIP: `python -m miniature.train.train_clip --device cuda --seconds 75 --out DIR`.

open_clip's own `CLIP`, made small, with a vocabulary of its own. The logit of a clip and a caption is the
reward itself, the mean over frames of cos(frame, caption), over a learned temperature; the loss is the
symmetrical InfoNCE of CLIP (Radford et al., 2021, arXiv 2103.00020, fig. 3). Two captions of one meaning in
a batch are not each other's negatives.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import open_clip
import torch
from torch.nn import functional

from miniature.train.measure_clip import CLIPS, MEANING, measure_clip
from miniature.train.reward_corpus import augment, meanings_of, pick, world_scenes
from miniature.train.tokenizer import EOS_ID, build_tokenizer
from miniature.train.training import Options, Trained, autocast, cosine, finish, fit, parse, save_half
from miniature.world.catalog import vocabulary
from miniature.world.render import render

MODULE: Final = "miniature.train.train_clip"
SIZE: Final = 64
CONTEXT: Final = 20  # the longest caption has 13 words
EMBED: Final = 64
VISION: Final = {
    "image_size": SIZE,
    "patch_size": 8,
    "width": 128,
    "head_width": 32,
    "layers": 3,
    "mlp_ratio": 4.0,
}
TEXT: Final = {
    "context_length": CONTEXT, "width": 96, "heads": 3, "layers": 2, "mlp_ratio": 4.0,
    "pool_type": "eos", "eos_id": EOS_ID, "hf_tokenizer_name": "local",
}  # fmt: skip
MEAN: Final = 0.5
STD: Final = 0.5
FRAMES: Final = 3  # frames of a clip in a training batch
MAX_SCALE: Final = 100.0


def model_config(vocabulary_size: int) -> dict[str, Any]:
    """Content of `open_clip_config.json`: the two towers and the preprocessing."""
    return {
        "model_cfg": {
            "embed_dim": EMBED,
            "vision_cfg": dict(VISION),
            "text_cfg": {**TEXT, "vocab_size": vocabulary_size},
        },
        "preprocess_cfg": {
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def contrastive_loss(similarity: torch.Tensor, scale: torch.Tensor, meaning: torch.Tensor) -> torch.Tensor:
    """Symmetrical InfoNCE over a batch of B (clip, caption) pairs.

    Args:
        similarity: [B, B], clip i against caption j, cosines.
        scale: scalar, one over the temperature.
        meaning: int [B]; captions of one number mean the same, and are masked out as negatives of each other.
    """
    same = meaning[:, None] == meaning[None, :]
    same.fill_diagonal_(False)
    logits = (scale * similarity).float().masked_fill(same, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def clip_batches(model: open_clip.CLIP, options: Options) -> Callable[[], torch.Tensor]:
    """Renders the corpus; returns a function that gives the model's loss on a new batch."""
    scenes = world_scenes(options.clips, options.seed)
    clips = render(scenes, SIZE, options.device)
    tokenize = open_clip.get_tokenizer(f"local-dir:{options.out}")
    tokens = tokenize([scene.caption for scene in scenes]).to(options.device)
    meaning = torch.tensor(meanings_of(scenes), device=options.device)
    random = torch.Generator(options.device).manual_seed(options.seed)

    def loss_of_batch() -> torch.Tensor:
        rows = torch.randint(len(tokens), (options.batch,), device=options.device, generator=random)
        frames = augment(pick(clips, rows, FRAMES, random), random)  # [B, F, 3, H, W] in [0, 1]
        with autocast(options.device):
            image = model.encode_image(((frames - MEAN) / STD).flatten(0, 1))
            text = model.encode_text(tokens[rows])
        image = functional.normalize(image.float(), dim=-1).unflatten(0, frames.shape[:2])
        text = functional.normalize(text.float(), dim=-1)
        reward = torch.einsum("bfd,cd->bc", image, text) / FRAMES
        return contrastive_loss(reward, model.logit_scale.exp().clamp(max=MAX_SCALE), meaning[rows])

    return loss_of_batch


def main(argv: list[str] | None = None) -> Trained:
    """Trains, saves (weights, config, tokenizer, card), and measures the saved files."""
    options, _ = parse(MODULE, argv, clips=24576, batch=1024, lr=2e-3, measure=CLIPS)
    tokenizer = build_tokenizer(vocabulary(), "<eos>", CONTEXT)
    tokenizer.save_pretrained(options.out)
    config = model_config(len(tokenizer))
    (options.out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    towers = config["model_cfg"]
    model = open_clip.CLIP(
        towers["embed_dim"],
        open_clip.CLIPVisionCfg(**towers["vision_cfg"]),
        open_clip.CLIPTextCfg(**towers["text_cfg"]),
    ).to(options.device)
    done = fit(model, clip_batches(model, options), cosine(options.lr), options.seconds, options.steps)
    facts = [
        "open_clip `CLIP` for the `clip` reward of the miniature. It sees single frames and no motion.",
        f"{save_half(model, options.out / 'open_clip_model.safetensors')}; vision {VISION}; text {TEXT}; "
        f"embedding {EMBED}.",
        f"Data: {options.clips} rendered clips of all templates, all of them right; {FRAMES} random frames "
        "of each in a batch, with noise, blur and brightness jitter.",
    ]
    quality = measure_clip(options.out, options.device, options.measure)
    return finish("A small CLIP of the physics world", facts, MEANING, options, done, quality)


if __name__ == "__main__":
    main()
