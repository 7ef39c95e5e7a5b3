"""Fingerprints: everything that decides a unit's answer, and so its key.

A fingerprint holds settings that are not at their default (see `data.settings.Settings.fingerprint`) and
digests of inputs, or of the list of them: never a path of this machine, a device, a number of workers, a
time. A change of meaning,
of a default, or of results for the same fingerprint raises the stage's version: what was computed before is
then the answer to another question.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from data.curation import CurateSettings
from data.outside import ConversionSettings, Source
from data.records import Prompt
from data.video import ENCODER
from models.families.settings import ModelSettings
from models.gate.settings import GateSettings
from models.training.settings import TrainSettings
from rewards import Part
from tasks.context import BestOf, ClipJob, EvaluationPlan, Generation, PolicyRef, RewardRef
from tasks.recent import Recent

VERSIONS: Final[Mapping[str, int]] = {
    "generate": 3, "score": 1, "curate": 3, "reference": 2, "finetune": 5, "evaluate": 5,
    "best-of": 1, "import": 1, "encode": 1,
}  # fmt: skip

Fingerprint = dict[str, Any]


def _question(stage: str, **said: Any) -> Fingerprint:
    return {"stage": stage, "version": VERSIONS[stage], **said}


def _played(model: ModelSettings) -> dict[str, str]:
    """How an adapter is computed where its numbers could be rounded away: before 0.2.0 it was otherwise."""
    return {"adapter": "one product"} if model.low_precision else {}


def sampling(how: Generation, policy: PolicyRef) -> dict[str, Any]:
    """Every setting that changes a clip's pixels, as a clip's identity names them; not to be changed."""
    return _sampling.get(how, (policy,), lambda: _settings(how, policy))


# All shards of a stage share it.
_sampling: Final[Recent[dict[str, Any]]] = Recent(8)


def _settings(how: Generation, policy: PolicyRef) -> dict[str, Any]:
    return {
        **(_played(how.model) if policy.adapter_sha256 else {}),
        "model": how.model.fingerprint(),
        "sample": how.sample.fingerprint(),
        "fps": how.fps,
        "video": how.video.fingerprint(),
        "encoder": ENCODER,
    }


def generate(how: Generation, policy: PolicyRef, jobs: Sequence[ClipJob]) -> Fingerprint:
    """The clips of one shard: the prompts as rows, and (row of the prompt, seed) a clip, in batch order."""
    prompts = list(dict.fromkeys(job.prompt for job in jobs))
    return _question(
        "generate",
        policy=policy.policy_id,
        sampling=sampling(how, policy),
        batch_size=how.batch_size,
        prompts=[list(dataclasses.astuple(prompt)) for prompt in prompts],
        clips=[[prompts.index(job.prompt), job.seed] for job in jobs],
    )


def conversion(settings: ConversionSettings) -> dict[str, Any]:
    """Everything that decides the pixels of a clip from outside, beside its file."""
    return {"version": VERSIONS["import"], "form": settings.fingerprint(), "encoder": ENCODER}


def imported(name: str, settings: ConversionSettings, files: Sequence[tuple[Source, Prompt]]) -> Fingerprint:
    """Some files of a set from outside: each as its table names it, its digest, why it is not read, and its
    prompt as a row.
    """
    return _question(
        "import",
        name=name,
        conversion=conversion(settings),
        files=[[one.path, one.sha256, one.refused, *dataclasses.astuple(prompt)] for one, prompt in files],
    )


def encoding(how: Generation, base: str) -> dict[str, Any]:
    """What decides the latent of a clip from outside, beside its frames, and the embedding of its prompt."""
    length = how.sample.max_sequence_length
    return {"version": VERSIONS["encode"], "base": base, "model": how.model.fingerprint(), "length": length}


def encode(how: Generation, base: str, clips_digest: str) -> Fingerprint:
    """Latents and embeddings of some clips from outside, by a model's VAE and text encoder."""
    return _question("encode", encoding=encoding(how, base), clips=clips_digest)


def score(reward: RewardRef | Part, clips_digest: str) -> Fingerprint:
    """One reward's judgement, or that of a part of one, of the clips of one shard."""
    return _question(
        "score",
        reward=reward.kind,
        reward_version=reward.version,
        clips=clips_digest,
    )


def best_of(policy: str, how: BestOf, clips: Sequence[str], scores: Sequence[str]) -> Fingerprint:
    """Which of the candidates of some jobs are kept; `clips` and `scores` are digests, a candidate each."""
    return _question(
        "best-of",
        policy=policy,
        n=how.n,
        reward=how.by.kind,
        reward_version=how.by.version,
        clips=list(clips),
        scores=list(scores),
    )


def curate(settings: CurateSettings, feedback: RewardRef, clips: str, scores: str) -> Fingerprint:
    """What is worth learning from, by the scores of one reward; `clips` and `scores`: digests of lists."""
    return _question(
        "curate",
        settings=settings.fingerprint(),
        reward=feedback.kind,
        reward_version=feedback.version,
        clips=clips,
        scores=scores,
    )


def reference(
    model: ModelSettings, settings: TrainSettings, policy: PolicyRef, clips_digest: str, latents: str = ""
) -> Fingerprint:
    """A policy's errors on the clips of one shard at the fixed draws of `settings`: no objective, no beta.

    `latents`: digest of the unit that encoded them, if they are from outside.
    """
    return _question(
        "reference",
        policy=policy.policy_id,
        model=model.fingerprint(),
        draws=settings.noise_fingerprint,
        clips=clips_digest,
        **({"latents": latents} if latents else {}),
        **(_played(model) if policy.adapter_sha256 else {}),
    )


def finetune(
    model: ModelSettings,
    settings: TrainSettings,
    policy: PolicyRef,
    curation: str,
    clips: str,
    latents: str | None = None,
) -> Fingerprint:
    """An adapter learned from one curation, by its manifest's digest; `clips`: digest of a list of such, and
    `latents` of those that encoded clips from outside.
    """
    return _question(
        "finetune",
        policy=policy.policy_id,
        model=model.fingerprint(),
        settings=settings.fingerprint(),
        curation=curation,
        clips=clips,
        **({} if latents is None else {"latents": latents}),
        **_played(model),
    )


def evaluate(
    before: PolicyRef,
    after: PolicyRef | None,
    settings: EvaluationPlan,
    gate: GateSettings,
    inputs: Sequence[Sequence[Any]],
    confidence: float | None = None,
) -> Fingerprint:
    """Two policies on the same prompts and seeds; `inputs`: a policy, a set, digests of the lists of its
    clips and of their scores.

    `confidence` is of the deciding interval, where it is not the gate's.
    """
    beside = [
        [one.name, one.best_of.n, one.best_of.by.kind, one.best_of.by.version] for one in settings.baselines
    ]
    return _question(
        "evaluate",
        **({} if confidence is None else {"confidence": confidence}),
        before=before.policy_id,
        after=after.policy_id if after else None,
        metric=settings.metric.name,
        metric_version=settings.metric.version,
        guards=[[name, *settings.within.get(name, ())] for name in settings.guards],
        primary=settings.primary,
        gate=gate.fingerprint(),
        inputs=[list(one) for one in inputs],
        **({"baselines": beside} if beside else {}),
    )
