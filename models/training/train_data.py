"""What training reads: stored latents and embeddings, weighted examples, pairs. No pixels, no text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from data.curation import labels
from data.errors import DataError, ModelError
from data.records import Clip, Example, Pair, PairSegment


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """Stored clips as the network takes them.

    Attributes:
        clip_ids: N names; `prompt_ids`: P names.
        latents: float32 [N, C, T, H, W] as the sampler left them: x0.
        embeds: [P, L, D], padded as the sampler padded them; prompt_index: int64 [N], rows of `embeds`.
    """

    clip_ids: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    latents: Tensor
    embeds: Tensor
    prompt_index: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TrainData(Clips):
    """Clips with what the curation made of them.

    Attributes:
        examples: int64 [n], rows of `latents`; weights: float32 [n], W of rwr, not negative; accepted: bool
            [n]; rejected: bool [n], what kto and nft learn to avoid; None: all that was not accepted.
        pairs: int64 [m, 2], rows of `latents`: chosen, rejected, of one prompt.
        pair_frames: bool [m, T], the latent frames in which each pair is compared; None: in all.
        unconditional: [L, D], the embedding of the negative prompt; needed for prompt dropout only.

    Raises:
        DataError: shapes or indices disagree, a number is not finite, or a pair is no pair.
    """

    examples: Tensor
    weights: Tensor
    accepted: Tensor
    pairs: Tensor
    unconditional: Tensor | None = None
    rejected: Tensor | None = None
    pair_frames: Tensor | None = None

    def __post_init__(self) -> None:
        clips, prompts = len(self.clip_ids), len(self.prompt_ids)
        if self.latents.ndim != 5 or len(self.latents) != clips or len(self.prompt_index) != clips:
            raise DataError(f"{clips} clips need latents [N, C, T, H, W], not {tuple(self.latents.shape)}")
        if self.embeds.ndim != 3 or len(self.embeds) != prompts:
            raise DataError(f"{prompts} prompts need embeddings [P, L, D], not {tuple(self.embeds.shape)}")
        for what, index, top in (
            ("prompt index", self.prompt_index, prompts),
            ("example", self.examples, clips),
            ("pair", self.pairs, clips),
        ):
            if index.numel() and (int(index.min()) < 0 or int(index.max()) >= top):
                raise DataError(f"a {what} points outside the {top} rows that there are")
        broken = ~self.latents.isfinite().flatten(1).all(1)
        if bool(broken.any()):
            named = [self.clip_ids[i] for i in broken.nonzero()[:3, 0].tolist()]
            raise DataError(
                f"{int(broken.sum())} latents hold NaN or infinite numbers, among them of {', '.join(named)}"
            )
        if not (len(self.examples) == len(self.weights) == len(self.accepted)):
            raise DataError("examples, weights and accepted differ in length")
        if len(self.undesirable) != len(self.accepted) or bool((self.undesirable & self.accepted).any()):
            raise DataError("an example is both accepted and rejected, or `rejected` has another length")
        if not bool((self.weights.isfinite() & (self.weights >= 0)).all()):
            raise DataError("an example's weight is negative or not finite")
        if self.pairs.ndim != 2 or self.pairs.shape[1] != 2:
            raise DataError(f"pairs have shape {tuple(self.pairs.shape)}, not [m, 2]")
        if self.pair_frames is not None:
            wanted = (len(self.pairs), self.latents.shape[2])
            if self.pair_frames.shape != wanted or not bool(self.pair_frames.any(1).all()):
                raise DataError(f"pair_frames must be {wanted}, with a latent frame for every pair")
        chosen, rejected = self.pairs.unbind(1)
        if bool((chosen == rejected).any()):
            raise DataError("a pair names one clip twice: ties teach nothing and must be dropped")
        if bool((self.prompt_index[chosen] != self.prompt_index[rejected]).any()):
            raise DataError(
                "a pair compares clips of two prompts: there the reference's constant does not cancel"
            )

    @property
    def undesirable(self) -> Tensor:
        """Which examples are to be avoided, bool [n]."""
        return ~self.accepted if self.rejected is None else self.rejected


def load_train_data(
    read: Callable[[str], bytes],
    clips: Sequence[Clip],
    examples: Sequence[Example] = (),
    pairs: Sequence[Pair] = (),
    unconditional: Tensor | None = None,
    pair_segments: Sequence[PairSegment] = (),
    read_by: Callable[[TrainData], Tensor] | None = None,
) -> TrainData:
    """Read what `examples` and `pairs` refer to from the latent files of `clips`.

    Args:
        read: the bytes of a latent file by the path that a clip names, checked: `Store.read_media`.
        clips: rows that cover every clip named by an example or a pair; others are left out.
        examples: curation's rows; their `weight` is W, `data.curation.labels` says which are rejected.
        pairs: curation's rows.
        unconditional: [L, D], for prompt dropout.
        pair_segments: curation's rows; pairs without are compared whole.
        read_by: rows of the clips that training reads, of data whose latents and embeddings are empty (see
            `models.training.probe.read_by`); examples and pairs of others are left out. None: all are read.

    Raises:
        DataError: a row names an unknown clip, a latent file is none, or a segment lies outside its clips.
        StoreError: as `read` does of a file that is missing or was changed.
    """
    by_id = {clip.clip_id: clip for clip in clips}
    wanted = sorted({e.clip_id for e in examples} | {c for p in pairs for c in (p.chosen, p.rejected)})
    unknown = [clip for clip in wanted if clip not in by_id]
    if unknown:
        raise DataError(
            f"{len(unknown)} curated clips are not among the generated ones, for example {unknown[0]}"
        )
    if not wanted:
        raise DataError("no training data: the curation kept neither an example nor a pair")
    curated = _outline([by_id[clip] for clip in wanted], examples, pairs, unconditional)
    rows = torch.arange(len(wanted)) if read_by is None else read_by(curated).unique()
    place = torch.full((len(wanted),), -1)
    place[rows] = torch.arange(len(rows))
    taught = place[curated.examples] >= 0
    compared = (place[curated.pairs] >= 0).all(1)
    held = load_clips(read, [by_id[wanted[row]] for row in rows.tolist()])
    pair_frames = None
    if pair_segments:
        kept = [pair for pair, read in zip(pairs, compared.tolist(), strict=True) if read]
        pair_frames = _pair_frames(kept, pair_segments, by_id, held.latents.shape[2])
    return TrainData(
        held.clip_ids,
        held.prompt_ids,
        held.latents,
        held.embeds,
        held.prompt_index,
        examples=place[curated.examples[taught]],
        weights=curated.weights[taught],
        accepted=curated.accepted[taught],
        pairs=place[curated.pairs[compared]],
        unconditional=unconditional,
        rejected=curated.undesirable[taught],
        pair_frames=pair_frames,
    )


def _outline(
    clips: Sequence[Clip], examples: Sequence[Example], pairs: Sequence[Pair], unconditional: Tensor | None
) -> TrainData:
    """What the curation made of `clips`, whose latents and embeddings are empty."""
    position = {clip.clip_id: row for row, clip in enumerate(clips)}
    prompts = {prompt: row for row, prompt in enumerate(sorted({clip.prompt_id for clip in clips}))}
    rows = [(position[pair.chosen], position[pair.rejected]) for pair in pairs]
    return TrainData(
        tuple(position),
        tuple(prompts),
        torch.empty(len(clips), 0, 0, 0, 0),
        torch.empty(len(prompts), 0, 0),
        torch.tensor([prompts[clip.prompt_id] for clip in clips]),
        examples=torch.tensor([position[e.clip_id] for e in examples], dtype=torch.int64),
        weights=torch.tensor([e.weight for e in examples], dtype=torch.float32),
        accepted=torch.tensor([e.accepted for e in examples], dtype=torch.bool),
        pairs=torch.tensor(rows, dtype=torch.int64).view(-1, 2),
        unconditional=unconditional,
        rejected=torch.tensor([label is False for label in labels(examples)], dtype=torch.bool),
    )


def _pair_frames(
    pairs: Sequence[Pair], segments: Sequence[PairSegment], clips: dict[str, Clip], latents: int
) -> Tensor:
    """bool [m, latents], in the order of the pairs; one without segments is compared in all frames."""
    spans: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for one in segments:
        spans.setdefault((one.chosen, one.rejected), []).append((one.start_s, one.end_s))
    kept = torch.ones(len(pairs), latents, dtype=torch.bool)
    for row, pair in enumerate(pairs):
        if (pair.chosen, pair.rejected) in spans:
            clip = clips[pair.chosen]
            kept[row] = latent_frames(spans[pair.chosen, pair.rejected], clip.frames, clip.fps, latents)
    return kept


def latent_frames(spans: Sequence[tuple[float, float]], frames: int, fps: float, latents: int) -> Tensor:
    """Which latent frames hold a video frame of one of the spans, bool [latents].

    Video autoencoders are causal in time: latent frame 0 is video frame 0, latent frame k >= 1 holds video
    frames (k - 1) s + 1 to k s, s the temporal stride (Wan and CogVideoX: 4; LTX-Video: 8).

    Args:
        spans: (start, end) in seconds; frame i, at i / fps, is in a span if start <= i / fps < end.
        frames: of the video; with `latents` they say the stride.

    Raises:
        ModelError: so many frames have no such latent, or no frame lies in a span.
    """
    stride, rest = divmod(frames - 1, max(1, latents - 1))
    if rest or (latents > 1 and not stride):
        raise ModelError(
            f"{frames} video frames in {latents} latent frames: segments need 1 + a whole number of "
            "frames for each further latent frame; use curate.segments: ignore"
        )
    kept = torch.zeros(latents, dtype=torch.bool)
    for start, end in spans:
        # Spans begin and end on frames; rounding puts back what the division by fps left.
        for frame in range(max(0, round(start * fps)), min(frames, round(end * fps))):
            kept[min(-(-frame // max(1, stride)), latents - 1)] = True
    if not bool(kept.any()):
        raise ModelError(f"segments {list(spans)} hold none of the {frames} frames at {fps:g} a second")
    return kept


def load_clips(read: Callable[[str], bytes], clips: Sequence[Clip]) -> Clips:
    """Latents and embeddings of `clips` (at least one), in their order; `read` as of `load_train_data`.

    Raises:
        DataError: a latent file is none, or holds clips of another size than the others.
        StoreError: as `read` does.
    """
    by_id = {clip.clip_id: clip for clip in clips}
    position = {clip: row for row, clip in enumerate(by_id)}
    prompts = sorted({clip.prompt_id for clip in clips})
    prompt_row = {prompt: row for row, prompt in enumerate(prompts)}
    latents: Tensor | None = None
    embeds: Tensor | None = None
    by_file: dict[str, list[str]] = {}
    for clip in clips:
        by_file.setdefault(clip.latent_path, []).append(clip.clip_id)
    for path, members in sorted(by_file.items()):
        stored, texts = _tensors(path, read(path))
        if latents is None or embeds is None:
            latents = stored.new_empty((len(by_id), *stored.shape[1:]))
            embeds = texts.new_empty((len(prompts), *texts.shape[1:]))
        if stored.shape[1:] != latents.shape[1:] or texts.shape[1:] != embeds.shape[1:]:
            raise DataError(f"{path} holds clips or embeddings of another size than the other latent files")
        for name in members:
            row = by_id[name]
            if not (row.latent_row < len(stored) and row.embed_row < len(texts)):
                raise DataError(
                    f"{path} has no row {row.latent_row} for clip {name}: it is not that clip's file"
                )
            latents[position[name]] = stored[row.latent_row]
            embeds[prompt_row[row.prompt_id]] = texts[row.embed_row]
    assert latents is not None
    assert embeds is not None
    return Clips(
        tuple(by_id),
        tuple(prompts),
        latents,
        embeds,
        torch.tensor([prompt_row[clip.prompt_id] for clip in by_id.values()]),
    )


def _tensors(path: str, data: bytes) -> tuple[Tensor, Tensor]:
    try:
        held = load(data)
        return held["latents"].float(), held["prompt_embeds"].float()
    except (SafetensorError, KeyError) as failure:
        raise DataError(f"{path} holds no latents: {failure}; run generate again to make them") from failure
