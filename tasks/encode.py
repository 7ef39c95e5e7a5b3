"""Encode: clips from outside to the latents and embeddings that training reads, in place of a sampler's.

Part of the finetune stage of a recipe that learns from imported sets. An answer depends on the clips and on
the base model's VAE and text encoder, so every policy, objective and curation over these clips shares it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np

from data.errors import ConfigError
from data.keys import digest
from data.records import Clip, Latent
from data.store import Store
from data.threads import in_threads
from data.video import decode_mp4
from models.policy import policy_id
from tasks import fingerprints, generate
from tasks.context import (
    Generation,
    ImportedShard,
    PolicyRef,
    RoundContext,
    gpu_turn,
    open_sampler,
    open_store,
)
from tasks.units import Inputs, OneAnswer

STAGE: Final = "encode"


@dataclass(frozen=True)
class EncodeShard(OneAnswer):
    """The latents of some clips from outside, and the embeddings of their prompts, by the base model."""

    how: Generation
    base: str
    shard: ImportedShard
    clips_digest: str
    label: str
    task: ClassVar[str] = "encode-clips"

    @cached_property
    def question(self) -> dict[str, Any]:
        """What decides the latents."""
        return fingerprints.encode(self.how, self.base, self.clips_digest)

    @property
    def spreads(self) -> bool:
        return True

    def run(self) -> None:
        """Encode a batch at a time, and commit."""
        import torch
        from safetensors.torch import save

        store, model, size = open_store(self.how.root), self.how.model, self.how.batch_size
        clips: list[Clip] = store.read(self.shard.key, "clips")
        texts = list(dict.fromkeys(clip.prompt for clip in clips))
        latents, embeds = [], []
        with (
            gpu_turn(model.device, alone=model.quantise != "none"),
            open_sampler(self.how, PolicyRef(policy_id(self.base), self.base)) as sampler,
        ):
            generate.report_sampler(sampler, "text encoder", "vae")
            sampler.prepare(texts)
            for begin in range(0, len(texts), size):
                embeds.append(sampler.encode(texts[begin : begin + size]).float().cpu())
            for begin in range(0, len(clips), size):
                some = in_threads(lambda clip: _frames(store, clip), clips[begin : begin + size])
                latents.append(sampler.encode_frames(np.stack(some)))
        tensors = {"latents": torch.cat(latents), "prompt_embeds": torch.cat(embeds)}
        media = store.write_media(
            save({name: one.contiguous() for name, one in tensors.items()}), ".safetensors"
        )
        encoder = digest(fingerprints.encoding(self.how, self.base))[:16]
        rows = [
            Latent(clip.clip_id, encoder, media.path, place, texts.index(clip.prompt))
            for place, clip in enumerate(clips)
        ]
        info = {"clips": len(rows), "prompts": len(texts)}
        store.commit(STAGE, self.question, {"latents": rows}, [media], [self.shard.key], info)


def _frames(store: Store, clip: Clip) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return decode_mp4(store.read_media(clip.video_path))[0]


def units(context: RoundContext) -> list[EncodeShard]:
    """A unit for every shard of the round's clips from outside. Raises StageFailed: one is missing."""
    clips = Inputs.of(context.store, STAGE, [shard.key for shard in context.imported])
    return [
        EncodeShard(
            context.generation, context.policy.base_id, shard, clips_digest, f"latents of {shard.label}"
        )
        for shard, clips_digest in zip(context.imported, clips.digests, strict=True)
    ]


def check_form(context: RoundContext) -> None:
    """Check that clips from outside have the form that the model is trained at.

    Raises ConfigError: one has another size, length or frame rate than the recipe's `generate` says.
    """
    how = context.generation
    wanted = (how.sample.width, how.sample.height, how.sample.frames, float(how.fps))
    for shard in context.imported:
        names = ["clip_id", "width", "height", "frames", "fps"]
        for some in context.store.batches([shard.key], "clips", names):
            for row in some.select(names).to_pylist():
                found = (row["width"], row["height"], row["frames"], row["fps"])
                if found[:3] != wanted[:3] or abs(found[3] - wanted[3]) > 1e-3 * wanted[3]:
                    raise ConfigError(
                        f"clips.imported: clip {row['clip_id']} ({shard.label}) is {_form(found)}, and the "
                        f"recipe's `generate` says {_form(wanted)}: import the set with --recipe, or say "
                        "that form in the recipe"
                    )


def _form(form: tuple[int, int, int, float]) -> str:
    width, height, frames, fps = form
    return f"{width}x{height}, {frames} frames at {fps:g} a second"


def with_latents(store: Store, clips: Sequence[Clip], keys: Sequence[str]) -> list[Clip]:
    """`clips`, those from outside with the latents that the units of `keys` have of them.

    Raises StoreError: a unit is missing or damaged.
    """
    known: dict[str, Latent] = {row.clip_id: row for key in keys for row in store.read(key, "latents")}
    return [
        dataclasses.replace(
            clip,
            latent_path=known[clip.clip_id].latent_path,
            latent_row=known[clip.clip_id].latent_row,
            embed_row=known[clip.clip_id].embed_row,
        )
        if clip.clip_id in known
        else clip
        for clip in clips
    ]
