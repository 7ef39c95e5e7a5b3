"""Finetune: curated examples or pairs to a LoRA adapter, in one unit that resumes from its checkpoints."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Final

from data.errors import ConfigError
from data.records import Example, Pair, PairSegment, Policy
from data.store import Store
from models.families import get_family
from models.families.settings import Expert
from models.lora_spec import LoraSpec, read_header, require_same
from models.policy import policy_id
from models.training.settings import STORED_SEGMENTS, TrainSettings
from tasks import curate, encode, fingerprints, generate, reference
from tasks.context import (
    RESIDENTS,
    Generation,
    PolicyRef,
    RoundContext,
    open_sampler,
    open_store,
    quieten_libraries,
)
from tasks.networks import report_network
from tasks.policies import policy_ref
from tasks.stage_spec import Phase, StageSpec
from tasks.units import Inputs, OneAnswer, report_steps

STAGE = "finetune"


@dataclass(frozen=True)
class FinetuneUnit(OneAnswer):
    """One training run. If there is nothing to learn from, its manifest says so and holds no policy."""

    how: Generation
    policy: PolicyRef
    settings: TrainSettings
    curation: Inputs
    clips: Inputs
    label: str
    latents: Inputs | None = None  # of clips from outside
    reference_keys: tuple[str, ...] = ()  # stored errors of the reference; none computes them beside training
    threads: int = 1  # share the micro-batches of a step; no part of the question: the sums keep their order
    task: ClassVar[str] = "finetune-policy"

    @cached_property
    def question(self) -> dict[str, Any]:
        """What decides the adapter."""
        (curation,) = self.curation.digests
        latents = None if self.latents is None else self.latents.digest
        return fingerprints.finetune(
            self.how.model, self.settings, self.policy, curation, self.clips.digest, latents
        )

    @property
    def inputs(self) -> Mapping[str, Inputs]:
        encoded = {} if self.latents is None else {"latents": self.latents}
        return {"curation": self.curation, "clips": self.clips, **encoded}

    def run(self) -> None:
        """Train, and commit the policy; checkpoints lie in the store's scratch folder until then."""
        store = open_store(self.how.root)
        examples: list[Example] = store.read(self.curation.keys[0], "examples")
        pairs: list[Pair] = store.read(self.curation.keys[0], "pairs")
        inputs = self.listed(reference=Inputs.of(store, STAGE, self.reference_keys))
        lacking = self.settings.algorithm.lacking(examples, pairs, self.settings.label)
        if lacking:
            tables: dict[str, list[Any]] = {"policies": [], "inputs": inputs}
            store.commit(STAGE, self.question, tables, info={"no_training_data": lacking})
            return
        settings = reference.for_expert(self.settings, get_family(self.how.model.family), self.how.model)
        adapter, curve, facts = self._train(store, settings, examples, pairs)
        if settings.expert is not None:
            facts["expert"] = settings.expert
        media = store.write_media(adapter, ".safetensors")
        spec, _ = read_header(adapter)  # of the file, whatever was asked for
        before = [self.policy.policy_id] if self.policy.adapter_path else []
        row = Policy(
            policy_id=policy_id(self.policy.base_id, before, media.sha256),
            base_id=self.policy.base_id,
            parents=before,
            objective=self.settings.label,
            curation_id=examples[0].curation_id,
            adapter_path=media.path,
            adapter_sha256=media.sha256,
            rank=spec.rank,
            alpha=spec.alpha,
            targets=list(spec.targets),
            steps=self.settings.steps,
            settings=json.dumps(settings.model_dump(mode="json"), sort_keys=True),
            curve=json.dumps(curve, sort_keys=True, allow_nan=False),
        )
        store.commit(STAGE, self.question, {"policies": [row], "inputs": inputs}, [media], info=facts)
        store.clear_scratch(self.key)

    def _train(
        self, store: Store, settings: TrainSettings, examples: list[Example], pairs: list[Pair]
    ) -> tuple[bytes, list[dict[str, float]], dict[str, Any]]:
        quieten_libraries()
        from models.training.networks import training_line
        from models.training.probe import read_by
        from models.training.reference import ErrorTable
        from models.training.train_data import load_train_data
        from models.training.trainer import TrainJob, train

        unconditional = None
        if self.settings.prompt_dropout > 0:
            with open_sampler(self.how, self.policy) as sampler:
                generate.report_sampler(sampler, "text encoder")
                unconditional = sampler.encode([self.how.sample.negative_prompt])[0].float().cpu()
        # Whatever sampled and judged makes room for what learns.
        RESIDENTS.release()
        clips = [clip for key in self.clips.keys for clip in store.read(key, "clips")]
        if self.latents is not None:
            clips = encode.with_latents(store, clips, self.latents.keys)
        segments: list[PairSegment] = store.read(self.curation.keys[0], "pair_segments")
        wanted = partial(read_by, settings=settings)
        data = load_train_data(store.read_media, clips, examples, pairs, unconditional, segments, wanted)
        family = get_family(self.how.model.family)
        model = reference.model_of(self.how.model, settings)
        errors = reference.read(store, self.reference_keys)
        job = TrainJob(
            data,
            settings,
            self.policy.base_id,
            store.scratch(self.key),
            start=self.policy.adapter(store, model.expert),
            reference_errors=ErrorTable(data.clip_ids, errors) if errors else None,
            threads=max(1, self.threads // self.settings.processes),
        )

        def on_step(entry: dict[str, float]) -> None:
            report_steps(int(entry["step"]) + 1, self.settings.steps)

        if self.settings.processes > 1:
            from models.training.distributed import check_devices
            from models.training.launch_ddp import train_distributed

            if model.torch_device != "cpu":
                check_devices(self.settings.processes)
                model = model.changed(device="cuda")
            report_network("policy", training_line(family, model, settings))
            with tempfile.TemporaryDirectory(prefix="vidloop-train-") as folder:
                result = train_distributed(model, job, Path(folder), on_step)
        else:
            network = family.load_transformer(model)
            report_network("policy", training_line(family, model, settings, network))
            result = train(network, family, job, on_step)
        return result.adapter, result.curve, result.diagnostics


def experts(context: RoundContext) -> tuple[Expert | None, ...]:
    """What the round trains, in this order: experts, or the only network (None)."""
    asked = context.finetune.expert
    return ("high", "low") if asked == "both" else (asked,)


def check_start(context: RoundContext) -> None:
    """Refuse a round that asks for an adapter of another size or place than the one it would train.

    Raises:
        ConfigError: finetune.rank, alpha or targets are not those of the starting policy's adapter.
        StoreError, ModelError: the adapter is missing, was changed, or is none.
    """
    asked = context.finetune
    spec = LoraSpec(
        asked.rank, asked.alpha, asked.targets or get_family(context.generation.model.family).lora_targets
    )
    for expert in experts(context):
        adapter = context.policy.adapter(context.store, expert)
        if adapter is not None:
            require_same(read_header(adapter)[0], spec)


def unit(context: RoundContext) -> FinetuneUnit:
    """The round's last training run: what it makes is the candidate.

    Raises StageFailed: the curation is missing, or what the run before it made.
    """
    return units(context)[-1]


def units(context: RoundContext, wanted: int | None = None) -> list[FinetuneUnit]:
    """The round's training runs, the first `wanted` of them: one, or one for each expert.

    An expert is trained on the policy that the expert before it made, so that each run makes a policy, and
    the last of them has all adapters. Raises StageFailed: the curation is missing, or what a run but the last
    made.
    """
    curated = curate.unit(context)
    # Without a stated micro-batch the threads would decide how a batch is cut, and so its rounding.
    shared = context.finetune.micro_batch is not None and context.generation.model.quantise == "none"
    encoded = [unit.key for unit in encode.units(context)]
    latents = Inputs.of(context.store, STAGE, encoded) if encoded else None
    found: list[FinetuneUnit] = []
    policy = context.policy
    for expert in experts(context)[:wanted]:
        if found:
            policy = _made(context.store, found[-1]) or policy
        what = f"{context.finetune.steps} steps of {context.finetune.label}"
        found.append(
            FinetuneUnit(
                context.generation,
                policy,
                context.finetune.changed(expert=expert),
                Inputs.of(context.store, STAGE, curated.keys),
                curated.clips,
                what + (f", the expert for {expert} noise" if expert else ""),
                latents,
                tuple(shard.key for shard in reference.units(context, expert)),
                threads=context.workers if shared else 1,
            )
        )
    return found


def phases(context: RoundContext) -> Iterator[Phase]:
    """The candidate policy, or the statement that there was nothing to learn from.

    Before it the latents of clips from outside, and the reference's errors, where the recipe has them
    stored. Experts come one after the other. Raises ConfigError: errors are of whole clips, and the
    curation's pairs are of segments; or clips from outside have another form than the model's.
    """
    encoded = encode.units(context)
    if encoded:
        encode.check_form(context)
        yield Phase(encoded, more=True, answers=False)
    trained_here = experts(context)
    for place, expert in enumerate(trained_here, start=1):
        trained = units(context, place)[-1]
        if trained.reference_keys:
            curation = trained.curation.keys[0]
            if trained.settings.algorithm.pairwise and context.store.read(curation, "pair_segments"):
                raise ConfigError(STORED_SEGMENTS)
            yield Phase(reference.units(context, expert), more=True)
        yield Phase([trained], more=place < len(trained_here))


def candidate(context: RoundContext) -> PolicyRef | None:
    """The policy that the round's last training run made; None if there was nothing to learn from."""
    return _made(context.store, unit(context))


def _made(store: Store, trained: FinetuneUnit) -> PolicyRef | None:
    """The policy that a training run made; None if there was nothing to learn from."""
    found: list[Policy] = store.read(trained.key, "policies")
    return policy_ref(found[0], trained.policy) if found else None


def _outcome(context: RoundContext) -> str | None:
    """Why the round's last training run made no policy; None if it made one."""
    manifest = context.store.manifest(unit(context).key)
    why = None if manifest is None else manifest.info.get("no_training_data")
    return None if why is None else f"no policy was made, for there is no training data: {why}"


SPEC: Final = StageSpec(
    name=STAGE,
    flow="offline-rl-finetune",
    version=fingerprints.VERSIONS[STAGE],
    title="learning",
    does="Train the candidate policy.",
    phases=phases,
    form=(
        "finetune.objective",
        "finetune.sft_weight",
        "finetune.beta",
        "finetune.steps",
        "finetune.batch_size",
        "finetune.micro_batch",
        "finetune.lr",
        "finetune.rank",
    ),
    outcome=_outcome,
)
