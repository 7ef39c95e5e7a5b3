"""The batch of a step: which clips, noise levels and noise; a function of data, settings and step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from models.training import noise as draws
from models.training.equations import frame_weights
from models.training.settings import TrainSettings
from models.training.train_data import TrainData

# On a GPU, training data up to this size is moved there once instead of batch by batch.
_RESIDENT_BYTES: Final = 4 << 30


@dataclass(frozen=True, slots=True)
class Units:
    """What is trained on together. A unit is a pair of clips (chosen, rejected) or one clip.

    Attributes:
        clips: int64 [b, clips], rows of the training data.
        weights: float32 [b], W of rwr, lambda of kto, r of nft; else 1.
        desirable: bool [b, clips], chosen or accepted.
        sigma: float32 [b] and noise: float32 [b, C, T, H, W]: one draw a unit, shared by its clips.
        fixed_draws: int64 [b], which fixed draw it is; -1 if drawn afresh.
        dropped: bool [b], trained without the prompt.
        frames: float32 [b, T] weights of latent frames in which pairs are compared; None: all alike.
    """

    clips: Tensor
    weights: Tensor
    desirable: Tensor
    sigma: Tensor
    noise: Tensor
    fixed_draws: Tensor
    dropped: Tensor
    frames: Tensor | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def split(self, size: int) -> Iterator[Units]:
        """Parts of at most `size` units, in order."""
        held = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields = {name: value.split(size) for name, value in held.items() if value is not None}
        for part in zip(*fields.values(), strict=True):
            yield Units(**dict(zip(fields, part, strict=True)))

    def per_clip(self) -> Units:
        """The same, one row a clip: all chosen, then all rejected, each with its unit's draw."""
        times = self.clips.shape[1]
        return Units(
            self.clips.T.reshape(-1, 1),
            self.weights.repeat(times),
            self.desirable.T.reshape(-1),
            self.sigma.repeat(times),
            self.noise.repeat(times, 1, 1, 1, 1),
            self.fixed_draws.repeat(times),
            self.dropped.repeat(times),
            None if self.frames is None else self.frames.repeat(times, 1),
        )


class Batches:
    """Batches of `data` for `settings`, on `device`.

    Attributes:
        accepted_share: of the units' clips (1 for pairs: every pair has its chosen clip).
    """

    def __init__(self, data: TrainData, settings: TrainSettings, device: torch.device) -> None:
        self.data, self.settings, self.device = data, settings, device
        size = sum(table.numel() * table.element_size() for table in (data.latents, data.embeds))
        home = device if size <= _RESIDENT_BYTES else torch.device("cpu")
        self._latents, self._embeds = data.latents.to(home), data.embeds.to(home)
        self._unconditional = None if data.unconditional is None else data.unconditional.to(device)
        objective = settings.algorithm
        self._clips, self._weights = objective.units(data), objective.unit_weights(data, settings)
        self._desirable = (
            torch.tensor([[True, False]]).expand(len(data.pairs), 2)
            if objective.pairwise
            else data.accepted[objective.rows(data), None]
        )
        self._frames: Tensor | None = None
        # Where every pair is compared in all frames the loss is summed as without segments, bit for bit.
        if objective.pairwise and data.pair_frames is not None and not bool(data.pair_frames.all()):
            self._frames = frame_weights(data.pair_frames)
        self.accepted_share = float(self._desirable[:, 0].float().mean()) if len(self._clips) else 0.0

    def at(self, step: int) -> Units:
        """The units of step n, `batch_size` of them."""
        settings, size = self.settings, self.settings.batch_size
        chosen = torch.from_numpy(draws.batch_at(settings.seed, step, size, len(self._clips)))
        clips = self._clips[chosen]
        shape = self.data.latents.shape[1:]
        if settings.fixed_noise_samples:
            fixed = draws.draws_at(settings, step, size)
            prompts = [self.data.prompt_ids[i] for i in self.data.prompt_index[clips[:, 0]].tolist()]
            keys = [(prompt, int(k)) for prompt, k in zip(prompts, fixed, strict=True)]
            sigma = torch.tensor([draws.fixed_sigma(settings, *key) for key in keys])
            noise = torch.stack([draws.fixed_noise(settings, *key, shape) for key in keys])
            fixed_draws = torch.from_numpy(fixed)
        else:
            sigma = draws.sigmas_at(settings, step, size)
            noise = draws.noise_at(settings.seed, step, (size, *shape), self.device)
            fixed_draws = torch.full((size,), -1)
        dropped = torch.from_numpy(draws.dropped_at(settings, step, size))
        weights = self._weights[chosen].to(self.device)
        desirable = self._desirable[chosen].to(self.device)
        frames = None if self._frames is None else self._frames[chosen].to(self.device)
        sigma, noise = sigma.to(self.device), noise.to(self.device)
        return Units(clips, weights, desirable, sigma, noise, fixed_draws, dropped, frames)

    def inputs(self, rows: Units) -> tuple[Tensor, Tensor]:
        """x0 [b, C, T, H, W] and embeddings [b, L, D] of one-clip units; dropped prompts are replaced."""
        clips = rows.clips[:, 0]
        x0 = self._latents[clips.to(self._latents.device)].to(self.device)
        embeds = self._embeds[self.data.prompt_index[clips].to(self._embeds.device)].to(self.device)
        if self._unconditional is not None and bool(rows.dropped.any()):
            embeds[rows.dropped.to(self.device)] = self._unconditional.to(embeds.dtype)
        return x0, embeds
