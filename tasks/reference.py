"""Reference errors: the reference's error on each training clip at each fixed draw, a shard at a time.

Part of the finetune stage where the recipe says `finetune.reference_errors: stored`. An answer depends on the
clips, the reference and the draws alone, so every objective, beta and curation over these clips shares it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final

from data.errors import ConfigError
from data.keys import digest
from data.records import StoredError
from data.store import Store
from models.families.settings import Expert, ModelSettings
from models.policy import policy_id
from models.training.settings import TrainSettings
from tasks import encode, fingerprints, score
from tasks.context import (
    RESIDENTS,
    Generation,
    PolicyRef,
    RoundContext,
    gpu_turn,
    open_store,
    quieten_libraries,
)
from tasks.networks import report_network
from tasks.units import Inputs, OneAnswer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from models.families.base import Family

STAGE: Final = "reference"


@dataclass(frozen=True)
class ReferenceShard(OneAnswer):
    """The reference's errors on the clips of one generated shard."""

    how: Generation
    policy: PolicyRef
    settings: TrainSettings
    rows: int  # of a forward pass, as many as training's: no part of the question, it moves the rounding
    clips_key: str
    clips_digest: str
    label: str
    latents: Inputs | None = None  # of clips from outside
    task: ClassVar[str] = "measure-reference"

    @cached_property
    def question(self) -> dict[str, Any]:
        """What decides the errors."""
        latents = "" if self.latents is None else self.latents.digest
        return fingerprints.reference(self.how.model, self.settings, self.policy, self.clips_digest, latents)

    @property
    def spreads(self) -> bool:
        return True

    def run(self) -> None:
        """Measure and commit."""
        quieten_libraries()
        from models.families import get_family
        from models.lora import clone_sharing_weights
        from models.training.networks import training_line
        from models.training.noise import fixed_sigma
        from models.training.reference import measure, reference_network
        from models.training.train_data import load_clips

        store, model = open_store(self.how.root), model_of(self.how.model, self.settings)
        family = get_family(model.family)
        settings = for_expert(self.settings, family, self.how.model)
        held = store.read(self.clips_key, "clips")
        if self.latents is not None:
            held = encode.with_latents(store, held, self.latents.keys)
        clips = load_clips(store.read_media, held)
        RESIDENTS.release(keep=STAGE)

        def load() -> nn.Module:
            start = self.policy.adapter(store, model.expert)
            return reference_network(family.load_transformer(model), start, self.policy.base_id)

        with (
            gpu_turn(model.device, alone=model.quantise != "none"),
            RESIDENTS.borrow(STAGE, (model, self.policy), load, clone_sharing_weights) as network,
        ):
            report_network("reference", training_line(family, model, settings, network))
            found = measure(network, family, clips, settings, self.rows)
        name = digest(settings.noise_fingerprint)[:16]
        prompts = [clips.prompt_ids[row] for row in clips.prompt_index.tolist()]
        rows = [
            StoredError(self.policy.policy_id, clip, name, draw, fixed_sigma(settings, prompt, draw), error)
            for clip, prompt, errors in zip(clips.clip_ids, prompts, found.tolist(), strict=True)
            for draw, error in enumerate(errors)
        ]
        counts = {"clips": len(found), "draws": self.settings.fixed_noise_samples}
        store.commit(STAGE, self.question, {"reference_errors": rows}, (), [self.clips_key], counts)


def model_of(model: ModelSettings, settings: TrainSettings) -> ModelSettings:
    """The model as one training run loads it: of two experts the one it trains, never both."""
    return model if settings.expert in (None, "both") else model.changed(expert=settings.expert)


def for_expert(settings: TrainSettings, family: Family, model: ModelSettings) -> TrainSettings:
    """Settings of one training run, with the noise levels at which its expert works.

    Raises ConfigError: an expert is named and the model has one network, or the other way round.
    """
    if (settings.expert is None) == bool(family.experts):
        held = (
            f"the experts {' and '.join(family.experts)}" if family.experts else "one network: leave it out"
        )
        raise ConfigError(f"finetune.expert is {settings.expert!r}, and family {family.name} has {held}")
    return settings.changed(sigma_range=family.sigma_range(model_of(model, settings)))


def units(context: RoundContext, expert: Expert | None = None) -> list[ReferenceShard]:
    """A unit for every shard of the round's clips; none if the recipe has no errors stored.

    Args:
        expert: of a model of two experts, whose errors.

    Raises:
        StageFailed: a shard of clips is missing.
    """
    settings = context.finetune.changed(expert=expert)
    if settings.reference_errors != "stored" or not settings.compares_errors:
        return []
    policy = context.policy
    if settings.reference != "start" and policy.adapter_path:
        policy = PolicyRef(policy_id(policy.base_id), policy.base_id)
    micro_batch = min(settings.micro_batch or settings.batch_size, settings.batch_size)
    clips = score.units(context, ())
    encoded = {unit.shard.key: Inputs.of(context.store, STAGE, unit.keys) for unit in encode.units(context)}
    return [
        ReferenceShard(
            context.generation,
            policy,
            settings,
            2 * micro_batch if settings.algorithm.pairwise else micro_batch,
            shard.clips_key,
            shard.clips_digest,
            f"reference errors of {shard.label}" + (f", {expert} noise" if expert else ""),
            encoded.get(shard.clips_key),
        )
        for shard in clips
    ]


def read(store: Store, keys: Sequence[str]) -> dict[str, Tensor]:
    """Stored errors as float32 [K] of each clip, in the order of the draws.

    Raises StoreError: a unit is missing or damaged.
    """
    import torch

    # Parquet's key order: clip by clip, and its draws from 0 on.
    found: dict[str, list[float]] = {}
    for key in keys:
        for row in store.read(key, "reference_errors"):
            found.setdefault(row.clip_id, []).append(row.error)
    return {clip: torch.tensor(errors, dtype=torch.float32) for clip, errors in found.items()}
